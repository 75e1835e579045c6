"""From the arguments of basic.publish to the queues: asked once for each plan that is not known yet.

Only where a route depends on headers are single messages looked at.
"""

import struct
from typing import TYPE_CHECKING, Any

from node.amqp.content import Publishing, parse_publish
from node.broker.permissions import resource_name
from node.errors import AccessRefused, NotFound
from node.session import direct_reply
from node.session.plans import ReplyPlan
from node.session.rules import check_access, ensure
from node.wire import codec
from node.wire.properties import decode_headers

if TYPE_CHECKING:
    from node.session.plans import Plan
    from node.session.session import Session
    from node.wire.codec import PublishedRun

Part = tuple["Plan", int, bytes]
"""Plan, count, packed records of messages that go one way."""

_LENGTHS = struct.Struct(">II")
_FLAGS_BYTES = 1


def route(session: "Session", run: "PublishedRun") -> list[Part]:
    """Route a run whose plan is not known: the parts that go one way each, in order.

    Raises:
        AccessRefused: 403, the user may not write to the exchange, or it is internal.
        NotFound: 404, there is no such exchange, as far as this node knows.
    """
    args, count, packed = run
    publishing = parse_publish(args)
    _check(session, publishing.exchange)
    headers = _Headers(packed, len(args) - _FLAGS_BYTES)
    plan = _plan(session, publishing, headers)
    if not headers.asked:
        if plan.groups:
            session.plans.keep(args, plan)
        return [(plan, count, packed)]
    parts: list[tuple[Plan, int, int, int]] = []
    for number in range(count):
        if number:
            plan = _plan(session, publishing, headers)
        start = headers.offset
        headers.offset = codec.skip(packed, start, 1)
        if parts and parts[-1][0] is plan:
            _, size, start, _ = parts.pop()
            parts.append((plan, size + 1, start, headers.offset))
        else:
            parts.append((plan, 1, start, headers.offset))
    return [(plan, size, packed[start:end]) for plan, size, start, end in parts]


def _check(session: "Session", name: str) -> None:
    check_access(session, "write", "exchange", name)
    exchange = session.node.topology.exchange(session.vhost, name)
    if exchange is None:
        raise NotFound(f"no {resource_name('exchange', name, session.vhost)}")
    if exchange.internal:
        shown = resource_name("exchange", name, session.vhost)
        raise AccessRefused(f"cannot publish to internal {shown}")


def _plan(session: "Session", publishing: Publishing, headers: "_Headers") -> "Plan":
    exchange, routing_key, _ = publishing
    if not exchange and (reply := direct_reply.target(session.node, routing_key)):
        group, uid = reply
        return ReplyPlan(((group, (uid,)),))
    records = session.node.topology.route(session.vhost, exchange, routing_key, headers.read) or ()
    for record in records:
        ensure(session.shared, record)
    return session.plans.to(records)


class _Headers:
    """The headers table of one message of a run, and whether a route depended on it."""

    __slots__ = ("_exrk_bytes", "_packed", "asked", "offset")

    def __init__(self, packed: bytes, exrk_bytes: int) -> None:
        self._packed = packed
        self._exrk_bytes = exrk_bytes
        self.offset = 0
        self.asked = False

    def read(self) -> dict[str, Any]:
        """Decode the headers of the message at `offset`."""
        self.asked = True
        size, _ = _LENGTHS.unpack_from(self._packed, self.offset)
        start = self.offset + _LENGTHS.size
        return decode_headers(self._packed[start + self._exrk_bytes : start + size])
