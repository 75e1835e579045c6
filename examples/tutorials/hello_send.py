"""1. Put a text into a queue: hello_send.py TEXT"""

import os
import sys

import pika

URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672")
text = sys.argv[1]

with pika.BlockingConnection(pika.URLParameters(URL)) as connection:
    channel = connection.channel()
    channel.queue_declare("hello")  # whoever comes first makes it; to ask again does no harm
    channel.basic_publish(exchange="", routing_key="hello", body=text.encode())
print(f"sent {text}")
