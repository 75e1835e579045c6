"""Ask for a mail: send.py TEMPLATE.LANGUAGE NAME"""

import os
import sys

import pika
from pika.exceptions import UnroutableError

URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672")
template, name = sys.argv[1:]

connection = pika.BlockingConnection(pika.URLParameters(URL))
channel = connection.channel()
channel.confirm_delivery()
channel.exchange_declare("mail", exchange_type="topic", durable=True)
try:
    channel.basic_publish(
        exchange="mail",
        routing_key=template,
        body=name.encode(),
        properties=pika.BasicProperties(content_type="text/plain", delivery_mode=2),
        mandatory=True,
    )
    print(f"{template} for {name} is on its way")
except UnroutableError:
    print(f"nobody writes {template}")
connection.close()
