"""4. Hear what is told under some words, and nothing else: route_hear.py WORD..."""

import os
import sys

import pika

URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672")

channel = pika.BlockingConnection(pika.URLParameters(URL)).channel()
channel.exchange_declare("weather", exchange_type="direct")
queue = channel.queue_declare("", exclusive=True).method.queue
for word in sys.argv[1:]:
    channel.queue_bind(queue, "weather", routing_key=word)  # one binding a word
print("listening", flush=True)
for method, _properties, body in channel.consume(queue, auto_ack=True):
    print(f"heard {method.routing_key}: {body.decode()}", flush=True)
