"""Priorities: of what is known to be ready, what has the highest priority is handed out first, then what is oldest.

One client takes all, with basic.get, and gives much of it back: that is ready again in its old place. What it has not
seen of the answer to a get, because the connection broke, may be one message that is not ready; so many are forgiven.
"""

import random
from typing import TYPE_CHECKING, Any

from node.wire.primitives import Table
from node.wire.properties import BasicProperties
from tests.amqp_client import ClientEvent, Received, Replied
from tests.sim.actors import CHANNEL, Actor, Consumer
from tests.sim.features.base import Feature, FeaturePublisher
from tests.sim.history import Message

if TYPE_CHECKING:
    from tests.sim.run import Run


LAST = (1, 0)
"""A place behind all messages."""
GIVES_BACK = 0.4
ASKS_AGAIN = 0.8
"""How often the taker does so after an answer."""


class Priorities(Feature):
    """x-max-priority."""

    name = "prio"

    def __init__(self, run: "Run", rng: random.Random) -> None:
        super().__init__(run, rng)
        self.priority_max = rng.choice((1, 5, 255))
        self.priorities: dict[Message, int] = {}
        self.ready: dict[Message, int] = {}  # known to be: since which event
        self.events = 0
        run.history.unordered[self.name] = None

    def arguments(self) -> Table:
        return {"x-max-priority": self.priority_max}

    def clients(self) -> list[Actor]:
        self.taker = Taker(self)
        return [FeaturePublisher(self), FeaturePublisher(self, "publisher2-prio"), self.taker]

    def properties(self, message: Message) -> BasicProperties:
        priority = self.run.rng.choice((None, 0, 1, 3, 200))
        self.priorities[message] = min(priority or 0, self.priority_max)
        return BasicProperties(priority=priority)

    def confirmed(self, message: Message) -> None:
        """The broker has a message, which may have been taken already."""
        if (self.name, message) not in self.run.history.delivered:
            self.make_ready(message)

    def make_ready(self, message: Message) -> None:
        """A message is in the queue, for all that the clients know."""
        self.events += 1
        self.ready[message] = self.events

    def delivered(self, consumer: Consumer, message: Message, event: Any) -> None:
        self.ready.pop(message, None)
        if consumer is self.taker:
            if event.method.redelivered and self.run.history.delivered[self.name, message] == 1:
                self.taker.unseen = max(0, self.taker.unseen - 1)  # this was the answer to one of them
            self.taker.judge(self.place(message), f"{message}")

    def place(self, message: Message) -> tuple[int, int]:
        """Where it stands in the queue: lower goes first."""
        return -self.priorities[message], self.arrival(message).place


class Taker(Consumer):
    """The only client that takes messages."""

    def __init__(self, feature: Priorities) -> None:
        super().__init__(feature.run, f"taker-{feature.name}", feature.name, mode="get")
        self.feature = feature
        self.unseen = 0
        self.asked_at = 0

    def act(self) -> None:
        if not self.is_getting:  # it would not see the answer if it closed its channel
            super().act()

    def hear(self, event: ClientEvent) -> None:
        """It goes on at once, so that it is given much, and asks again for what it has just given back."""
        super().hear(event)
        if self.is_getting or self.is_recovering or not self.is_open:
            return
        if isinstance(event, Received) and self.held and self.rng.random() < GIVES_BACK:
            tag = max(self.held)
            self.amqp.reject(CHANNEL, tag, requeue=True)
            self.returns.append(self.held.pop(tag))
            self.sync()
        elif isinstance(event, Received | Replied) and self.rng.random() < ASKS_AGAIN:
            self.get()

    def asked(self) -> None:
        self.asked_at = self.feature.events

    def returned(self, message: Message) -> None:
        # It may have come again since, and be done with.
        if message not in self.held.values() and (self.queue, message) not in self.run.history.acked:
            self.feature.make_ready(message)

    def found_nothing(self) -> None:
        self.judge(LAST, "nothing")

    def judge(self, place: tuple[int, int], what: str) -> None:
        """What was handed out must not have been passed over what was ready when it was asked for."""
        feature = self.feature
        better = [
            message
            for message, since in feature.ready.items()
            if since <= self.asked_at and feature.place(message) < place
        ]
        if len(better) > self.unseen:
            self.run.violate("priority", f"{what}, {place}, before {better[:5]}")

    def gone(self) -> None:
        self.unseen += self.is_getting
        super().gone()
