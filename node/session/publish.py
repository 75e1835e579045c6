"""basic.publish: a burst of messages becomes runs, an enqueue command each, and the replies become confirms.

Messages of a burst that go to the same queues make one run, whatever came between them: a queue keeps the order in
which it was sent messages, and two runs of a burst never share a queue. A message that no queue takes waits for one
barrier of the metadata group, lest a binding made elsewhere be missed; what the channel sent after it waits behind.
"""

import struct
from typing import TYPE_CHECKING, NamedTuple

from cluster.types import METADATA_GROUP
from node.amqp.content import parse_publish
from node.broker import commands
from node.errors import NotFound
from node.limits import RUN_BYTES_MAX_DEFAULT
from node.session.routing import route
from node.session.script import Script
from node.wire import codec

if TYPE_CHECKING:
    from node.session.channel import ChannelSession
    from node.session.plans import Plan
    from node.wire.codec import PublishedRun

RUN_BYTES = 256
"""What a run counts for beside its messages' bytes, so that empty messages are bounded too."""

_RETURN_HEAD = struct.pack(">HHHB", 60, 50, 312, 8) + b"NO_ROUTE"


class Returned(NamedTuple):
    """Mandatory messages that no queue takes."""

    count: int  # type: ignore[assignment]  # as in a run; tuple.count is not used
    packed: bytes

    def send(self, channel: "ChannelSession") -> None:
        """basic.return."""
        if channel.gone:
            return
        session = channel.session
        number, frame_max = channel.amqp.number, session.amqp.frame_max
        frames, _ = codec.content_frames(
            self.packed, 0, self.count, number, _RETURN_HEAD, -1, b"", b"", frame_max
        )
        session.send_frames(channel, frames)


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
            _done(self.channel, self.ranges, self.size_bytes)

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
        submit, last = session.node.submit, runs[-1]
        for position, group in enumerate(self.groups):
            # A group applies in order, so the answer to the last command is the answer to all.
            ticket = session.tickets.issue(self, group, has_deadline=False)
            for run in runs:
                submit(group, run.command(ticket if run is last else 0, position))


class Run:
    """Messages of a burst that go to the same queues."""

    __slots__ = ("count", "packed", "packed_bytes", "plan", "receipt")

    def __init__(self, plan: "Plan", receipt: Receipt) -> None:
        self.plan = plan
        self.receipt = receipt
        self.count = 0
        self.packed: list[bytes] = []
        self.packed_bytes = 0

    def command(self, ticket: int, position: int) -> commands.Parts:
        """What puts it into its queues in the group at this position of the plan."""
        return commands.enqueue(ticket, self.plan.targets[position], self.count, self.packed)


class Sorter:
    """Sorts the messages of a burst into runs."""

    __slots__ = ("_channel", "_receipts", "_runs", "_uids")

    def __init__(self, channel: "ChannelSession") -> None:
        self._channel = channel
        self._runs: dict[Plan, Run] = {}
        self._receipts: dict[tuple[int, ...], Receipt] = {}
        self._uids: set[int] = set()  # of all runs, once there are two

    def add(self, plan: "Plan", first_seq: int, count: int, packed: bytes, size_bytes: int) -> None:
        """Add messages to the run that goes where they go.

        Args:
            plan: to a queue at least.
            first_seq: confirm number of the first, 0 without confirms.
            count: messages.
            packed: their records.
            size_bytes: what they count for in the bounds.
        """
        run = self._runs.get(plan)
        if run is None or run.packed_bytes + len(packed) > RUN_BYTES_MAX_DEFAULT:
            run = self._begin(plan)
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

    def submit(self) -> None:
        """Send all on their way."""
        for receipt in self._receipts.values():
            receipt.submit()

    def _begin(self, plan: "Plan") -> Run:
        if self._runs and plan not in self._runs:
            self._make_way(plan)
        receipt = self._receipts.get(plan.groups)
        if receipt is None:
            receipt = self._receipts[plan.groups] = Receipt(self._channel, plan)
        run = self._runs[plan] = Run(plan, receipt)
        receipt.runs.append(run)
        return run

    def _make_way(self, plan: "Plan") -> None:
        """Submit what there is if another run has a queue of this plan: its messages came before."""
        if len(self._runs) == 1:
            self._uids.update(*[known.uids for known in self._runs])
        if not self._uids.isdisjoint(plan.uids):
            self.submit()
            self._runs, self._receipts, self._uids = {}, {}, set()
        self._uids.update(plan.uids)


