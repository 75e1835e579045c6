"""Transactions: what one commit brings to a queue is there as a whole, or not at all."""

from node.wire import methods
from node.wire.properties import BasicProperties
from tests.amqp_client import ClientEvent, Received, Replied
from tests.sim.actors import BODY_BYTES, CHANNEL, Actor, Consumer, Publisher
from tests.sim.features.base import Plain
from tests.sim.history import Message

LONG_MS = 10 * 24 * 3_600_000
"""More than clocks jump in a run: nothing expires."""


class Transactions(Plain):
    """tx.select, tx.commit, tx.rollback.

    What stands in one entry of the log is there as a whole at every replica and after every crash. What stands in two
    is not, also where a run is lucky and both come to be.
    """

    name = "tx"

    def clients(self) -> list[Actor]:
        self.commits: dict[Message, list[Message]] = {}
        self.undone: dict[Message, None] = {}
        return [Committer(self), Consumer(self.run, "consumer-tx", self.name)]

    def delivered(self, consumer: Consumer, message: Message, event: Received) -> None:
        if message in self.undone:
            self.run.violate("rolled back and delivered", f"{message}")
        self._require_whole(self.commits[message])

    def check(self) -> None:
        for commit in self.commits.values():
            self._require_whole(commit)

    def _require_whole(self, commit: list[Message]) -> None:
        entries = [self.model.messages.get(message, 0) for message in commit]
        if len(set(entries)) > 1:
            self.run.violate("half a commit", f"{commit} in entries {entries}")


class Committer(Publisher):
    """Publishes a few messages and commits them."""

    def __init__(self, feature: Transactions) -> None:
        super().__init__(feature.run, "committer-tx", [])
        self.feature = feature
        self.open: list[Message] | None = None  # what is to be committed, while the answer is awaited

    def begin(self) -> None:
        self.channel, self.number = self.run.history.new_channel(), 0
        self.open = None
        self.amqp.send(CHANNEL, methods.TxSelect())

    def act(self) -> None:
        if self.open is not None:
            return
        self.open = []
        for _ in range(self.rng.choice((1, 2, 5, 20))):
            self.number += 1
            message = (self.channel, self.number)
            body = self.run.history.publish(message, (self.feature.name,), self.rng.choice(BODY_BYTES))
            # What asks something of the queue needs a command of its own.
            properties = BasicProperties(expiration=self.rng.choice((None, None, str(LONG_MS))))
            self.amqp.publish(CHANNEL, "", self.feature.name, body, properties)
            self.open.append(message)
            self.feature.commits[message] = self.open
        if self.rng.random() < 0.2:
            self.feature.undone |= dict.fromkeys(self.open)
            self.amqp.send(CHANNEL, methods.TxRollback())
        else:
            self.amqp.send(CHANNEL, methods.TxCommit())

    def hear(self, event: ClientEvent) -> None:
        match event:
            case Replied(method=methods.TxCommitOk()):
                for message in self.open or ():
                    self.run.history.confirm(message)
                self.open = None
            case Replied(method=methods.TxRollbackOk()):
                self.open = None

    def gone(self) -> None:
        self.open = None
