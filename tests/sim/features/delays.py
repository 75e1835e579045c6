"""Messages that wait for their time: never early, once, and never lost."""

import random
from typing import TYPE_CHECKING

from node.wire.properties import BasicProperties
from tests.amqp_client import Received
from tests.sim.actors import Actor, Consumer
from tests.sim.features.base import Feature, FeaturePublisher
from tests.sim.history import Message

if TYPE_CHECKING:
    from tests.sim.run import Run


class Delays(Feature):
    """x-delay and x-deliver-at."""

    name = "delay"

    def __init__(self, run: "Run", rng: random.Random) -> None:
        super().__init__(run, rng)
        self.waits: dict[Message, tuple[int, int]] = {}  # milliseconds, and a time
        run.history.unordered[self.name] = None

    def clients(self) -> list[Actor]:
        return [FeaturePublisher(self), Consumer(self.run, "consumer-delay", self.name)]

    def properties(self, message: Message) -> BasicProperties:
        rng = self.run.rng
        delay_ms, at_ms = rng.choice((0, 0, 1, 20, 300, 2_000)), 0
        if rng.random() < 0.3:
            at_ms = self.run.world.now_ms + rng.choice((-100, 10, 200, 1_500))
        self.waits[message] = (delay_ms, at_ms)
        return BasicProperties(headers={"x-delay": delay_ms, "x-deliver-at": at_ms})

    def confirmed(self, message: Message) -> None:
        """The broker has a message."""

    def delivered(self, consumer: Consumer, message: Message, event: Received) -> None:
        delay_ms, at_ms = self.waits[message]
        due = max(self.arrival(message).ts + delay_ms, at_ms)
        if self.model.ts < due:
            self.run.violate("delivered early", f"{message}: {due - self.model.ts} ms")
