"""3. Hear all that is told while this runs: news_hear.py"""

import os

import pika

URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672")

channel = pika.BlockingConnection(pika.URLParameters(URL)).channel()
channel.exchange_declare("news", exchange_type="fanout")
queue = channel.queue_declare("", exclusive=True).method.queue  # a copy of everything for this program alone
channel.queue_bind(queue, "news")
print("listening", flush=True)
for _method, _properties, body in channel.consume(queue, auto_ack=True):
    print(f"heard {body.decode()}", flush=True)
