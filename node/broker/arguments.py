"""The x-* arguments of queues and exchanges: what is valid, and what a second declaration must repeat.

Each known argument has one small check; its answer is the Erlang term that RabbitMQ puts into the 406.
Arguments of features that come later are checked, kept and compared all the same. Unknown arguments are kept,
and not compared. Limits, order and texts: docs of RabbitMQ 4.x (rabbit_amqqueue:declare_args).
"""

from collections.abc import Callable, Mapping
from typing import Any

from node.broker.records import DELAYED_TYPE, ExchangeRecord, Owner, QueueRecord
from node.broker.spread import check_hash_arguments
from node.broker.values import is_same, show, type_class
from node.errors import PreconditionFailed, ResourceLocked
from node.wire.primitives import type_name

Arguments = Mapping[str, Any]
Check = Callable[[Any, Arguments], str | None]

EXPIRY_MS_MAX = 315_360_000_000
"""The longest time that RabbitMQ takes: ten years."""

PRIORITY_MAX = 255
NAME_PREFIX_BYTES_MAX = 64

ROUTING_TYPES = (
    *("direct", "fanout", "topic", "headers"),
    *("x-consistent-hash", "x-modulus-hash", "x-random", "x-local-random"),
)
EXCHANGE_TYPES = (*ROUTING_TYPES, DELAYED_TYPE)


def _integer(value: Any, _: Arguments) -> str | None:
    return None if type_class(value) == "int" else f'"expected integer, got {type_name(value)}"'


def _not_negative(value: Any, arguments: Arguments) -> str | None:
    return _integer(value, arguments) or (f"{{value_negative,{value}}}" if value < 0 else None)


def _positive(value: Any, arguments: Arguments) -> str | None:
    return _not_negative(value, arguments) or ("{value_zero,0}" if value == 0 else None)


def _milliseconds(value: Any, arguments: Arguments) -> str | None:
    return _not_negative(value, arguments) or (
        f"{{value_too_large,{value}}}" if value > EXPIRY_MS_MAX else None
    )


def _expires(value: Any, arguments: Arguments) -> str | None:
    return _milliseconds(value, arguments) or ("{value_zero,0}" if value == 0 else None)


def _priority(value: Any, arguments: Arguments) -> str | None:
    too_big = f"{{max_value_exceeded,{value}}}"
    return _not_negative(value, arguments) or (too_big if value > PRIORITY_MAX else None)


def _boolean(value: Any, _: Arguments) -> str | None:
    return None if isinstance(value, bool) else f"{{unacceptable_type,{type_name(value)}}}"


def _text(value: Any, _: Arguments) -> str | None:
    return None if isinstance(value, str) else f"{{unacceptable_type,{type_name(value)}}}"


def _one_of(*known: str, otherwise: str) -> Check:
    def check(value: Any, arguments: Arguments) -> str | None:
        wrong = otherwise.format(value=value)
        return _text(value, arguments) or (None if value in known else wrong)

    return check


def _dead_letter_routing_key(value: Any, arguments: Arguments) -> str | None:
    alone = "x-dead-letter-exchange" not in arguments
    return _text(value, arguments) or ("routing_key_but_no_dlx_defined" if alone else None)


def _queue_version(value: Any, arguments: Arguments) -> str | None:
    wrong = f"\"unsupported queue version '{value}'\""
    return _not_negative(value, arguments) or (None if value == 2 else wrong)


def _max_age(value: Any, arguments: Arguments) -> str | None:
    wrong = _text(value, arguments)
    if wrong is not None:
        return wrong
    count, unit = value[:-1], value[-1:]
    valid = count.isascii() and count.isdigit() and count.strip("0") != "" and unit in tuple("YMDhms")
    return None if valid else "invalid_max_age"


def _filter_size(value: Any, arguments: Arguments) -> str | None:
    wrong = '"Invalid value for x-stream-filter-size-bytes"'
    return _not_negative(value, arguments) or (None if 16 <= value <= 255 else wrong)


_QUEUE_TYPE = _one_of("classic", "quorum", otherwise="\"unsupported queue type '{value}'\"")

