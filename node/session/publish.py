"""basic.publish: a run of messages becomes one enqueue command per group, and its replies the confirm.

The way of a run is found once per exchange and routing key and kept until the topology changes. Only where a
route depends on headers are single messages looked at. A run that no queue takes waits for one barrier of
the metadata group, lest a binding made elsewhere be missed; the channel's later events wait behind it.
"""

import struct
from typing import TYPE_CHECKING, Any

from cluster.types import METADATA_GROUP
from node.broker import commands
from node.broker.permissions import resource_name
from node.errors import AccessRefused, NotFound
from node.session.rules import check_access, ensure
from node.session.script import Script
from node.wire import codec
from node.wire.properties import decode_headers

if TYPE_CHECKING:
    from node.amqp.events import Publish
    from node.broker.records import QueueRecord
    from node.session.channel import ChannelSession
    from node.session.session import Session

Plan = tuple[tuple[int, tuple[int, ...]], ...]
"""Where a run goes: (group, uids) with each group once. Empty: no queue takes it."""

RUN_BYTES = 256
"""What a run counts for beside its messages' bytes, so that empty messages are bounded too."""
PLANS_MAX = 1024

_LENGTHS = struct.Struct(">II")
_RETURN_HEAD = struct.pack(">HHHB", 60, 50, 312, 8) + b"NO_ROUTE"


class Plans:
    """The plans of one channel, by exchange and routing key as they stand in basic.publish."""

    __slots__ = ("_by_exrk", "_version")

    def __init__(self) -> None:
        self._version = -1
        self._by_exrk: dict[bytes, Plan] = {}

    def find(self, version: int, exrk: bytes) -> Plan | None:
        """The plan made under this version of the routes."""
        if version != self._version:
            self._by_exrk.clear()
            self._version = version
        return self._by_exrk.get(exrk)

    def keep(self, exrk: bytes, plan: Plan) -> None:
        """Remember a plan until the routes change."""
        if len(self._by_exrk) >= PLANS_MAX:
            self._by_exrk.clear()
        self._by_exrk[exrk] = plan


class PublishRun:
    """A run on its way: waits for as many replies as groups have it.

    Args:
        channel: where it was published.
        first_seq: confirm number of its first message, 0 without confirms.
        count: messages.
        size_bytes: what it counts for in the bounds.
        awaited: number of groups that have not answered.
    """

    __slots__ = ("awaited", "channel", "count", "first_seq", "session", "size_bytes")

    def __init__(
        self, channel: "ChannelSession", first_seq: int, count: int, size_bytes: int, awaited: int
    ) -> None:
        self.channel = channel
        self.session = channel.session
        self.first_seq = first_seq
        self.count = count
        self.size_bytes = size_bytes
        self.awaited = awaited

    def answered(self, _value: object) -> None:
        """One group has it (or has deleted the queue, with what would have been in it)."""
        self.awaited -= 1
        if self.awaited == 0:
            _done(self.channel, self.first_seq, self.count, self.size_bytes)

    def expired(self) -> None:
        """Runs have no deadline: a confirm comes late rather than wrongly."""
        raise AssertionError

    def abandoned(self) -> None:
        """No answer will come: it counts for nothing any more, and is never confirmed."""
        if self.awaited > 0:
            self.awaited = 0
            self.session.release(self.size_bytes)


def publish(channel: "ChannelSession", event: "Publish") -> None:
    """Send a run on its way.

    Raises:
        AccessRefused: 403, the user may not write to the exchange, or it is internal.
    """
    plan = channel.plans.find(channel.session.node.topology.routes_version, event.exrk)
    if plan:
        _submit(channel, event, plan)
    else:
        _publish_slowly(channel, event, is_current=False)


def _submit(channel: "ChannelSession", event: "Publish", plan: Plan) -> None:
    size_bytes = len(event.packed) + RUN_BYTES
    _enqueue(channel, plan, event.exrk, event.first_seq, event.count, event.packed, size_bytes)


def _enqueue(  # noqa: PLR0917 - called per run: no object, no keywords
    channel: "ChannelSession",
    plan: Plan,
    exrk: bytes,
    first_seq: int,
    count: int,
    packed: bytes,
    size_bytes: int,
) -> None:
    session = channel.session
    issue = session.tickets.issue
    run = PublishRun(channel, first_seq, count, size_bytes, len(plan))
    for group, uids in plan:
        ticket = issue(run, group, has_deadline=False)
        session.node.submit(group, commands.enqueue(ticket, uids, exrk, count, packed))


