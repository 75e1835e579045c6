"""Consumers that hold a message for too long lose it; queues that nobody uses for too long end."""

import random
from typing import TYPE_CHECKING

from node.wire import methods
from node.wire.primitives import Table
from tests.amqp_client import ChannelGone, ClientEvent, Received, Replied
from tests.sim.actors import CHANNEL, Actor, Consumer
from tests.sim.features.base import Feature, FeaturePublisher, Plain
from tests.sim.history import Message

if TYPE_CHECKING:
    from tests.sim.run import Run


class Timeouts(Plain):
    """x-consumer-timeout: what is taken from a consumer goes to others, is not lost, and is not taken too early."""

    name = "slow"

    def __init__(self, run: "Run", rng: random.Random) -> None:
        super().__init__(run, rng)
        self.timeout_ms = rng.choice((100, 400, 1_500))
        self.settled_ts: dict[
            Message, int
        ] = {}  # an ack is known to be applied, then by the time of the group
        run.history.takes_back[self.name] = None

    def arguments(self) -> Table:
        return {"x-consumer-timeout": self.timeout_ms}

    def clients(self) -> list[Actor]:
        return [FeaturePublisher(self), *[Sloth(self, f"consumer{number}-slow") for number in "12"]]

    def delivered(self, consumer: Consumer, message: Message, event: Received) -> None:
        if not isinstance(consumer, Sloth):
            return
        # Of its consumer of that tag: one that it has cancelled is served until the broker knows.
        since_ts = consumer.since_ts[event.method.consumer_tag]
        consumer.given_ts[message] = max(self.arrival(message).ts, since_ts)
        assert consumer.client is not None
        if message in self.settled_ts and self.run.is_current(consumer.client, consumer.group):
            # Its node is late, and has yet to see that it was taken from this consumer before somebody settled it.
            if self.settled_ts[message] < since_ts + self.timeout_ms:
                self.run.violate("delivered again after its ack was applied", f"{message} of {self.name}")
            if consumer.is_consuming and event.method.consumer_tag == f"c{consumer.number}":
                consumer.late[event.method.consumer_tag] = message


class Sloth(Consumer):
    """Holds messages for too long now and then.

    An ack counts unless the broker has taken the message before, of which a client is told too late, or, once it has
    cancelled its consumer, never. So what it settled with a consumer is in doubt when the consumer ends with the answer
    to `sync` outstanding, except where the time of the group shows that nothing can have been taken by then. What is in
    doubt may come again, and need not. All else is exact: what it holds of a consumer that has ended it does not
    settle, and that must come again.
    """

    def __init__(self, feature: Timeouts, name: str) -> None:
        super().__init__(feature.run, name, feature.name)
        self.feature = feature
        self.since_ts: dict[str, int] = {}  # by consumer tag: when it was asked for
        self.given_ts: dict[Message, int] = {}  # not earlier, by the time of the group
        self.doubts: dict[Message, int] = {}  # settled and not known to be applied: when it may be taken
        self.left: dict[int, Message] = {}  # by delivery tag: of a consumer that has ended
        self.late: dict[str, Message] = {}  # by tag of a consumer that must be cancelled: why
        self.late_syncing: dict[str, Message] = {}  # those at the time of the last `sync`

    def consume(self) -> None:
        super().consume()
        self.since_ts[f"c{self.number}"] = self.feature.model.ts

    def act(self) -> None:
        current = f"c{self.number}" if self.is_consuming else ""
        for tag in [tag for tag in self.held if self.holders[tag] != current]:
            self.left[tag] = self.held.pop(tag)
        super().act()

    def deadline(self) -> int:
        """The earliest time at which something may be taken from it."""
        settled = [*self.unsynced, *(self.syncing or ()), *self.returns, *self.returns_syncing]
        since_ts = self.since_ts[f"c{self.number}"]
        oldest = min(
            [self.given_ts[message] for message in (*self.held.values(), *settled)], default=since_ts
        )
        return oldest + self.feature.timeout_ms

    def sync(self) -> None:
        if self.syncing is None:
            self.late_syncing = dict(self.late)
        super().sync()

    def cancelled(self) -> None:
        self.late.clear()
        deadline = self.deadline()
        for message in (*self.unsynced, *(self.syncing or ()), *self.returns, *self.returns_syncing):
            self.doubts.setdefault(message, deadline)

    def taken_from(self, consumer_tag: str) -> None:
        if (
            self.is_consuming
            and consumer_tag == f"c{self.number}"
            and self.feature.model.ts < self.deadline()
        ):
            self.run.violate("timed out early", f"{self.name}: {self.deadline() - self.feature.model.ts} ms")
        self.late.pop(consumer_tag, None)
        super().taken_from(consumer_tag)

    def _ack(self, tags: list[int], *, singly: bool = False) -> None:
        if tags and not singly:
            for tag in [tag for tag in self.left if tag < max(tags)]:
                self.run.history.acked[self.queue, self.left.pop(tag)] = None
        super()._ack(tags, singly=singly)

    def _synced(self) -> None:
        for tag in self.late_syncing.keys() & self.late.keys():
            self.run.violate("late and not cancelled", f"{self.name}, {tag}: {self.late[tag]}")
        now = self.feature.model.ts
        settled = [*(self.syncing or ()), *self.returns_syncing]
        taken = [message for message in settled if self.doubts.pop(message, now + 1) <= now]
        self.syncing = [message for message in self.syncing or () if message not in taken]
        for message in self.syncing:
            self.feature.settled_ts.setdefault(message, now)
        self.rejects = [message for message in self.rejects if message not in taken]
        self.returns_syncing = [message for message in self.returns_syncing if message not in taken]
        super()._synced()

    def gone(self) -> None:
        super().gone()
        for kept in (self.doubts, self.left, self.late, self.late_syncing):
            kept.clear()


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
