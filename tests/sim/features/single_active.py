"""A single active consumer: while it is there, nobody else is given what is new."""

from node.wire.primitives import Table
from node.wire.properties import BasicProperties
from tests.amqp_client import Received
from tests.sim.actors import Actor, Consumer
from tests.sim.features.base import FeaturePublisher, Plain
from tests.sim.history import Message


class SingleActive(Plain):
    """x-single-active-consumer.

    A consumer that was given a message was active then. Somebody else who is given a message that was published later
    was active after that; by then the first must have gone.
    """

    name = "single"
    active: Consumer | None = None
    number = 0
    newest = 0
    """Of the messages that were published when the consumer was seen to be active."""

    def arguments(self) -> Table:
        return {"x-single-active-consumer": True}

    def clients(self) -> list[Actor]:
        self.sent: dict[Message, int] = {}
        return [
            FeaturePublisher(self),
            *[Consumer(self.run, f"consumer{number}-single", self.name) for number in "123"],
        ]

    def properties(self, message: Message) -> BasicProperties:
        self.sent[message] = len(self.sent)
        return super().properties(message)

    def delivered(self, consumer: Consumer, message: Message, event: Received) -> None:
        if event.method.consumer_tag != f"c{consumer.number}" or not consumer.is_consuming:
            return
        is_new = self.sent[message] >= self.newest
        if consumer is not self.active or consumer.number != self.number:
            if self._is_there() and is_new:
                assert self.active is not None
                self.run.violate("two active consumers", f"{self.active.name} and {consumer.name}: {message}")
            if self._is_there() and not is_new:
                return
        self.active, self.number, self.newest = consumer, consumer.number, len(self.sent)

    def _is_there(self) -> bool:
        """Whether the consumer that was active last must still be, for all that can be seen."""
        consumer = self.active
        if consumer is None or consumer.number != self.number or not consumer.is_consuming:
            return False
        client = consumer.client
        return (
            client is not None
            and consumer.is_open
            and client.is_writable
            and not client.is_paused
            and self.run.is_current(client, consumer.group)
        )