# In RabbitMQ's order: of two wrong arguments the first is named.
QUEUE_ARGUMENTS: dict[str, Check] = {
    "x-expires": _expires,
    "x-message-ttl": _milliseconds,
    "x-dead-letter-exchange": _text,
    "x-dead-letter-routing-key": _dead_letter_routing_key,
    "x-dead-letter-strategy": _one_of("at-most-once", "at-least-once", otherwise="invalid_dlx_strategy"),
    "x-max-length": _not_negative,
    "x-max-length-bytes": _not_negative,
    "x-max-in-memory-length": _not_negative,
    "x-max-in-memory-bytes": _not_negative,
    "x-max-priority": _priority,
    "x-overflow": _one_of("drop-head", "reject-publish", "reject-publish-dlx", otherwise="invalid_overflow"),
    "x-queue-mode": _one_of("default", "lazy", otherwise="\"unsupported queue mode '{value}'\""),
    "x-queue-version": _queue_version,
    "x-single-active-consumer": _boolean,
    "x-queue-type": _QUEUE_TYPE,
    "x-quorum-initial-group-size": _positive,
    "x-quorum-target-group-size": _positive,
    "x-max-age": _max_age,
    "x-stream-max-segment-size-bytes": _not_negative,
    "x-stream-filter-size-bytes": _filter_size,
    "x-initial-cluster-size": _positive,
    "x-queue-leader-locator": _one_of(
        "client-local", "balanced", "random", "least-leaders", otherwise="invalid_queue_locator_arg"
    ),
    "x-delivery-limit": _integer,
    "x-consumer-timeout": _not_negative,
    "x-consumer-disconnected-timeout": _not_negative,
    "x-delayed-retry-type": _one_of(
        "disabled", "all", "failed", "returned", otherwise="invalid_delayed_retry_type"
    ),
    "x-delayed-retry-min": _milliseconds,
    "x-delayed-retry-max": _milliseconds,
    "x-member-placement-tag": _text,
}

STREAM_ARGUMENTS = (
    "x-max-age",
    "x-stream-max-segment-size-bytes",
    "x-stream-filter-size-bytes",
    "x-initial-cluster-size",
)
"""Known, but not for queues."""


def queue_title(vhost: str, name: str) -> str:
    """A queue as error texts name it."""
    return f"queue '{name}' in vhost '{vhost}'"


def exchange_title(vhost: str, name: str) -> str:
    """An exchange as error texts name it."""
    return f"exchange '{name}' in vhost '{vhost}'"


def queue_type(arguments: Arguments) -> str:
    """The queue type that was asked for; classic if none was."""
    kind = arguments.get("x-queue-type", "classic")
    return kind if isinstance(kind, str) else "classic"


def can_refuse(arguments: Arguments) -> bool:
    """Whether a queue refuses messages when it is full, instead of dropping the oldest."""
    is_limited = "x-max-length" in arguments or "x-max-length-bytes" in arguments
    return is_limited and str(arguments.get("x-overflow", "")).startswith("reject-publish")


def priority_max(arguments: Arguments) -> int:
    """The highest priority that a queue tells apart; 0: it has none."""
    value = arguments.get("x-max-priority", 0)
    return value if isinstance(value, int) else 0


def check_queue_arguments(
    vhost: str, name: str, arguments: Arguments, *, durable: bool, exclusive: bool
) -> None:
    """Raise the 406 for the first argument of a new queue that is not valid."""
    title = queue_title(vhost, name)
    target = arguments.get("x-dead-letter-exchange", "")
    if not isinstance(target, str):
        kind = type_name(target)
        raise PreconditionFailed(f"invalid type '{kind}' for arg 'x-dead-letter-exchange' in {title}")
    for key, check in QUEUE_ARGUMENTS.items():
        if key in arguments:
            wrong = check(arguments[key], arguments)
            if wrong is not None:
                raise PreconditionFailed(f"invalid arg '{key}' for {title}: {wrong}")
    kind = queue_type(arguments)
    for key in STREAM_ARGUMENTS:
        if key in arguments:
            raise PreconditionFailed(f"invalid arg '{key}' for {title} of queue type rabbit_{kind}_queue")
    if kind == "quorum" and exclusive:
        raise PreconditionFailed(f"invalid property 'exclusive-owner' for {title}")
    if kind == "quorum" and not durable:
        raise PreconditionFailed(f"invalid property 'non-durable' for {title}")


