"""5. Tell those whose pattern fits a key of several words: topic_tell.py KEY TEXT, like garden.north.rain"""

import os
import sys

import pika

URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672")
key, text = sys.argv[1:]

with pika.BlockingConnection(pika.URLParameters(URL)) as connection:
    channel = connection.channel()
    channel.exchange_declare("weather by place", exchange_type="topic")
    channel.basic_publish(exchange="weather by place", routing_key=key, body=text.encode())
print(f"told {key}: {text}")
