"""Send an order to every service of the shop: order.py ITEM..."""

import json
import os
import sys

import pika

URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672")

connection = pika.BlockingConnection(pika.URLParameters(URL))
channel = connection.channel()
channel.confirm_delivery()  # basic_publish returns when the order is safe, and raises if it is not
channel.exchange_declare("orders", exchange_type="fanout", durable=True)
channel.basic_publish(
    exchange="orders",
    routing_key="",
    body=json.dumps({"items": sys.argv[1:]}, ensure_ascii=False).encode(),
    properties=pika.BasicProperties(content_type="application/json", delivery_mode=2),
)
print("ordered", *sys.argv[1:], sep=" | ")
connection.close()
