"""Consumers that hold a message for too long lose it; queues that nobody uses for too long end."""

import random
from typing import TYPE_CHECKING

from node.wire import methods
from node.wire.primitives import Table
from tests.amqp_client import ChannelGone, ClientEvent, Replied
from tests.sim.actors import CHANNEL, Actor, Consumer
from tests.sim.features.base import Feature, FeaturePublisher, Plain

if TYPE_CHECKING:
    from tests.sim.run import Run


class Timeouts(Plain):
    """x-consumer-timeout: what is taken from a consumer goes to others, and is not lost."""

    name = "slow"

    def __init__(self, run: "Run", rng: random.Random) -> None:
        super().__init__(run, rng)
        self.timeout_ms = rng.choice((100, 400, 1_500))

    def arguments(self) -> Table:
        return {"x-consumer-timeout": self.timeout_ms}

    def clients(self) -> list[Actor]:
        return [
            FeaturePublisher(self),
            *[Sloth(self.run, f"consumer{number}-slow", self.name) for number in "12"],
        ]


class Sloth(Consumer):
    """What is taken from it after it has cancelled it is not told of: it forgets what it holds when it cancels."""

    def act(self) -> None:
        current = f"c{self.number}" if self.is_consuming else ""
        for tag in [tag for tag in self.held if self.holders[tag] != current]:
            # A later ack of several may be one of this, too.
            self.run.history.acked[self.queue, self.held.pop(tag)] = None
        super().act()

    def cancelled(self) -> None:
        self.unsynced, self.rejects, self.returns, self.returns_syncing = [], [], [], []
        self.syncing = None if self.syncing is None else []


class Expiring(Feature):
    """x-expires: a queue ends when it was not declared for so long, and not earlier."""

    name = "brief"

    def queues(self) -> dict[str, Table]:
        return {}

    def clients(self) -> list[Actor]:
        return [User(self.run)]


class User(Actor):
    """Declares a queue, and looks later whether it is there."""

    def __init__(self, run: "Run") -> None:
        super().__init__(run, "user-brief")
        self.queue = ""
        self.expires_ms = 0
        self.used_ts: dict[int, int] = {}  # by group, before it was declared
        self.is_known = self.is_asking = False

    def act(self) -> None:
        if self.is_asking:
            return
        self.is_asking = True
        if not self.queue or self.rng.random() < 0.3:
            self.queue, self.is_known = f"brief{self.run.new_number()}", False
            self.expires_ms = self.rng.choice((100, 500, 2_000))
            self.used_ts = {group: model.ts for group, model in self.run.model.groups.items()}
            self.amqp.declare(CHANNEL, self.queue, {"x-expires": self.expires_ms}, durable=True)
        else:
            self.amqp.declare(CHANNEL, self.queue, passive=True)

    def hear(self, event: ClientEvent) -> None:
        if isinstance(event, Replied) and isinstance(event.method, methods.QueueDeclareOk):
            self.is_known, self.is_asking = True, False

    def channel_gone(self, event: ChannelGone) -> None:
        if event.reply_code == 404 and "timeout" not in event.reply_text and self.is_known:
            models = self.run.model.groups
            if all(models[group].ts < ts + self.expires_ms for group, ts in self.used_ts.items() if group):
                self.run.violate("queue expired early", f"{self.queue}: {self.expires_ms} ms")
        self.gone()

    def gone(self) -> None:
        self.queue, self.is_known, self.is_asking = "", False, False
