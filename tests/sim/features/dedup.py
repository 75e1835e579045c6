"""A publisher that sends again what was not confirmed, under the same ids: each message is there once."""

from node.wire.properties import BasicProperties
from tests.sim.actors import CHANNEL, Actor, Consumer
from tests.sim.features.base import FeaturePublisher, Plain
from tests.sim.history import Message


class Dedup(Plain):
    """x-dedup-id."""

    name = "dedup"

    def clients(self) -> list[Actor]:
        return [Insistent(self), *[Consumer(self.run, "consumer-dedup", self.name) for _ in range(2)]]

    def properties(self, message: Message) -> BasicProperties:
        channel, number = message
        return BasicProperties(headers={"x-dedup-id": f"{channel}-{number}"})


class Insistent(FeaturePublisher):
    """Forgets nothing when a connection ends."""

    def __init__(self, feature: Dedup) -> None:
        super().__init__(feature)
        self.again: list[Message] = []

    def act(self) -> None:
        again, self.again = self.again, []
        for message in again:
            body = b"<%d:%d>" % message
            body += b"." * (self.run.history.sizes[message] - len(body))
            seq = self.amqp.publish(CHANNEL, "", self.feature.name, body, self.feature.properties(message))
            self.sent[seq] = message
        super().act()

    def gone(self) -> None:
        self.again += self.sent.values()
        super().gone()
