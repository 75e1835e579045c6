"""Messages that live for a time: none is handed out later, and none dies earlier."""

import random
from typing import TYPE_CHECKING, Any

from node.wire.primitives import Table
from node.wire.properties import BasicProperties
from tests.amqp_client import Received
from tests.sim.actors import Actor, Consumer
from tests.sim.features.base import FeaturePublisher, Plain
from tests.sim.history import Message

if TYPE_CHECKING:
    from tests.sim.run import Run


class TimeToLive(Plain):
    """x-message-ttl, and shorter or longer ones of single messages."""

    name = "ttl"
    reasons = ("expired",)

    def __init__(self, run: "Run", rng: random.Random) -> None:
        super().__init__(run, rng)
        self.ttl_ms = rng.choice((0, 40, 400, 3_000))
        self.lives: dict[Message, int] = {}

    def arguments(self) -> Table:
        return {"x-message-ttl": self.ttl_ms}

    def clients(self) -> list[Actor]:
        takers = [Consumer(self.run, "consumer-ttl", self.name) for _ in range(self.rng.randint(0, 1))]
        return [FeaturePublisher(self), Getter(self), *takers]

    def properties(self, message: Message) -> BasicProperties:
        own_ms = self.run.rng.choice((None, None, 0, 30, 300, 5_000))
        self.lives[message] = self.ttl_ms if own_ms is None else min(own_ms, self.ttl_ms)
        return BasicProperties(expiration=None if own_ms is None else str(own_ms))

    def end_of(self, message: Message) -> int:
        """When a message expires, by the time of its group."""
        return self.arrival(message).ts + self.lives[message]

    def delivered(self, consumer: Consumer, message: Message, event: Received) -> None:
        if isinstance(consumer, Getter) and consumer.asked_ts > self.end_of(message):
            late_ms = consumer.asked_ts - self.end_of(message)
            self.run.violate("expired and delivered", f"{message}: {late_ms} ms late")

    def dead(self, message: Message, death: dict[str, Any]) -> None:
        if death["reason"] == "expired" and death["time"] < self.end_of(message) // 1000:
            self.run.violate("expired early", f"{message}: {self.end_of(message)}, at {death['time']}")


class Getter(Consumer):
    """Knows the time of the group when it asks: whatever it is given is taken from the queue after that."""

    def __init__(self, feature: TimeToLive) -> None:
        super().__init__(feature.run, f"getter-{feature.name}", feature.name, mode="get")
        self.feature = feature
        self.asked_ts = 0

    def asked(self) -> None:
        self.asked_ts = self.feature.model.ts
