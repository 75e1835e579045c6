"""Log a line: log.py SEVERITY TEXT"""

import os
import sys

import pika

URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672")
severity, text = sys.argv[1:]

connection = pika.BlockingConnection(pika.URLParameters(URL))
channel = connection.channel()
channel.exchange_declare("logs", exchange_type="direct")
channel.basic_publish(exchange="logs", routing_key=severity, body=text.encode())
connection.close()
