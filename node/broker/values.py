"""Arguments (field tables) as the topology keeps them: as canonical bytes, compared as clients expect it.

The bytes are those of the wire with the keys in order, so equal tables give equal bytes on every replica, and
a value keeps its type. Nothing here is on the path of messages.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from node.errors import AmqpError, PreconditionFailed
from node.wire import primitives

EMPTY = b"\x00\x00\x00\x00"
"""An empty table; most arguments are."""

KEPT_MAX = 1024
"""Decoded tables that are kept: many queues are declared with the same few."""
KEPT_BYTES_MAX = 256
"""The longest of them, encoded: a client may send as much as a frame holds."""

Table = Mapping[str, Any]


def encode_table(table: Table | None) -> bytes:
    """The canonical bytes of a table. Raises 406 for one too deep or with what AMQP cannot carry."""
    if not table:
        return EMPTY
    try:
        encoded = primitives.encode_table(_in_order(table))
        # A replica must be able to decode what is logged: better to find out here than there.
        decode_table(encoded)
    except (ValueError, KeyError, TypeError, RecursionError, AmqpError) as error:
        raise PreconditionFailed(f"invalid arguments: {type(error).__name__}") from None
    return encoded


def decode_table(data: bytes) -> Table:
    """What `encode_table` was given, with its keys in order. Not to be changed: others may be given the same."""
    return _decode_kept(data) if len(data) <= KEPT_BYTES_MAX else primitives.decode_table(data)


@lru_cache(KEPT_MAX)
def _decode_kept(data: bytes) -> Table:
    return primitives.decode_table(data)


def _in_order(table: Table) -> dict[str, Any]:
    return {key: _value_in_order(table[key]) for key in sorted(table)}


def _value_in_order(value: Any) -> Any:
    if isinstance(value, Mapping):
        return _in_order(value)
    if isinstance(value, list):
        return [_value_in_order(item) for item in value]
    return value


def type_class(value: Any) -> str:
    """The type of a value for comparisons: widths of numbers do not count, the rest does."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int) and not isinstance(value, primitives.Timestamp):
        return "int"
    if isinstance(value, float):
        return "float"
    return primitives.type_name(value)


def is_same(one: Any, other: Any) -> bool:
    """Whether two arguments are equivalent: 1 as octet and 1 as long are, 1 and true and 1.0 are not."""
    return type_class(one) == type_class(other) and bool(one == other)


def show(value: Any) -> str:
    """A value as RabbitMQ's error texts print it: a string as it is, the rest as an Erlang term."""
    return value if isinstance(value, str) else term(value)


def term(value: Any) -> str:
    """A value as an Erlang term."""
    if value is None:
        return "undefined"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'<<"{value}">>'
    if isinstance(value, bytes):
        return primitives.erlang_bytes(value)
    if isinstance(value, primitives.Decimal):
        return f"{{{value.scale},{value.value}}}"
    if isinstance(value, dict):
        return "[" + ",".join(f'{{<<"{key}">>,{_typed(item)}}}' for key, item in value.items()) + "]"
    if isinstance(value, list):
        return "[" + ",".join(f"{{{_typed(item)}}}" for item in value) + "]"
    return str(value)


def _typed(value: Any) -> str:
    return f"{primitives.type_name(value)},{term(value)}"
