"""Direct reply-to: an answer comes to whoever asked, and as often as it was sent."""

from node.wire import methods
from node.wire.properties import BasicProperties
from tests.amqp_client import ClientEvent, Received
from tests.sim.actors import BODY_BYTES, CHANNEL, Actor, Consumer
from tests.sim.features.base import Feature, properties_of
from tests.sim.history import Message

REPLIES = "amq.rabbitmq.reply-to"


class Replies(Feature):
    """Two who ask, and one who answers."""

    name = "asks"

    def clients(self) -> list[Actor]:
        self.answers: dict[Message, int] = {}  # sent and not received
        return [Asker(self, "asker1"), Asker(self, "asker2"), Consumer(self.run, "server-asks", self.name)]

    def delivered(self, consumer: Consumer, message: Message, event: Received) -> None:
        address = properties_of(event).reply_to
        if not address or address == REPLIES:
            self.run.violate("reply-to", f"{message} says {address}")
        self.answers[message] = self.answers.get(message, 0) + 1
        consumer.amqp.publish(CHANNEL, "", address, b"%d:%d" % message)


class Asker(Actor):
    """Asks, and counts the answers."""

    def __init__(self, feature: Replies, name: str) -> None:
        super().__init__(feature.run, name)
        self.feature = feature
        self.channel = self.number = 0
        self.replies = 0
        feature.run.history.may_lose[feature.name] = None

    def begin(self) -> None:
        self.channel, self.number = self.run.history.new_channel(), 0
        self.amqp.consume(CHANNEL, REPLIES, "replies", no_ack=True)

    def act(self) -> None:
        self.number += 1
        message = (self.channel, self.number)
        body = self.run.history.publish(message, (self.feature.name,), self.rng.choice(BODY_BYTES))
        self.amqp.publish(CHANNEL, "", self.feature.name, body, BasicProperties(reply_to=REPLIES))

    def hear(self, event: ClientEvent) -> None:
        if isinstance(event, Received) and isinstance(event.method, methods.BasicDeliver):
            channel, number = map(int, event.body.split(b":"))
            left = self.feature.answers.get((channel, number), 0)
            if channel != self.channel or not left:
                self.run.violate("reply", f"{event.body!r} to {self.name}, {left} were sent")
            self.feature.answers[channel, number] = left - 1
            self.replies += 1
