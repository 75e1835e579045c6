"""7. Know that messages are safe: confirms.py COUNT, three ways to wait for the broker's word, and what came back"""

import os
import sys

import pika

URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672")
QUEUE = "confirmed"
BATCH = 10
KEPT = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)
count = int(sys.argv[1])


def one_by_one() -> int:
    """Slowest: every message waits for its own confirm, and an exception tells of one that was refused."""
    with pika.BlockingConnection(pika.URLParameters(URL)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        for number in range(count):
            channel.basic_publish("", QUEUE, str(number).encode(), KEPT, mandatory=True)
    return count


class Publisher:
    """Publishes `window` messages, and as many again once all of them are confirmed."""

    def __init__(self, window: int) -> None:
        self.window = window
        self.sent = 0
        self.safe = 0
        self.connection = pika.SelectConnection(pika.URLParameters(URL), on_open_callback=self.on_open)

    def run(self) -> int:
        self.connection.ioloop.start()
        return self.safe

    def on_open(self, connection: pika.SelectConnection) -> None:
        connection.channel(on_open_callback=self.on_channel)

    def on_channel(self, channel: pika.channel.Channel) -> None:
        self.channel = channel
        channel.confirm_delivery(self.on_confirm, callback=self.publish)

    def publish(self, _: object = None) -> None:
        for number in range(self.sent, min(self.sent + self.window, count)):
            self.channel.basic_publish("", QUEUE, str(number).encode(), KEPT)
            self.sent += 1

    def on_confirm(self, frame: pika.frame.Method) -> None:
        assert isinstance(frame.method, pika.spec.Basic.Ack), "the broker refused a message"
        # `multiple`: this one and all before it.
        self.safe = frame.method.delivery_tag if frame.method.multiple else self.safe + 1
        if self.safe == count:
            self.connection.close()
            self.connection.ioloop.stop()
        elif self.safe == self.sent:
            self.publish()


def returned() -> str:
    """A confirm says that the broker has done its part, even if no queue wanted the message: `mandatory` tells."""
    with pika.BlockingConnection(pika.URLParameters(URL)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        try:
            channel.basic_publish("", "no such queue", b"lost?", mandatory=True)
        except pika.exceptions.UnroutableError as error:
            return str(error.messages[0].method.reply_text)
    return "nothing"


with pika.BlockingConnection(pika.URLParameters(URL)) as connection:
    connection.channel().queue_declare(QUEUE, durable=True)
    connection.channel().queue_purge(QUEUE)
print(f"one by one: {one_by_one()} confirmed")
print(f"in batches: {Publisher(BATCH).run()} confirmed")
print(f"as they come: {Publisher(count).run()} confirmed")
with pika.BlockingConnection(pika.URLParameters(URL)) as connection:
    held = connection.channel().queue_declare(QUEUE, passive=True).method.message_count
print(f"the queue holds {held}")
print(f"came back: {returned()}")
