"""The commands of the metadata group: what is written to its log to change the topology.

One command is `kind u8 | body length u32 | body`, a body is a `ticket u64` and the fields that `FIELDS`
names. Each function below makes one command as a tuple of parts, to be joined by the host. They refuse what
must never be logged (tables that nest too deep, regular expressions that do not compile); everything else is
judged by `apply`, with the state at hand. CR and LF are stripped from the names of exchanges and queues, as
RabbitMQ does.
"""

# ruff: noqa: PLR0917 - a command has as many arguments as the method of the protocol, in its order

import struct
from enum import IntEnum
from typing import Any

from node.broker.errors import UnknownCommand
from node.broker.permissions import check_pattern
from node.broker.values import Table, encode_table

Parts = tuple[bytes, ...]


class Kind(IntEnum):
    """What a command does. Numbers are in logs: never reused, never changed."""

    DECLARE_EXCHANGE = 1
    DELETE_EXCHANGE = 2
    BIND_QUEUE = 3
    UNBIND_QUEUE = 4
    BIND_EXCHANGE = 5
    UNBIND_EXCHANGE = 6
    DECLARE_QUEUE = 7
    DELETE_QUEUE = 8
    CLOSE_SESSION = 9
    ADD_VHOST = 10
    DELETE_VHOST = 11
    ADD_USER = 12
    DELETE_USER = 13
    SET_PERMISSIONS = 14
    CLEAR_PERMISSIONS = 15


FIELDS: dict[int, str] = {
    Kind.DECLARE_EXCHANGE: "QsssBBBx",
    Kind.DELETE_EXCHANGE: "QssB",
    Kind.BIND_QUEUE: "QssssxQ",
    Kind.UNBIND_QUEUE: "QssssxQ",
    Kind.BIND_EXCHANGE: "Qssssx",
    Kind.UNBIND_EXCHANGE: "Qssssx",
    Kind.DECLARE_QUEUE: "QssBBBBxQQ",
    Kind.DELETE_QUEUE: "QQ",
    Kind.CLOSE_SESSION: "QQ",
    Kind.ADD_VHOST: "Qs",
    Kind.DELETE_VHOST: "Qs",
    Kind.ADD_USER: "Qsxxs",
    Kind.DELETE_USER: "Qs",
    Kind.SET_PERMISSIONS: "Qsssss",
    Kind.CLEAR_PERMISSIONS: "Qss",
}
"""The fields of each kind: Q u64, B bool, s text, x octets (tables in canonical form, see values.py)."""

_HEAD = struct.Struct(">BI")
_LONG = struct.Struct(">Q")
_SIZE = struct.Struct(">I")


def strip_name(name: str) -> str:
    """A name of an exchange or queue without CR and LF."""
    return name.replace("\r", "").replace("\n", "")


def declare_exchange(
    ticket: int,
    vhost: str,
    name: str,
    exchange_type: str,
    *,
    durable: bool,
    auto_delete: bool,
    internal: bool,
    arguments: Table,
) -> Parts:
    """Reply: ExchangeDeclared, or 403, 406."""
    table = encode_table(arguments)
    flags = (durable, auto_delete, internal)
    return _command(Kind.DECLARE_EXCHANGE, ticket, vhost, strip_name(name), exchange_type, *flags, table)


def delete_exchange(ticket: int, vhost: str, name: str, *, if_unused: bool) -> Parts:
    """Reply: None (also if there was none), or 403, 406 in use."""
    return _command(Kind.DELETE_EXCHANGE, ticket, vhost, strip_name(name), if_unused)


def bind_queue(
    ticket: int, vhost: str, queue: str, exchange: str, routing_key: str, arguments: Table, session: int
) -> Parts:
    """Reply: None, or 403, 404, 405 (exclusive queue of another session), 406 (x-match)."""
    names = (vhost, strip_name(queue), strip_name(exchange), routing_key)
    return _command(Kind.BIND_QUEUE, ticket, *names, encode_table(arguments), session)


def unbind_queue(
    ticket: int, vhost: str, queue: str, exchange: str, routing_key: str, arguments: Table, session: int
) -> Parts:
    """Reply: None (also if there was none), or 403, 405."""
    names = (vhost, strip_name(queue), strip_name(exchange), routing_key)
    return _command(Kind.UNBIND_QUEUE, ticket, *names, encode_table(arguments), session)


def bind_exchange(
    ticket: int, vhost: str, destination: str, source: str, routing_key: str, arguments: Table
) -> Parts:
    """Reply: None, or 403, 404, 406 (x-match)."""
    names = (vhost, strip_name(destination), strip_name(source), routing_key)
    return _command(Kind.BIND_EXCHANGE, ticket, *names, encode_table(arguments))


def unbind_exchange(
    ticket: int, vhost: str, destination: str, source: str, routing_key: str, arguments: Table
) -> Parts:
    """Reply: None (also if there was none), or 403."""
    names = (vhost, strip_name(destination), strip_name(source), routing_key)
    return _command(Kind.UNBIND_EXCHANGE, ticket, *names, encode_table(arguments))


