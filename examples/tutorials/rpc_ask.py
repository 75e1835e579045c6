"""6. Ask and wait for the answers: rpc_ask.py [--direct] NUMBER...; --direct asks without a queue for the answers"""

import os
import sys
import uuid

import pika

URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672")
is_direct = sys.argv[1] == "--direct"
numbers = sys.argv[2:] if is_direct else sys.argv[1:]

with pika.BlockingConnection(pika.URLParameters(URL)) as connection:
    channel = connection.channel()
    if is_direct:
        answers = "amq.rabbitmq.reply-to"  # the broker brings answers straight to this channel
    else:
        answers = channel.queue_declare("", exclusive=True).method.queue
    questions: dict[str, str] = {}
    told: dict[str, str] = {}

    def take(_channel: object, _method: object, properties: pika.BasicProperties, body: bytes) -> None:
        told[questions.pop(properties.correlation_id)] = body.decode()

    channel.basic_consume(answers, take, auto_ack=True)  # before the first question
    for number in numbers:
        name = str(uuid.uuid4())
        questions[name] = number
        channel.basic_publish(
            "", "steps", number.encode(), pika.BasicProperties(reply_to=answers, correlation_id=name)
        )
    while questions:
        connection.process_data_events(time_limit=None)
for number in numbers:
    print(f"{number} takes {told[number]} steps")
