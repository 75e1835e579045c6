"""What the arguments of a queue mean to the queue machine: read once, when the queue is created.

The topology has checked the arguments (`node.broker.arguments`); here nothing raises, because it is part of `apply`:
what makes no sense has no effect. Names and meaning: RabbitMQ's documentation of queue arguments.
"""

from dataclasses import dataclass
from functools import lru_cache

from node.broker.values import Table, decode_table
from node.errors import AmqpError

PRIORITY_MAX = 255
POLICIES_KEPT_MAX = 1024
"""Decoded policies that are kept: many queues are declared with the same arguments."""


@dataclass(slots=True, frozen=True)
class Policy:
    """How a queue treats its messages.

    Args:
        ttl_ms: time to live of each message, -1: none.
        expires_ms: the queue ends when nobody has used it for so long, 0: never.
        length_max: most ready messages, -1: no limit.
        bytes_max: most bytes of ready bodies, -1: no limit.
        refuses: a full queue refuses what is new; else it drops what is oldest.
        buries_refused: what is refused is dead-lettered.
        dead_letters: there is a dead letter exchange.
        keeps_letters: a dead letter that no queue takes waits until one does (at-least-once).
        priority_max: the highest priority that counts, 0: all messages are equal.
        single_active: one consumer is served at a time.
        delivery_limit: failed deliveries after which a message is discarded, -1: no limit.
        retry_ms: how long a message that comes back waits, times the number of its returns; 0: not at all.
        retry_max_ms: the longest of these waits.
        retries_failed: whether a failed delivery waits so.
        retries_returned: whether a delivery that came back without having failed waits so.
        consumer_timeout_ms: a consumer that holds a message longer loses all it holds; 0: never.
        counts_attempts: deliveries say how often the message has failed before (x-delivery-count).
    """

    ttl_ms: int = -1
    expires_ms: int = 0
    length_max: int = -1
    bytes_max: int = -1
    refuses: bool = False
    buries_refused: bool = False
    dead_letters: bool = False
    keeps_letters: bool = False
    priority_max: int = 0
    single_active: bool = False
    delivery_limit: int = -1
    retry_ms: int = 0
    retry_max_ms: int = 0
    retries_failed: bool = False
    retries_returned: bool = False
    consumer_timeout_ms: int = 0
    counts_attempts: bool = False

    @property
    def is_limited(self) -> bool:
        """Whether the number of ready messages or bytes has a bound."""
        return self.length_max >= 0 or self.bytes_max >= 0

    @property
    def can_refuse(self) -> bool:
        """Whether a publish can be refused."""
        return self.refuses and self.is_limited

    @property
    def takes_as_is(self) -> bool:
        """Whether a message that asks for nothing is just put at the end."""
        return self.ttl_ms < 0 and not self.is_limited


@lru_cache(POLICIES_KEPT_MAX)
def policy_of(arguments: bytes) -> Policy:
    """Read the encoded arguments of a queue; what cannot be read has no effect."""
    if not arguments:
        return Policy()
    try:
        table = decode_table(arguments)
    except (AmqpError, ValueError):
        return Policy()
    overflow = table.get("x-overflow")
    retry = table.get("x-delayed-retry-type")
    retry_ms = _number(table, "x-delayed-retry-min", 0)
    limit = _number(table, "x-delivery-limit", -1)
    return Policy(
        ttl_ms=_number(table, "x-message-ttl", -1),
        expires_ms=_number(table, "x-expires", 0),
        length_max=_number(table, "x-max-length", -1),
        bytes_max=_number(table, "x-max-length-bytes", -1),
        refuses=overflow in ("reject-publish", "reject-publish-dlx"),
        buries_refused=overflow == "reject-publish-dlx",
        dead_letters=isinstance(table.get("x-dead-letter-exchange"), str),
        keeps_letters=table.get("x-dead-letter-strategy") == "at-least-once",
        priority_max=min(_number(table, "x-max-priority", 0), PRIORITY_MAX),
        single_active=table.get("x-single-active-consumer") is True,
        delivery_limit=limit,
        retry_ms=retry_ms,
        retry_max_ms=max(_number(table, "x-delayed-retry-max", 0), retry_ms),
        retries_failed=retry in ("all", "failed"),
        retries_returned=retry in ("all", "returned"),
        consumer_timeout_ms=_number(table, "x-consumer-timeout", 0),
        counts_attempts=limit >= 0 or table.get("x-queue-type") == "quorum",
    )


def _number(table: Table, key: str, default: int) -> int:
    value = table.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else default
