"""tx.select, tx.commit, tx.rollback: what a channel publishes and settles takes effect together, or not at all.

A message is routed when it is published, and is then kept here, as a settlement is. A commit sends each group all that
concerns it in one piece, the messages first: it becomes part of one log entry. There is nothing that spans groups: see
docs/concepts/transactions.md. The window of delivery tags is the protocol core's (`node.amqp.unacked`).
"""

from typing import TYPE_CHECKING

from node.broker import commands
from node.broker.effects import Refused
from node.errors import ContentTooLarge, PreconditionFailed
from node.session.script import Script
from node.session.settle import by_consumer, command, let_go
from node.wire import methods

if TYPE_CHECKING:
    from node.amqp.events import Settle
    from node.session.channel import ChannelSession
    from node.session.publish import Returned
    from node.session.sorter import Run

SETTLEMENT_BYTES = 64
"""What a kept range of deliveries counts for in the bound."""


class Transaction:
    """What one channel has published and settled since tx.select, or since the last commit or rollback.

    Attributes:
        size_bytes: what it counts for in the bounds.
    """

    __slots__ = ("_channel", "_is_too_large", "_returned", "_runs", "_settled", "size_bytes")

    def __init__(self, channel: "ChannelSession") -> None:
        self._channel = channel
        self._runs: list[Run] = []
        self._returned: list[Returned] = []
        self._settled: list[Settle] = []
        self._is_too_large = False
        self.size_bytes = 0

    def keep_runs(self, runs: "list[Run]", size_bytes: int) -> None:
        """Keep messages that go to queues."""
        self._runs += runs
        self._keep(size_bytes)

    def keep_returned(self, returned: "Returned", size_bytes: int) -> None:
        """Keep mandatory messages that no queue takes."""
        self._returned.append(returned)
        self._keep(size_bytes)

    def keep_settled(self, event: "Settle") -> None:
        """Keep what the client said of deliveries."""
        self._settled.append(event)
        self._keep(SETTLEMENT_BYTES * len(event.deliveries))

    def check(self) -> None:
        """Raise 311 if it has become too large."""
        if self._is_too_large:
            bytes_max = self._channel.session.shared.options.connection_bytes_max
            raise ContentTooLarge(f"the transactions of this connection hold more than {bytes_max} bytes")

    def forget(self) -> None:
        """Drop all that is kept."""
        self._runs, self._returned, self._settled = [], [], []
        self._channel.session.shared.pressure.let_go(self._channel.session, self.size_bytes)
        self.size_bytes = 0

    def commit(self) -> "Commit | None":
        """Send all on its way; None where no group has to answer."""
        channel, session = self._channel, self._channel.session
        for returned in self._returned:
            returned.send(channel)
        runs, settled, size_bytes = self._runs, self._settled, self.size_bytes
        self.forget()
        committed = Commit(channel, size_bytes)
        by_group: dict[int, list[bytes]] = {}
        for run in runs:
            for position, group in enumerate(run.plan.groups):
                by_group.setdefault(group, []).extend(run.command(committed.ticket(group), position))
        settled_in = _add_settled(channel, settled, by_group)
        for group, parts in by_group.items():
            if group in settled_in:
                parts.extend(commands.fence(committed.ticket(group)))
            session.node.submit(group, tuple(parts))
        for event in settled:
            for consumer, ranges in by_consumer(event.deliveries).items():
                let_go(channel, consumer, ranges, is_told=True)
        if not by_group:
            return None
        session.charge(size_bytes)
        return committed

    def _keep(self, size_bytes: int) -> None:
        self.size_bytes += size_bytes
        if not self._channel.session.shared.pressure.keep(self._channel.session, size_bytes):
            self._is_too_large = True


class Commit:
    """Waits for the answers of all groups that a commit concerns."""

    __slots__ = ("_awaited", "_channel", "_is_partial", "_size_bytes", "session")

    def __init__(self, channel: "ChannelSession", size_bytes: int) -> None:
        self.session = channel.session
        self._channel = channel
        self._size_bytes = size_bytes
        self._awaited = 0
        self._is_partial = False

    def ticket(self, group: int) -> int:
        """A ticket for one more answer. It has no deadline: what is committed late must not be taken for undone."""
        self._awaited += 1
        return self.session.tickets.issue(self, group, has_deadline=False)

    def answered(self, value: object) -> None:
        """A group has done part of it; the last answer goes to the channel: whether queues refused messages."""
        if not self._awaited:
            return
        self._is_partial = self._is_partial or isinstance(value, Refused)
        self._awaited -= 1
        if not self._awaited:
            self.session.release(self._size_bytes)
            if self._channel.is_busy:
                self._channel.answered(self._is_partial)

    def expired(self) -> None:
        """There is no deadline."""
        raise AssertionError

    def abandoned(self) -> None:
        """No answer will come, and the connection is about to be closed for it."""
        if self._awaited:
            self._awaited = 0
            self.session.release(self._size_bytes)


def select(channel: "ChannelSession", _method: methods.TxSelect) -> None:
    """tx.select: from here on the channel is transactional."""
    if channel.transaction is None:
        channel.transaction = Transaction(channel)
    channel.send(methods.TxSelectOk())


def commit(channel: "ChannelSession", _method: methods.TxCommit) -> Script:
    """tx.commit: answered when every group concerned has all of it on a majority of disks.

    Raises:
        PreconditionFailed: 406, full queues have refused messages; the rest is done.
    """
    assert channel.transaction is not None, "the protocol core knows that the channel is transactional"
    channel.transaction.check()
    if channel.transaction.commit() is not None:
        is_partial = yield
        if is_partial:
            raise PreconditionFailed("partial tx completion")
    channel.send(methods.TxCommitOk())


def rollback(channel: "ChannelSession", _method: methods.TxRollback) -> None:
    """tx.rollback: forget what was published and settled; the window has what was settled already."""
    assert channel.transaction is not None, "the protocol core knows that the channel is transactional"
    channel.transaction.forget()
    channel.send(methods.TxRollbackOk())


def _add_settled(
    channel: "ChannelSession", settled: "list[Settle]", by_group: dict[int, list[bytes]]
) -> dict[int, None]:
    """Append the commands for what was settled; returns the groups that have some."""
    groups: dict[int, None] = {}
    for event in settled:
        for consumer, ranges in by_consumer(event.deliveries).items():
            group = channel.holders.get(consumer)
            if group is not None:
                groups[group] = None
                by_group.setdefault(group, []).extend(command(event.outcome, consumer, ranges))
    return groups
