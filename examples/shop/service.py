"""A service of the shop: service.py stock, service.py payment or service.py mail."""

import json
import os
import sys

import pika
from pika.adapters.blocking_connection import BlockingChannel

URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672")
service = sys.argv[1]


def handle(
    channel: BlockingChannel, method: pika.spec.Basic.Deliver, _: pika.BasicProperties, body: bytes
) -> None:
    print(f"{service} handles", *json.loads(body)["items"], sep=" | ", flush=True)
    channel.basic_ack(method.delivery_tag)  # only now the order leaves the queue


channel = pika.BlockingConnection(pika.URLParameters(URL)).channel()
channel.exchange_declare("orders", exchange_type="fanout", durable=True)
channel.queue_declare(f"orders.{service}", durable=True)  # of its own, so that each service gets each order
channel.queue_bind(f"orders.{service}", "orders")
channel.basic_qos(prefetch_count=10)
channel.basic_consume(f"orders.{service}", handle)
print(f"{service} waits for orders", flush=True)
channel.start_consuming()
