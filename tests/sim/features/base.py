"""What the features share: a queue with arguments, the queue of its dead letters, and a publisher with properties."""

import random
import struct
from typing import TYPE_CHECKING, Any

from node.wire.primitives import Table
from node.wire.properties import BasicProperties, decode_header
from tests.amqp_client import ClientEvent, Received
from tests.sim.actors import BODY_BYTES, CHANNEL, Actor, Consumer, Publisher
from tests.sim.history import Message

if TYPE_CHECKING:
    from tests.sim.log_model import Arrival, GroupModel
    from tests.sim.run import Run

_CONTENT = struct.Struct(">HHQ")  # class, weight, bytes of the body


def properties_of(event: Received) -> BasicProperties:
    """Read what came with a message."""
    return decode_header(_CONTENT.pack(60, 0, len(event.body)) + event.properties)[1]


class Feature:
    """One queue, and whoever uses it. Subclasses say how, and look at each delivery.

    Attributes:
        name: of the queue.
        reasons: why its messages may become dead letters; empty: it has no dead letter exchange.
    """

    name = ""
    reasons: tuple[str, ...] = ()

    def __init__(self, run: "Run", rng: random.Random) -> None:
        """Args: rng: for what is drawn once; clients draw from that of the run."""
        self.run, self.rng = run, rng

    def arguments(self) -> Table:
        """Those of the queue, without its dead letter exchange."""
        return {}

    @property
    def letters(self) -> str:
        """The queue that its dead letters go to."""
        return f"{self.name}-dead"

    def queues(self) -> dict[str, Table]:
        """All queues that must be declared, with their arguments."""
        arguments = self.arguments()
        if not self.reasons:
            return {self.name: arguments}
        self.run.history.letters_to[self.name] = self.letters
        self.run.history.letters_of[self.letters] = self.name
        arguments |= {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": self.letters}
        return {self.name: arguments, self.letters: {}}

    def cast(self) -> list[Actor]:
        """Those who use it."""
        self.run.watchers[self.name] = self.delivered
        found = self.clients()
        if self.reasons:
            self.run.watchers[self.letters] = self.buried
            found.append(Consumer(self.run, f"mourner-{self.name}", self.letters))
        return found

    def clients(self) -> list[Actor]:
        """Those who use the queue itself."""
        raise NotImplementedError

    @property
    def model(self) -> "GroupModel":
        """What is known to be committed in the group of the queue."""
        return self.run.model.groups[self.run.groups[self.name]]

    def arrival(self, message: Message) -> "Arrival":
        """When a message came to the queue; it has."""
        return self.model.arrivals[message]

    def delivered(self, consumer: Consumer, message: Message, event: Received) -> None:
        """A message of the queue came to a client."""

    def buried(self, _: Consumer, message: Message, event: Received) -> None:
        """A dead letter of the queue came to a client."""
        headers: Any = properties_of(event).headers or {}
        deaths = headers.get("x-death")
        if not deaths or len(deaths) != 1:
            self.run.violate("x-death", f"{message} of {self.name}: {deaths}")
        death = deaths[0]
        told = (death["queue"], death["count"], death["exchange"], death["routing-keys"])
        if told != (self.name, 1, "", [self.name]):
            self.run.violate("x-death", f"{message} of {self.name}: {death}")
        if headers["x-first-death-queue"] != self.name or headers["x-last-death-reason"] != death["reason"]:
            self.run.violate("x-death", f"{message} of {self.name}: {headers}")
        if death["reason"] not in (*self.reasons, "rejected"):
            self.run.violate("x-death", f"{message} of {self.name} died as {death['reason']}")
        self.dead(message, death)

    def dead(self, message: Message, death: dict[str, Any]) -> None:
        """What a dead letter says of its death."""

    def check(self) -> None:
        """All is over, and the queues are empty."""


class FeaturePublisher(Publisher):
    """Publishes to the queue of a feature, which says with what properties."""

    def __init__(self, feature: Any, name: str = "") -> None:
        """Args: feature: has `properties(message)`, and is told with `published` and `confirmed`, where it has them."""
        queue = feature.name
        super().__init__(feature.run, name or f"publisher-{queue}", [("", queue, (queue,))])
        self.feature = feature

    def publish(self) -> None:
        """Publish one message."""
        self.number += 1
        message = (self.channel, self.number)
        body = self.run.history.publish(message, (self.feature.name,), self.rng.choice(BODY_BYTES))
        properties = self.feature.properties(message)
        self.sent[self.amqp.publish(CHANNEL, "", self.feature.name, body, properties)] = message

    def confirmed(self, message: Message) -> None:
        self.feature.confirmed(message)


class Plain(Feature):
    """A feature whose messages need nothing."""

    def properties(self, _: Message) -> BasicProperties:
        """Of the next message."""
        return BasicProperties(delivery_mode=2)

    def confirmed(self, message: Message) -> None:
        """The broker has a message."""


__all__ = ["CHANNEL", "ClientEvent", "Feature", "FeaturePublisher", "Plain", "properties_of"]
