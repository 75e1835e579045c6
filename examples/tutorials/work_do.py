"""2. Do tasks, one at a time; each dot of its text is a tenth of a second: work_do.py"""

import os
import time

import pika
from pika.adapters.blocking_connection import BlockingChannel

URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672")


def do(
    channel: BlockingChannel, method: pika.spec.Basic.Deliver, _: pika.BasicProperties, body: bytes
) -> None:
    task = body.decode()
    print(f"{'again' if method.redelivered else 'begins'} {task}", flush=True)
    time.sleep(task.count(".") / 10)
    print(f"done {task}", flush=True)
    channel.basic_ack(method.delivery_tag)  # only now: if this worker dies before, another gets the task


channel = pika.BlockingConnection(pika.URLParameters(URL)).channel()
channel.queue_declare("work", durable=True)
channel.basic_qos(prefetch_count=1)  # the next task comes after the ack of this one
channel.basic_consume("work", do)
print("ready", flush=True)
channel.start_consuming()
