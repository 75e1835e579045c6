"""6. Answer requests: how many steps a number takes to 1, halved if even, else tripled and one more: rpc_answer.py"""

import os

import pika
from pika.adapters.blocking_connection import BlockingChannel

URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672")


def steps(number: int) -> int:
    count = 0
    while number != 1:
        number = 3 * number + 1 if number % 2 else number // 2
        count += 1
    return count


def answer(
    channel: BlockingChannel, method: pika.spec.Basic.Deliver, asked: pika.BasicProperties, body: bytes
) -> None:
    same = pika.BasicProperties(correlation_id=asked.correlation_id)  # by this the asker knows its question
    channel.basic_publish("", asked.reply_to, str(steps(int(body))).encode(), same)
    channel.basic_ack(method.delivery_tag)


channel = pika.BlockingConnection(pika.URLParameters(URL)).channel()
channel.queue_declare("steps")
channel.basic_qos(prefetch_count=1)  # several of these share the requests
channel.basic_consume("steps", answer)
print("answering", flush=True)
channel.start_consuming()
