"""What a message that is dead-lettered is told of its death: x-death and its neighbours, and where cycles end.

Names and rules: RabbitMQ, docs/dlx; like RabbitMQ 4 it believes only what a broker wrote: a client's own x-death is
not read.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from node.broker.queue_state import Letter, Reason
from node.wire.primitives import Long, Table, Timestamp
from node.wire.properties import BasicProperties

REASONS = {
    Reason.REJECTED: "rejected",
    Reason.EXPIRED: "expired",
    Reason.MAXLEN: "maxlen",
    Reason.DELIVERY_LIMIT: "delivery_limit",
}

Deaths = list[Any]
"""The value of x-death: a table for each queue and reason, the newest first."""


def routing_keys_of(routing_key: str, properties: BasicProperties) -> list[str]:
    """The keys by which a message was routed, as far as it says: its own and those in CC."""
    copies = (properties.headers or {}).get("CC")
    return (
        [routing_key, *[key for key in copies if isinstance(key, str)]]
        if isinstance(copies, list)
        else [routing_key]
    )


def buried(
    properties: BasicProperties,
    letter: Letter,
    *,
    queue: str,
    exchange: str,
    routing_keys: Sequence[str],
    is_letter: bool,
    has_key: bool,
) -> BasicProperties:
    """Return the properties of a message after its death.

    Args:
        properties: before.
        letter: why and when.
        queue: where.
        exchange, routing_keys: how it came there.
        is_letter: it was a dead letter before, so its x-death is ours.
        has_key: the queue gives its dead letters a routing key, which replaces the keys in CC.
    """
    headers: Table = dict(properties.headers or {})
    reason = REASONS[letter.reason]
    death: dict[str, Any] = {
        "count": Long(1),
        "reason": reason,
        "queue": queue,
        "time": Timestamp(letter.ts // 1000),
        "exchange": exchange,
        "routing-keys": list(routing_keys),
    }
    if properties.expiration is not None:
        death["original-expiration"] = properties.expiration
    known: Any = headers.get("x-death") if is_letter else None
    others: Deaths = []
    for table in known or ():
        if table.get("queue") == queue and table.get("reason") == reason:
            death = {**table, "count": Long(table["count"] + 1)}
        else:
            others.append(table)
    if not is_letter:
        headers |= {
            "x-first-death-reason": reason,
            "x-first-death-queue": queue,
            "x-first-death-exchange": exchange,
        }
    headers |= {"x-last-death-reason": reason, "x-last-death-queue": queue, "x-last-death-exchange": exchange}
    headers["x-death"] = [death, *others]
    if has_key:
        headers.pop("CC", None)
    return replace(properties, headers=headers, expiration=None)


def is_cycle(queue: str, properties: BasicProperties) -> bool:
    """Whether a dead letter that goes to `queue` was there before, and no client has rejected it since."""
    deaths: Any = (properties.headers or {}).get("x-death")
    for table in deaths or ():
        if table["reason"] == REASONS[Reason.REJECTED]:
            return False
        if table["queue"] == queue:
            return True
    return False