def declare_queue(
    ticket: int,
    vhost: str,
    name: str,
    *,
    durable: bool,
    exclusive: bool,
    auto_delete: bool,
    arguments: Table,
    group: int,
    session: int,
    server_named: bool = False,
) -> Parts:
    """Reply: QueueDeclared, or 403, 405, 406.

    Args:
        name: never empty; the session makes the name of a server-named queue (`amq.gen-...`).
        group: the proposed shard; an exclusive queue goes to the memory of the submitting node instead.
        session: who declares; owner of the queue if it is exclusive.
        server_named: the reserved prefix is allowed.
    """
    flags = (durable, exclusive, auto_delete, server_named)
    fields = (vhost, strip_name(name), *flags, encode_table(arguments), group, session)
    return _command(Kind.DECLARE_QUEUE, ticket, *fields)


def delete_queue(ticket: int, uid: int) -> Parts:
    """Reply: None (also if there was none). The shard is asked first: it knows if-unused and if-empty."""
    return _command(Kind.DELETE_QUEUE, ticket, uid)


def close_session(ticket: int, session: int) -> Parts:
    """Delete the exclusive queues of a session of the submitting node. Reply: None."""
    return _command(Kind.CLOSE_SESSION, ticket, session)


def add_vhost(ticket: int, name: str) -> Parts:
    """Reply: None (also if it was there), or 406 for a bad name."""
    return _command(Kind.ADD_VHOST, ticket, name)


def delete_vhost(ticket: int, name: str) -> Parts:
    """Delete a vhost with all that is in it. Reply: None, or 404."""
    return _command(Kind.DELETE_VHOST, ticket, name)


def add_user(ticket: int, name: str, salt: bytes, password_hash: bytes, tags: tuple[str, ...] = ()) -> Parts:
    """Add a user, or change password and tags of one (permissions stay). Reply: None, or 406 for a bad name.

    Args:
        salt, password_hash: see `passwords.hash_password`; an empty hash lets nobody in.
        tags: e.g. administrator, monitoring; kept sorted.
    """
    return _command(Kind.ADD_USER, ticket, name, salt, password_hash, ",".join(sorted(tags)))


def delete_user(ticket: int, name: str) -> Parts:
    """Delete a user with all permissions. Reply: None, or 404."""
    return _command(Kind.DELETE_USER, ticket, name)


def set_permissions(ticket: int, user: str, vhost: str, configure: str, write: str, read: str) -> Parts:
    """Reply: None, or 404. Raises 406 here if a pattern is too long, does not compile, or could blow up."""
    for pattern in (configure, write, read):
        check_pattern(pattern)
    return _command(Kind.SET_PERMISSIONS, ticket, user, vhost, configure, write, read)


def clear_permissions(ticket: int, user: str, vhost: str) -> Parts:
    """Reply: None (also if there were none), or 404."""
    return _command(Kind.CLEAR_PERMISSIONS, ticket, user, vhost)


def _command(kind: Kind, *values: Any) -> Parts:
    body = pack_fields(FIELDS[kind], values)
    return (_HEAD.pack(kind, len(body)) + body,)


def pack_fields(fields: str, values: tuple[Any, ...]) -> bytes:
    """The values one after the other, in the shapes that `fields` names."""
    parts = []
    for shape, value in zip(fields, values, strict=True):
        if shape == "Q":
            parts.append(_LONG.pack(value))
        elif shape == "B":
            parts.append(b"\x01" if value else b"\x00")
        else:
            raw = value.encode("utf-8", "surrogateescape") if shape == "s" else value
            parts.append(_SIZE.pack(len(raw)) + raw)
    return b"".join(parts)


def unpack_fields(fields: str, data: bytes, offset: int) -> list[Any]:
    """What `pack_fields` was given."""
    values: list[Any] = []
    for shape in fields:
        if shape == "Q":
            values.append(_LONG.unpack_from(data, offset)[0])
            offset += 8
        elif shape == "B":
            values.append(data[offset] == 1)
            offset += 1
        else:
            start = offset + 4
            offset = start + _SIZE.unpack_from(data, offset)[0]
            raw = data[start:offset]
            values.append(raw.decode("utf-8", "surrogateescape") if shape == "s" else raw)
    return values


def decode_commands(data: bytes, offset: int) -> list[tuple[int, list[Any]]]:
    """All commands in `data[offset:]` as (kind, fields). Raises UnknownCommand before any of them has run."""
    commands = []
    while offset < len(data):
        kind, size = _HEAD.unpack_from(data, offset)
        fields = FIELDS.get(kind)
        if fields is None:
            raise UnknownCommand(f"metadata command kind {kind}")
        offset += _HEAD.size
        commands.append((kind, unpack_fields(fields, data, offset)))
        offset += size
    return commands
