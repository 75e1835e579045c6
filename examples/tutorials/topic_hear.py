"""5. Hear what fits patterns, * one word and # any number: topic_hear.py PATTERN..., like garden.# or *.north.*"""

import os
import sys

import pika

URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672")

channel = pika.BlockingConnection(pika.URLParameters(URL)).channel()
channel.exchange_declare("weather by place", exchange_type="topic")
queue = channel.queue_declare("", exclusive=True).method.queue
for pattern in sys.argv[1:]:
    channel.queue_bind(queue, "weather by place", routing_key=pattern)
print("listening", flush=True)
for method, _properties, body in channel.consume(queue, auto_ack=True):
    print(f"heard {method.routing_key}: {body.decode()}", flush=True)