def _done(channel: "ChannelSession", first_seq: int, count: int, size_bytes: int) -> None:
    if first_seq and not channel.gone:
        channel.amqp.confirm(first_seq, count)
        channel.session.touch()
    channel.session.release(size_bytes)


def _publish_slowly(channel: "ChannelSession", event: "Publish", *, is_current: bool) -> None:
    try:
        parts = _split(channel, event)
        if parts is None or not all(plan for plan, _, _, _ in parts):
            if not is_current:
                channel.held_bytes = len(event.packed) + RUN_BYTES
                channel.run(_publish_when_current(channel, event), None)
                return
            if parts is None:
                exchange = resource_name("exchange", event.exchange, channel.session.vhost)
                raise NotFound(f"no {exchange}")
    except Exception:
        channel.session.release(len(event.packed) + RUN_BYTES)
        raise
    rest_bytes = RUN_BYTES
    seq = event.first_seq
    for plan, start, end, count in parts:
        packed = event.packed if len(parts) == 1 else event.packed[start:end]
        size_bytes = end - start + rest_bytes
        rest_bytes = 0
        if plan:
            _enqueue(channel, plan, event.exrk, seq, count, packed, size_bytes)
        else:
            if event.mandatory:
                _return(channel, event.exrk, count, packed)
            _done(channel, seq, count, size_bytes)
        seq += count if seq else 0


def _publish_when_current(channel: "ChannelSession", event: "Publish") -> Script:
    # No deadline: to drop a message, or to return it, because the cluster is slow would be wrong.
    channel.session.node.barrier(METADATA_GROUP, channel.ask(METADATA_GROUP, has_deadline=False))
    yield
    channel.held_bytes = 0
    _publish_slowly(channel, event, is_current=True)


def _return(channel: "ChannelSession", exrk: bytes, count: int, packed: bytes) -> None:
    if channel.gone:
        return
    session = channel.session
    head, frame_max = _RETURN_HEAD + exrk, session.amqp.frame_max
    frames, _ = codec.content_frames(packed, 0, count, channel.amqp.number, head, -1, b"", frame_max)
    session.send_frames(channel, frames)


def _split(channel: "ChannelSession", event: "Publish") -> list[tuple[Plan, int, int, int]] | None:
    """Route a run: (plan, start, end, count) of each part that goes one way; None: no such exchange."""
    session = channel.session
    topology = session.node.topology
    check_access(session, "write", "exchange", event.exchange)
    exchange = topology.exchange(session.vhost, event.exchange)
    if exchange is None:
        return None
    if exchange.internal:
        shown = resource_name("exchange", event.exchange, session.vhost)
        raise AccessRefused(f"cannot publish to internal {shown}")
    headers = _Headers(event.packed)
    plan = _plan(session, event, headers)
    if not headers.asked:
        channel.plans.keep(event.exrk, plan)
        return [(plan, 0, len(event.packed), event.count)]
    parts: list[tuple[Plan, int, int, int]] = []
    for number in range(event.count):
        if number:
            plan = _plan(session, event, headers)
        start = headers.offset
        headers.offset = codec.skip(event.packed, start, 1)
        if parts and parts[-1][0] == plan:
            _, start, _, count = parts.pop()
            parts.append((plan, start, headers.offset, count + 1))
        else:
            parts.append((plan, start, headers.offset, 1))
    return parts


def _plan(session: "Session", event: "Publish", headers: "_Headers") -> Plan:
    records = session.node.topology.route(session.vhost, event.exchange, event.routing_key, headers.read)
    by_group: dict[int, list[QueueRecord]] = {}
    for record in records or ():
        ensure(session, record)
        by_group.setdefault(record.group, []).append(record)
    return tuple((group, tuple(record.uid for record in found)) for group, found in by_group.items())


class _Headers:
    """The headers table of one message of a run, and whether a route depended on it."""

    __slots__ = ("_packed", "asked", "offset")

    def __init__(self, packed: bytes) -> None:
        self._packed = packed
        self.offset = 0
        self.asked = False

    def read(self) -> dict[str, Any]:
        """Decode the headers of the message at `offset`."""
        self.asked = True
        size, _ = _LENGTHS.unpack_from(self._packed, self.offset)
        start = self.offset + _LENGTHS.size
        return decode_headers(self._packed[start : start + size])
