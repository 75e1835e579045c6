"""From the arguments of basic.publish to the queues: asked once for each plan that is not known yet.

Single messages are looked at only where a route depends on headers, and where they are special: what such a message
asks (`asked.py`) decides with which others it makes a part.
"""

import struct
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from node.amqp.content import Publishing, parse_publish
from node.broker.message import drawn
from node.broker.permissions import resource_name
from node.errors import AccessRefused, NotFound, PreconditionFailed
from node.session import direct_reply
from node.session.asked import KEPT_MAX, NO_OPTIONS, Asked, asked_by, kept_header
from node.session.plans import ReplyPlan
from node.session.rules import check_access, ensure
from node.wire import codec
from node.wire.items import SPECIAL_FLAG, publish_args
from node.wire.primitives import encode_longstr
from node.wire.properties import BasicProperties, decode_header, decode_headers

if TYPE_CHECKING:
    from node.broker.commands import Options
    from node.session.channel import ChannelSession
    from node.session.plans import Plan
    from node.session.session import Session
    from node.wire.codec import PublishedRun

_LENGTHS = struct.Struct(">II")
_FLAGS_BYTES = 1


class Part(NamedTuple):
    """Messages that follow each other, go the same way and ask the same.

    Args:
        plan: where they go, perhaps nowhere.
        count: how many there are.
        packed: their records, as they are stored.
        came_bytes: the size of their records as they came.
        options: None where they ask nothing of their queues.
        dedup_ids: of each message, or empty.
    """

    plan: "Plan"
    count: int  # type: ignore[assignment]  # as in a run; tuple.count is not used
    packed: bytes
    came_bytes: int
    options: "Options | None" = None
    dedup_ids: tuple[bytes, ...] = ()


def route(channel: "ChannelSession", run: "PublishedRun") -> tuple[list[Part], PreconditionFailed | None]:
    """Route a run whose plan is not known: its parts, in order, and the fault of the message after them if it has one.

    Raises:
        AccessRefused: 403, the user may not write to the exchange, or it is internal.
        NotFound: 404, there is no such exchange, as far as this node knows.
    """
    session = channel.session
    args, count, packed = run
    publishing = parse_publish(args)
    _check(session, publishing.exchange)
    message = _Message(packed, len(args) - _FLAGS_BYTES, session.node.draw)
    if args[-1] & SPECIAL_FLAG:
        return _route_special(channel, run, publishing, message)
    plan = _plan(session, publishing, message)
    if not message.asked:
        if plan.groups:
            session.plans.keep(args, plan)
        return [Part(plan, count, packed, len(packed))], None
    parts: list[tuple[Plan, int, int, int]] = []
    for number in range(count):
        if number:
            plan = _plan(session, publishing, message)
        start = message.offset
        message.offset = codec.skip(packed, start, 1)
        if parts and parts[-1][0] is plan:
            _, size, start, _ = parts.pop()
            parts.append((plan, size + 1, start, message.offset))
        else:
            parts.append((plan, 1, start, message.offset))
    return [Part(plan, size, packed[start:end], end - start) for plan, size, start, end in parts], None


def _route_special(
    channel: "ChannelSession", run: "PublishedRun", publishing: Publishing, message: "_Message"
) -> tuple[list[Part], PreconditionFailed | None]:
    """Each message is a part: whoever sorts them joins those that can be."""
    args, count, packed = run
    args = publish_args(args, special=False)
    parts: list[Part] = []
    for _ in range(count):
        start, end = message.offset, codec.skip(packed, message.offset, 1)
        record = packed[start:end]
        try:
            asked = asked_by(channel.session, message.header())
            if asked.is_rewritten:
                record = _rewritten(channel, record, len(args) - _FLAGS_BYTES)
        except PreconditionFailed as fault:
            return parts, fault
        plan = _plan_of(channel.session, args, publishing, asked, message)
        message.offset = end
        options = _options_for(asked.options, plan.priority_max)
        if asked.dedup_id:
            parts.append(Part(plan, 1, record, end - start, options, (asked.dedup_id,)))
        else:
            parts.append(Part(plan, 1, record, end - start, None if options == NO_OPTIONS else options))
    return parts, None


