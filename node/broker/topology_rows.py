"""The saved state of the topology: one row for each vhost, user, permission, exchange, queue and binding.

A row's key is the table and the uid of the thing, so names of any length fit; its value is the thing's fields
in the encoding of the commands, which makes equal states equal bytes. Things are encoded when a checkpoint
wants them, not when they change: what came and went between two checkpoints costs nothing but a deleted key.
"""

from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import Any, NamedTuple

from cluster.machine import Row
from node.broker.exchange import Binding
from node.broker.records import ExchangeRecord, Permission, QueueRecord, UserRecord
from node.broker.topology_commands import pack_fields, unpack_fields
from node.broker.values import encode_table


class Table(IntEnum):
    """What a row describes; in this order they can be restored."""

    HEADER = 1
    VHOST = 2
    USER = 3
    PERMISSION = 4
    EXCHANGE = 5
    QUEUE = 6
    BINDING = 7


class HeaderRow(NamedTuple):
    """The version of the rows, and the last uid that was given away."""

    format_version: int
    last_uid: int


class PermissionRow(NamedTuple):
    """A permission with whom and where."""

    uid: int
    user: str
    vhost: str
    permission: Permission


FORMAT_VERSION = 1

FIELDS: dict[int, str] = {
    Table.HEADER: "QQ",
    Table.VHOST: "s",
    Table.USER: "sxxs",
    Table.PERMISSION: "sssss",
    Table.EXCHANGE: "sssBBBx",
    Table.QUEUE: "ssQBBxBQQ",
    Table.BINDING: "ssBssx",
}
"""The shapes of a row's fields, in the letters of topology_commands.FIELDS."""


def _user(record: UserRecord) -> tuple[Any, ...]:
    return (record.name, record.salt, record.password_hash, ",".join(record.tags))


def _permission(row: PermissionRow) -> tuple[Any, ...]:
    return (row.user, row.vhost, *row.permission)


def _exchange(record: ExchangeRecord) -> tuple[Any, ...]:
    flags = (record.durable, record.auto_delete, record.internal)
    return (record.vhost, record.name, record.type, *flags, encode_table(record.arguments))


def _queue(record: QueueRecord) -> tuple[Any, ...]:
    owner = record.owner if record.owner is not None else (0, 0)
    return (
        record.vhost,
        record.name,
        record.group,
        record.durable,
        record.auto_delete,
        record.table,
        record.owner is not None,
        *owner,
    )


def _binding(binding: Binding) -> tuple[Any, ...]:
    source, target = binding.source.record, binding.destination.record
    ends = (source.vhost, source.name, binding.to_exchange, target.name)
    return (*ends, binding.routing_key, binding.arguments)


_VALUES: dict[int, Callable[[Any], tuple[Any, ...]]] = {
    Table.HEADER: tuple,
    Table.VHOST: lambda name: (name,),
    Table.USER: _user,
    Table.PERMISSION: _permission,
    Table.EXCHANGE: _exchange,
    Table.QUEUE: _queue,
    Table.BINDING: _binding,
}


class Rows:
    """All that is saved, by table and uid, and which of it changed since the last checkpoint."""

    __slots__ = ("_changed", "_things")

    def __init__(self) -> None:
        self._things: dict[int, Any] = {}
        self._changed: dict[int, None] = {}

    def put(self, table: Table, uid: int, thing: Any) -> None:
        """Save a thing, or its new value."""
        key = table << 64 | uid
        self._things[key] = thing
        self._changed[key] = None

    def drop(self, table: Table, uid: int) -> None:
        """Save no longer what was put."""
        key = table << 64 | uid
        del self._things[key]
        self._changed[key] = None

    def all(self) -> list[Row]:
        """Every row, in key order. What changed stays noted: these may go elsewhere than to the store."""
        return [(_key(key), _encode(key, self._things[key])) for key in sorted(self._things)]

    def take_changes(self) -> list[Row]:
        """The rows that changed since the last call, in key order; None for those that are gone."""
        things = self._things
        changes: list[Row] = [
            (_key(key), _encode(key, things[key]) if key in things else None) for key in sorted(self._changed)
        ]
        self._changed.clear()
        return changes

    def settle(self) -> None:
        """What was put so far came from the store: nothing of it has changed."""
        self._changed.clear()


def _key(key: int) -> bytes:
    return key.to_bytes(9, "big")


def _encode(key: int, thing: Any) -> bytes:
    table = key >> 64
    return pack_fields(FIELDS[table], _VALUES[table](thing))


def decode_rows(rows: Iterable[tuple[bytes, bytes]]) -> list[tuple[Table, int, list[Any]]]:
    """Rows as (table, uid, fields), the header first, and each after those it needs."""
    decoded = []
    for key, value in sorted(rows):
        table = Table(key[0])
        decoded.append((table, int.from_bytes(key[1:], "big"), unpack_fields(FIELDS[table], value, 0)))
    return decoded
