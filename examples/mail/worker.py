"""Write mails whose template matches: worker.py PATTERN, like "*.en" or "invoice.#"."""

import os
import sys

import pika
from pika.adapters.blocking_connection import BlockingChannel

URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672")
TEMPLATES = {
    "welcome.en": "Welcome, {}!",
    "welcome.ko": "{}님, 환영합니다!",
    "invoice.en": "Dear {}, your invoice is attached.",
    "invoice.ko": "{}님, 청구서를 첨부합니다.",
}
pattern = sys.argv[1]


def write(
    channel: BlockingChannel, method: pika.spec.Basic.Deliver, _: pika.BasicProperties, body: bytes
) -> None:
    template = TEMPLATES.get(method.routing_key)
    if template is None:
        channel.basic_reject(method.delivery_tag, requeue=False)  # it would fail again, so it is not put back
        return
    print(template.format(body.decode()), flush=True)
    channel.basic_ack(method.delivery_tag)


channel = pika.BlockingConnection(pika.URLParameters(URL)).channel()
channel.exchange_declare("mail", exchange_type="topic", durable=True)
channel.queue_declare(f"mail {pattern}", durable=True)  # workers with one pattern share a queue, and the work
channel.queue_bind(f"mail {pattern}", "mail", routing_key=pattern)
channel.basic_qos(prefetch_count=1)
channel.basic_consume(f"mail {pattern}", write)
print(f"waiting for {pattern}", flush=True)
channel.start_consuming()
