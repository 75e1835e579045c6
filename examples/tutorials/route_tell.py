"""4. Tell those who asked for this word: route_tell.py WORD TEXT"""

import os
import sys

import pika

URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672")
word, text = sys.argv[1:]

with pika.BlockingConnection(pika.URLParameters(URL)) as connection:
    channel = connection.channel()
    channel.exchange_declare("weather", exchange_type="direct")
    channel.basic_publish(exchange="weather", routing_key=word, body=text.encode())
print(f"told {word}: {text}")