def charged_bytes(runs: "list[PublishedRun]") -> int:
    """What a burst counts for in the bounds."""
    size_bytes = RUN_BYTES * len(runs)
    for _, _, packed in runs:
        size_bytes += len(packed)
    return size_bytes


def publish(
    channel: "ChannelSession", runs: "list[PublishedRun]", first_seq: int, *, is_current: bool = False
) -> None:
    """Send a burst on its way.

    Args:
        channel: where it was published.
        runs, first_seq: see `events.Publish`.
        is_current: the topology is no older than the burst.

    Raises:
        AccessRefused: 403, the user may not write to the exchange, or it is internal.
        NotFound: 404, there is no such exchange.
    """
    session = channel.session
    known = session.plans.known(session.node.topology.routes_version)
    sorter = Sorter(channel)
    done = 0
    try:
        for run in runs:
            args, count, packed = run
            plan = known.get(args)
            if plan is not None:
                sorter.add(plan, first_seq, count, packed, len(packed) + RUN_BYTES)
            elif not _publish_slowly(channel, sorter, run, first_seq, is_current=is_current):
                break
            done += 1
            if first_seq:
                first_seq += count
    except Exception:
        session.release(charged_bytes(runs[done:]))
        raise
    finally:
        sorter.submit()
    if done < len(runs):
        rest = runs[done:]
        channel.held_bytes = charged_bytes(rest)
        channel.run(_publish_when_current(channel, rest, first_seq), None)


def _publish_when_current(channel: "ChannelSession", runs: "list[PublishedRun]", first_seq: int) -> Script:
    # No deadline: to drop a message, or to return it, because the cluster is slow would be wrong.
    channel.session.node.barrier(METADATA_GROUP, channel.ask(METADATA_GROUP, has_deadline=False))
    yield
    channel.held_bytes = 0
    publish(channel, runs, first_seq, is_current=True)


def _publish_slowly(
    channel: "ChannelSession", sorter: Sorter, run: "PublishedRun", first_seq: int, *, is_current: bool
) -> bool:
    """Route a run anew. False, and nothing done: that no queue takes all of it is to be believed only when current."""
    try:
        parts = route(channel.session, run)
    except NotFound:
        if is_current:
            raise
        return False
    if not is_current and not all(plan.groups for plan, _, _ in parts):
        return False
    overhead_bytes = RUN_BYTES
    for plan, count, packed in parts:
        size_bytes = len(packed) + overhead_bytes
        overhead_bytes = 0
        if plan.groups:
            sorter.add(plan, first_seq, count, packed, size_bytes)
        else:
            if parse_publish(run[0]).mandatory:
                _return(channel, Returned(count, packed), size_bytes)
            _done(channel, [(first_seq, first_seq + count - 1)] if first_seq else [], size_bytes)
        if first_seq:
            first_seq += count
    return True


def _done(channel: "ChannelSession", ranges: list[tuple[int, int]], size_bytes: int) -> None:
    if ranges and not channel.gone:
        channel.amqp.confirm(ranges)
        channel.session.touch()
    channel.session.release(size_bytes)


def _return(channel: "ChannelSession", returned: Returned, size_bytes: int) -> None:
    if channel.transaction is not None:
        channel.transaction.keep_returned(returned, size_bytes)
    else:
        returned.send(channel)
