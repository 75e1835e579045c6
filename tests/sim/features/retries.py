"""A limit of deliveries: each that fails is counted, whoever leads, and after so many the message is a dead letter."""

import random
from typing import TYPE_CHECKING, Any

from node.wire.primitives import Table
from tests.amqp_client import Received
from tests.sim.actors import Actor, Consumer
from tests.sim.features.base import FeaturePublisher, Plain, properties_of
from tests.sim.history import Message

if TYPE_CHECKING:
    from tests.sim.run import Run


class Retries(Plain):
    """x-delivery-limit, in some runs with x-delayed-retry."""

    name = "retry"
    reasons = ("delivery_limit",)

    def __init__(self, run: "Run", rng: random.Random) -> None:
        super().__init__(run, rng)
        self.limit = rng.choice((1, 2, 5))
        self.is_delayed = rng.random() < 0.5

    def arguments(self) -> Table:
        arguments: Table = {"x-delivery-limit": self.limit}
        if self.is_delayed:
            arguments |= {
                "x-delayed-retry-type": "all",
                "x-delayed-retry-min": 30,
                "x-delayed-retry-max": 200,
            }
        return arguments

    def clients(self) -> list[Actor]:
        return [
            FeaturePublisher(self),
            *[Consumer(self.run, f"consumer{number}-retry", self.name) for number in "12"],
        ]

    def delivered(self, consumer: Consumer, message: Message, event: Received) -> None:
        headers: Any = properties_of(event).headers or {}
        count = headers.get("x-delivery-count", 0)
        known = self.run.history.returns.get((self.name, message), 0)
        if count > self.limit:
            self.run.violate("delivery limit", f"{message} failed {count} times, not {self.limit}")
        if count < known:
            self.run.violate("delivery count", f"{message} failed {known} times, says {count}")
        if count and not event.method.redelivered:
            self.run.violate("delivery count", f"{message} is new and failed {count} times")
