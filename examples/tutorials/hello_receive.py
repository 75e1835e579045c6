"""1. Print what comes through a queue: hello_receive.py"""

import os

import pika

URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672")

channel = pika.BlockingConnection(pika.URLParameters(URL)).channel()
channel.queue_declare("hello")
print("waiting", flush=True)
for _method, _properties, body in channel.consume("hello", auto_ack=True):
    print(f"received {body.decode()}", flush=True)
