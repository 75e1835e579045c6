"""From the messages of a burst to commands, and from the replies to confirms.

Messages of a burst that go to the same queues and ask the same of them make one run, whatever came between them: a
queue keeps the order in which it was sent messages, and two runs of a burst never share a queue, unless the queue
itself keeps them apart by their priorities.
"""

from collections import deque
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from node.broker import commands
from node.broker.effects import Refused
from node.limits import RUN_BYTES_MAX_DEFAULT

if TYPE_CHECKING:
    from node.session.channel import ChannelSession
    from node.session.plans import Plan


class SpecialKind(NamedTuple):
    """What special messages of a run have in common.

    Args:
        plan: where they go.
        options: what they ask of their queues, without dedup ids.
        has_dedup_ids: each of them has one.
    """

    plan: "Plan"
    options: commands.Options
    has_dedup_ids: bool


_Kind: TypeAlias = "Plan | SpecialKind"
"""Plain messages of a run have only their plan in common."""


class Sorter:
    """Sorts the messages of a burst into runs."""

    __slots__ = ("_channel", "_lanes", "_receipts", "_runs", "_shared", "_uids")

    def __init__(self, channel: "ChannelSession") -> None:
        self._channel = channel
        self._runs: dict[_Kind, Run] = {}
        self._receipts: list[Receipt] = []
        self._shared: dict[tuple[int, ...], Receipt] = {}  # by groups, those that any run may join
        self._uids: set[int] = set()  # of all runs, once there are two
        self._lanes: dict[
            SpecialKind, None
        ] = {}  # what is there, whatever its priority, where that keeps it apart

    def add(self, kind: _Kind, first_seq: int, count: int, packed: bytes, size_bytes: int) -> "Run":
        """Add messages to the run of their kind, and return it.

        Args:
            kind: with a plan that leads to a queue at least.
            first_seq: confirm number of the first, 0 without confirms.
            count: messages.
            packed: their records.
            size_bytes: what they count for in the bounds.
        """
        run = self._runs.get(kind)
        if run is None or run.packed_bytes + len(packed) > RUN_BYTES_MAX_DEFAULT:
            run = self._begin(kind, has_confirms=first_seq > 0)
        run.count += count
        run.packed.append(packed)
        run.packed_bytes += len(packed)
        receipt = run.receipt
        receipt.size_bytes += size_bytes
        if first_seq:
            ranges = receipt.ranges
            if ranges and ranges[-1][1] + 1 == first_seq:
                ranges[-1] = (ranges[-1][0], first_seq + count - 1)
            else:
                ranges.append((first_seq, first_seq + count - 1))
        return run

    def submit(self) -> None:
        """Send all on their way."""
        for receipt in self._receipts:
            receipt.submit()

    def _begin(self, kind: _Kind, *, has_confirms: bool) -> "Run":
        plan, options = (kind.plan, kind.options) if isinstance(kind, SpecialKind) else (kind, None)
        if plan.is_by_priority:
            lane = SpecialKind(
                plan, (options or commands.Options())._replace(priority=0), _has_dedup_ids(kind)
            )
            if lane not in self._lanes:
                self._make_way(plan)
                self._lanes[lane] = None
        elif self._runs and kind not in self._runs:
            self._make_way(plan)
        run = self._runs[kind] = Run(plan, self._receipt(plan, has_confirms=has_confirms), options)
        run.receipt.runs.append(run)
        return run

    def _receipt(self, plan: "Plan", *, has_confirms: bool) -> "Receipt":
        """The receipt of all that go to the same groups; a new one where an answer counts the run's own messages."""
        if plan.may_refuse and has_confirms:
            receipt: Receipt = RefusableReceipt(self._channel, plan)
        elif plan.groups in self._shared:
            return self._shared[plan.groups]
        else:
            receipt = self._shared[plan.groups] = Receipt(self._channel, plan)
        self._receipts.append(receipt)
        return receipt

    def _make_way(self, plan: "Plan") -> None:
        """Submit what there is if another run has a queue of this plan: its messages came before."""
        if not self._uids:
            self._uids.update(*[known.plan.uids for known in self._runs.values()])
        if not self._uids.isdisjoint(plan.uids):
            self.submit()
            self._runs, self._receipts, self._shared, self._uids, self._lanes = {}, [], {}, set(), {}
        self._uids.update(plan.uids)


