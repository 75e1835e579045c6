"""3. Tell everyone who listens now: news_tell.py TEXT"""

import os
import sys

import pika

URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672")
text = sys.argv[1]

with pika.BlockingConnection(pika.URLParameters(URL)) as connection:
    channel = connection.channel()
    channel.exchange_declare("news", exchange_type="fanout")
    channel.basic_publish(exchange="news", routing_key="", body=text.encode())
print(f"told {text}")