@lru_cache(KEPT_MAX)
def _options_for(options: "Options", priority_max: int) -> "Options":
    """The options as queues with these priorities know them: what they cannot tell apart goes as one run."""
    return options._replace(priority=min(options.priority, priority_max))


def _plan_of(
    session: "Session", args: bytes, publishing: Publishing, asked: Asked, message: "_Message"
) -> "Plan":
    """The plan of one special message; kept under its arguments and its further keys."""
    key = args + b"".join(map(_encoded_key, asked.keys)) if asked.keys else args
    plan = session.plans.known(session.node.topology.routes_version).get(key)
    if plan is None:
        message.asked = False
        plan = _plan(session, publishing, message, asked.keys)
        if plan.groups and not message.asked:
            session.plans.keep(key, plan)
    return plan


def _encoded_key(routing_key: str) -> bytes:
    return encode_longstr(routing_key.encode("utf-8", "surrogateescape"))


def _rewritten(channel: "ChannelSession", record: bytes, exrk_bytes: int) -> bytes:
    """The record with the content header that is to be stored."""
    head_bytes, body_bytes = _LENGTHS.unpack_from(record)
    header_start = _LENGTHS.size + exrk_bytes
    body_start = _LENGTHS.size + head_bytes
    header = kept_header(channel, record[header_start:body_start])
    lengths = _LENGTHS.pack(exrk_bytes + len(header), body_bytes)
    return b"".join((lengths, record[_LENGTHS.size : header_start], header, record[body_start:]))


def _check(session: "Session", name: str) -> None:
    check_access(session, "write", "exchange", name)
    exchange = session.node.topology.exchange(session.vhost, name)
    if exchange is None:
        raise NotFound(f"no {resource_name('exchange', name, session.vhost)}")
    if exchange.internal:
        shown = resource_name("exchange", name, session.vhost)
        raise AccessRefused(f"cannot publish to internal {shown}")


def _plan(
    session: "Session", publishing: Publishing, message: "_Message", more_keys: tuple[str, ...] = ()
) -> "Plan":
    exchange, routing_key, _ = publishing
    topology = session.node.topology
    if not exchange and (reply := direct_reply.target(session.node, routing_key)):
        group, uid = reply
        return ReplyPlan(((group, (uid,)),))
    if more_keys:
        records = topology.route_all(session.vhost, exchange, (routing_key, *more_keys), message) or ()
    else:
        records = topology.route(session.vhost, exchange, routing_key, message) or ()
    for record in records:
        ensure(session.shared, record)
    return session.plans.to(records)


class _Message:
    """One message of a run, and whether a route depended on more than its routing key."""

    __slots__ = ("_draw", "_exrk_bytes", "_packed", "asked", "offset")

    def __init__(self, packed: bytes, exrk_bytes: int, draw: Callable[[int], bytes]) -> None:
        self._packed = packed
        self._exrk_bytes = exrk_bytes
        self._draw = draw
        self.offset = 0
        self.asked = False

    def header(self) -> bytes:
        """The content header of the message at `offset`."""
        size, _ = _LENGTHS.unpack_from(self._packed, self.offset)
        start = self.offset + _LENGTHS.size
        return self._packed[start + self._exrk_bytes : start + size]

    def headers(self) -> dict[str, Any]:
        """Its headers."""
        self.asked = True
        return decode_headers(self.header())

    def properties(self) -> BasicProperties:
        """Its properties."""
        self.asked = True
        return decode_header(self.header())[1]

    def chance(self, bound: int) -> int:
        """A number below `bound`."""
        self.asked = True
        return drawn(self._draw, bound)