class Receipt:
    """Waits for as many replies as groups have messages, and confirms them.

    Args:
        channel: where they were published.
        plan: one of those that lead to the groups which have to answer.

    Attributes:
        ranges: first and last confirm number, ascending; empty without confirms.
        size_bytes: what the messages count for in the bounds.
        runs: not submitted yet, in the order of their first message.
    """

    __slots__ = ("_awaited", "channel", "groups", "ranges", "runs", "session", "size_bytes")

    def __init__(self, channel: "ChannelSession", plan: "Plan") -> None:
        self.channel = channel
        self.session = channel.session
        self.groups = plan.groups
        self.ranges: list[tuple[int, int]] = []
        self.size_bytes = 0
        self.runs: list[Run] = []
        self._awaited = len(self.groups)

    def answered(self, _value: object) -> None:
        """One group has them (or has deleted the queue, with what would have been in it)."""
        self._awaited -= 1
        if self._awaited == 0:
            self._complete()
            self.channel.one_done()

    def expired(self) -> None:
        """Messages have no deadline: a confirm comes late rather than wrongly."""
        raise AssertionError

    def abandoned(self) -> None:
        """No answer will come: they count for nothing any more, and are never confirmed."""
        if self._awaited > 0:
            self._awaited = 0
            self.session.release(self.size_bytes)

    def submit(self) -> None:
        """Send the runs on their way."""
        runs, self.runs = self.runs, []
        session = self.session
        if self.channel.transaction is not None:
            session.release(self.size_bytes)
            self.channel.transaction.keep_runs(runs, self.size_bytes)
            return
        self.channel.under_way += 1
        submit, last = session.node.submit, runs[-1]
        for position, group in enumerate(self.groups):
            # A group applies in order, so the answer to the last command is the answer to all.
            ticket = session.tickets.issue(self, group, has_deadline=False)
            for run in runs:
                submit(group, run.command(ticket if run is last else 0, position))

    def _complete(self) -> None:
        confirm(self.channel, self.ranges, self.size_bytes)


class RefusableReceipt(Receipt):
    """For a single run to queues that may refuse its messages: what one of them refused is not confirmed.

    A message is published to all of its queues or the publisher is told that it was not, though some may have it.
    """

    __slots__ = ("_refused",)

    def __init__(self, channel: "ChannelSession", plan: "Plan") -> None:
        super().__init__(channel, plan)
        self._refused: list[tuple[int, int]] = []

    def answered(self, value: object) -> None:
        """One group has taken or refused them."""
        if isinstance(value, Refused):
            self._refused += value.ranges
        super().answered(value)

    def _complete(self) -> None:
        taken, refused = _told_apart(self.ranges, sorted(self._refused))
        if refused and not self.channel.gone:
            self.channel.amqp.confirm(refused, ok=False)
            self.session.touch()
        confirm(self.channel, taken, self.size_bytes)


class Run:
    """Messages of a burst that go to the same queues and ask the same of them.

    Attributes:
        dedup_ids: of each message, or empty.
    """

    __slots__ = ("_options", "count", "dedup_ids", "packed", "packed_bytes", "plan", "receipt")

    def __init__(self, plan: "Plan", receipt: Receipt, options: "commands.Options | None") -> None:
        self.plan = plan
        self.receipt = receipt
        self._options = options
        self.dedup_ids: list[bytes] = []
        self.count = 0
        self.packed: list[bytes] = []
        self.packed_bytes = 0

    def command(self, ticket: int, position: int) -> commands.Parts:
        """What puts it into its queues in the group at this position of the plan."""
        target = self.plan.targets[position]
        if self._options is None:
            return commands.enqueue(ticket, target, self.count, self.packed)
        options = self._options._replace(dedup_ids=tuple(self.dedup_ids))
        return commands.enqueue_with(ticket, target, self.count, self.packed, options)


def _has_dedup_ids(kind: _Kind) -> bool:
    return isinstance(kind, SpecialKind) and kind.has_dedup_ids


def confirm(channel: "ChannelSession", ranges: list[tuple[int, int]], size_bytes: int) -> None:
    """The broker is done with messages.

    Args:
        channel: where they were published.
        ranges: their confirm numbers, empty without confirms.
        size_bytes: what they counted for in the bounds.
    """
    if ranges and not channel.gone:
        channel.amqp.confirm(ranges)
        channel.session.touch()
    channel.session.release(size_bytes)


def _told_apart(
    numbers: list[tuple[int, int]], refused: list[tuple[int, int]]
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """The confirm numbers of the messages of a run that were taken, and of those that were refused.

    Args:
        numbers: of all, as ranges; ascending.
        refused: positions in the run, as ranges; ascending by the first, they may overlap.
    """
    taken: list[tuple[int, int]] = []
    given_back: list[tuple[int, int]] = []
    start = at = 0  # position of the first number of a range, and of the next one that is not told apart
    left = deque(refused)
    for first, last in numbers:
        shift, end = first - start, start + last - first
        while at <= end:
            while left and left[0][1] < at:
                left.popleft()
            low, high = left[0] if left else (end + 1, end + 1)
            if low > at:
                until = min(low - 1, end)
                taken.append((at + shift, until + shift))
            else:
                until = min(high, end)
                given_back.append((at + shift, until + shift))
            at = until + 1
        start = end + 1
    return taken, given_back
