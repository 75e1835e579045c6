"""Transactions: what one commit brings to a queue is there as a whole, or not at all."""

from typing import NamedTuple

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
        self.moves: list[Move] = []
        return [Committer(self), Mover(self), Consumer(self.run, "consumer-tx", self.name)]

    def delivered(self, consumer: Actor, message: Message, event: Received) -> None:
        if message in self.undone:
            self.run.violate("rolled back and delivered", f"{message}")
        self._require_whole(self.commits[message])
        assert consumer.client is not None
        if self.run.is_current(consumer.client, self.run.groups[self.name]):
            for move in self.moves:
                if message in move.taken and self.has_landed(move):
                    self.run.violate("half a commit", f"{message} again, beside {move.put}")

    def properties(self, _: Message) -> BasicProperties:
        # What asks something of the queue needs a command of its own.
        return BasicProperties(expiration=self.run.rng.choice((None, None, str(LONG_MS))))

    def has_landed(self, move: "Move") -> bool:
        """Whether it is committed."""
        return move.put[0] in self.model.messages

    def check(self) -> None:
        for commit in self.commits.values():
            self._require_whole(commit)
        delivered = self.run.history.delivered
        for move in self.moves:
            gone = [
                message for message, count in move.taken.items() if delivered[self.name, message] == count
            ]
            if gone and not self.has_landed(move):
                self.run.violate("half a commit", f"{gone} settled without {move.put}")

    def _require_whole(self, commit: list[Message]) -> None:
        entries = [self.model.messages.get(message, 0) for message in commit]
        if len(set(entries)) > 1:
            self.run.violate("half a commit", f"{commit} in entries {entries}")


class Move(NamedTuple):
    """What a client commits: messages that it takes from the queue, and others that it puts there.

    Args:
        taken: how often each had been delivered when it was acknowledged.
    """

    taken: dict[Message, int]
    put: list[Message]


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
            self.amqp.publish(CHANNEL, "", self.feature.name, body, self.feature.properties(message))
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


class Mover(Actor):
    """Takes messages and puts as many others in their place, in one commit."""

    def __init__(self, feature: Transactions) -> None:
        super().__init__(feature.run, "mover-tx")
        self.feature = feature
        self.channel = self.number = self.consumer = 0
        self.held: dict[int, Message] = {}  # by delivery tag
        self.open: Move | None = None  # what is to be committed
        self.is_committing = False

    def begin(self) -> None:
        self.gone()
        self.channel, self.number = self.run.history.new_channel(), 0
        self.consumer = self.run.new_number()
        self.amqp.send(CHANNEL, methods.TxSelect())
        self.amqp.qos(CHANNEL, self.rng.choice((1, 3, 20)))
        self.amqp.consume(CHANNEL, self.feature.name, f"c{self.consumer}")

    def act(self) -> None:
        if self.is_committing:
            return
        if self.rng.random() < 0.1:
            self.is_open = False
            self.amqp.close_channel(CHANNEL)
        elif self.open is not None:
            self.is_committing = True
            self.amqp.send(CHANNEL, methods.TxCommit())
        elif self.held:
            self._move(sorted(self.held)[: self.rng.randint(1, len(self.held))])

    def _move(self, tags: list[int]) -> None:
        history, queue = self.run.history, self.feature.name
        taken = [self.held.pop(tag) for tag in tags]
        self.open = Move({message: history.delivered[queue, message] for message in taken}, [])
        for _ in taken:
            self.number += 1
            message = (self.channel, self.number)
            self.open.put.append(message)
            self.feature.commits[message] = self.open.put
            body = history.publish(message, (queue,), self.rng.choice(BODY_BYTES))
            self.amqp.publish(CHANNEL, "", queue, body, self.feature.properties(message))
        self.amqp.ack(CHANNEL, tags[-1], multiple=True)
        history.acked |= dict.fromkeys((queue, message) for message in taken)
        self.feature.moves.append(self.open)

    def hear(self, event: ClientEvent) -> None:
        match event:
            case Received(method=methods.BasicDeliver()):
                assert self.client is not None
                self.held[event.method.delivery_tag] = message = self.run.history.deliver(
                    self.consumer,
                    self.feature.name,
                    event.body,
                    redelivered=event.method.redelivered,
                    is_current=self.run.is_current(self.client, self.run.groups[self.feature.name]),
                )
                self.feature.delivered(self, message, event)
            case Replied(method=methods.TxCommitOk()):
                assert self.open is not None
                for message in self.open.put:
                    self.run.history.confirm(message)
                for message in self.open.taken:
                    self.run.history.settled[self.feature.name, message] = None
                self.open, self.is_committing = None, False

    def gone(self) -> None:
        self.held, self.open, self.is_committing = {}, None, False
