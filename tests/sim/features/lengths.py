"""Limits of length: never more than so many, and what goes is the oldest, or what was refused."""

import random
from bisect import bisect_right
from typing import TYPE_CHECKING, Any

from node.wire import methods
from node.wire.primitives import Table
from tests.amqp_client import ClientEvent, Replied
from tests.sim.actors import CHANNEL, Actor, Consumer
from tests.sim.features.base import FeaturePublisher, Plain
from tests.sim.history import Message

if TYPE_CHECKING:
    from tests.sim.run import Run


class Dropping(Plain):
    """x-max-length with drop-head: a message is dropped only when as many newer ones have come."""

    name = "length"
    reasons = ("maxlen",)

    def __init__(self, run: "Run", rng: random.Random) -> None:
        super().__init__(run, rng)
        self.length_max = rng.choice((0, 1, 5, 30))
        self.dropped: dict[Message, None] = {}

    def arguments(self) -> Table:
        return {"x-max-length": self.length_max}

    def clients(self) -> list[Actor]:
        takers = [
            Consumer(self.run, "getter-length", self.name, mode="get") for _ in range(self.rng.randint(0, 1))
        ]
        return [FeaturePublisher(self), Watcher(self), *takers]

    def dead(self, message: Message, death: dict[str, Any]) -> None:
        if death["reason"] == "maxlen":
            self.dropped[message] = None

    def check(self) -> None:
        places = sorted(
            arrival.place
            for message, arrival in self.model.arrivals.items()
            if self.name in self.run.history.targets[message]
        )
        for message in self.dropped:
            newer = len(places) - bisect_right(places, self.arrival(message).place)
            if newer < self.length_max:
                self.run.violate("dropped too early", f"{message}: {newer} came later, not {self.length_max}")


class Watcher(Actor):
    """Asks how many messages are ready."""

    def __init__(self, feature: Dropping) -> None:
        super().__init__(feature.run, f"watcher-{feature.name}")
        self.feature = feature

    def act(self) -> None:
        self.amqp.declare(CHANNEL, self.feature.name, passive=True)

    def hear(self, event: ClientEvent) -> None:
        if isinstance(event, Replied) and isinstance(event.method, methods.QueueDeclareOk):
            count, limit = event.method.message_count, self.feature.length_max
            if count > limit:
                self.run.violate("limit exceeded", f"{count} ready in {self.feature.name}, not {limit}")


class Refusing(Plain):
    """x-overflow: what was acknowledged is there, what was refused is not, or is a dead letter."""

    name = "refuse"

    def __init__(self, run: "Run", rng: random.Random) -> None:
        super().__init__(run, rng)
        self.length_max = rng.choice((0, 1, 5, 30))
        self.buries = rng.random() < 0.5
        if self.buries:
            self.reasons = ("maxlen",)

    def arguments(self) -> Table:
        overflow = "reject-publish-dlx" if self.buries else "reject-publish"
        return {"x-max-length": self.length_max, "x-overflow": overflow}

    def clients(self) -> list[Actor]:
        taker = Consumer(self.run, "consumer-refuse", self.name, mode=self.rng.choice(("ack", "get")))
        return [FeaturePublisher(self), taker]

    def check(self) -> None:
        history = self.run.history
        if self.buries:
            for message in history.refused:
                if (
                    history.targets[message] == (self.name,)
                    and (self.letters, message) not in history.delivered
                ):
                    self.run.violate("lost dead letter", f"{message} was refused by {self.name}")