def check_exchange_type(kind: str) -> None:
    """Raise the 406 for a type that no exchange has."""
    if kind not in EXCHANGE_TYPES:
        raise PreconditionFailed(f"unknown exchange type '{kind}'")


def check_name_prefix(arguments: Arguments) -> None:
    """Raise the 406 for an x-name-prefix that is too long or no text."""
    prefix = arguments.get("x-name-prefix", "")
    if not isinstance(prefix, str) or len(prefix.encode("utf-8", "surrogateescape")) > NAME_PREFIX_BYTES_MAX:
        raise PreconditionFailed(f"Queue name prefix '{show(prefix)}' exceeds the 64-byte limit")


def check_exchange_arguments(vhost: str, name: str, exchange_type: str, arguments: Arguments) -> None:
    """Raise the 406 for an alternate exchange that is no name, or for what the type does not understand."""
    alternate = arguments.get("alternate-exchange", "")
    if not isinstance(alternate, str):
        kind, title = type_name(alternate), exchange_title(vhost, name)
        raise PreconditionFailed(f"invalid type '{kind}' for arg 'alternate-exchange' in {title}")
    if exchange_type == DELAYED_TYPE and arguments.get("x-delayed-type") not in ROUTING_TYPES:
        raise PreconditionFailed("Invalid argument, 'x-delayed-type' must be an existing exchange type")
    if exchange_type == "x-consistent-hash":
        check_hash_arguments(arguments)


def locked(record: QueueRecord) -> ResourceLocked:
    """The 405 for a queue of another session, or declared exclusive by only one of two declarations."""
    title = queue_title(record.vhost, record.name)
    return ResourceLocked(
        f"cannot obtain exclusive access to locked {title}. It could be originally declared on another "
        "connection or the exclusive property value does not match that of the original declaration."
    )


def check_same_queue(
    record: QueueRecord, arguments: Arguments, *, durable: bool, auto_delete: bool, owner: Owner | None
) -> None:
    """Raise 405 or 406 where a declaration does not describe the queue that there is.

    Args:
        owner: the declaring session if it declares an exclusive queue, else None.
    """
    if record.owner != owner:
        raise locked(record)
    title = queue_title(record.vhost, record.name)
    _check_same(title, "durable", record.durable, durable and owner is None)
    _check_same(title, "auto_delete", record.auto_delete, auto_delete)
    for key in QUEUE_ARGUMENTS:
        _check_same_argument(title, key, record.arguments, arguments)


def check_same_exchange(record: ExchangeRecord, wanted: ExchangeRecord) -> None:
    """Raise 406 where a declaration does not describe the exchange that there is."""
    title = exchange_title(record.vhost, record.name)
    _check_same(title, "type", record.type, wanted.type)
    _check_same(title, "durable", record.durable, wanted.durable)
    _check_same(title, "auto_delete", record.auto_delete, wanted.auto_delete)
    _check_same(title, "internal", record.internal, wanted.internal)
    for key in ("alternate-exchange", "x-delayed-type"):
        _check_same_argument(title, key, record.arguments, wanted.arguments)


def _check_same(title: str, key: str, current: bool | str, received: bool | str) -> None:
    if current != received:
        raise _inequivalent(title, key, f"'{show(received)}'", f"'{show(current)}'")


def _check_same_argument(title: str, key: str, current: Arguments, received: Arguments) -> None:
    if key not in current and key not in received:
        return
    default = "classic" if key == "x-queue-type" else _ABSENT
    one, other = current.get(key, default), received.get(key, default)
    if one is _ABSENT or other is _ABSENT or not is_same(one, other):
        is_set = key in current and key in received
        raise _inequivalent(
            title, key, _shown(received, key, is_set=is_set), _shown(current, key, is_set=is_set)
        )


_ABSENT = object()


def _shown(arguments: Arguments, key: str, *, is_set: bool) -> str:
    """An argument in the text of the 406, which tells its type only where it is not set on both sides."""
    if key not in arguments:
        return "none"
    value = arguments[key]
    return f"'{show(value)}'" if is_set else f"the value '{show(value)}' of type '{type_name(value)}'"


def _inequivalent(title: str, key: str, received: str, current: str) -> PreconditionFailed:
    return PreconditionFailed(
        f"inequivalent arg '{key}' for {title}: received {received} but current is {current}"
    )
