"""Show log lines as they come: watch.py SEVERITY..."""

import os
import sys

import pika

URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672")

channel = pika.BlockingConnection(pika.URLParameters(URL)).channel()
channel.exchange_declare("logs", exchange_type="direct")
queue = channel.queue_declare("", exclusive=True).method.queue  # named by the broker, gone with this program
for severity in sys.argv[1:]:
    channel.queue_bind(queue, "logs", routing_key=severity)
print("watching", *sys.argv[1:], flush=True)
for method, _properties, body in channel.consume(queue, auto_ack=True):
    print(f"{method.routing_key}: {body.decode()}", flush=True)
