"""2. Give tasks to whichever worker is free: work_give.py TASK..."""

import os
import sys

import pika

URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672")

with pika.BlockingConnection(pika.URLParameters(URL)) as connection:
    channel = connection.channel()
    channel.queue_declare("work", durable=True)
    for task in sys.argv[1:]:
        kept = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)
        channel.basic_publish("", "work", task.encode(), kept)
print(f"gave {len(sys.argv) - 1}")
