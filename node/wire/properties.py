"""The basic properties of a content header (AMQP 1.8.1, 4.2.6.1), decoded on demand.

On a message's path the header stays the bytes that arrived; this is for who must look into it: headers
exchanges, expiration, user-id, dead lettering, administration. Text that is not UTF-8 survives a round trip.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from node.wire import primitives
from node.wire.content_header import ASKING_HEADERS, check_header, skip_value
from node.wire.primitives import Reader, Table

_HEADER_BYTES_MIN: Final = 14
_HEADERS_FLAG: Final = 0x2000


@dataclass(slots=True)
class BasicProperties:
    """The properties by the names of the specification; None where the publisher did not set one."""

    content_type: str | None = None
    content_encoding: str | None = None
    headers: Table | None = None
    delivery_mode: int | None = None
    """2: persistent."""
    priority: int | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    expiration: str | None = None
    """Milliseconds, as text."""
    message_id: str | None = None
    timestamp: int | None = None
    """Seconds since 1970."""
    type: str | None = None
    user_id: str | None = None
    app_id: str | None = None
    cluster_id: str | None = None


def _encode_octet(value: int) -> bytes:
    if not 0 <= value <= 255:
        msg = f"octet {value} out of range"
        raise ValueError(msg)
    return bytes((value,))


_Decoder = Callable[[Reader], object]
_Encoder = Callable[..., bytes]

_KINDS: Final[dict[str, tuple[_Decoder, _Encoder]]] = {
    "headers": (Reader.table, primitives.encode_table),
    "delivery_mode": (Reader.octet, _encode_octet),
    "priority": (Reader.octet, _encode_octet),
    "timestamp": (Reader.longlong, primitives.encode_longlong),
}
_TEXT: Final[tuple[_Decoder, _Encoder]] = (Reader.shortstr, primitives.encode_shortstr)

_PROPERTIES: Final[tuple[tuple[int, str, _Decoder, _Encoder], ...]] = tuple(
    (0x8000 >> number, name, *_KINDS.get(name, _TEXT))
    for number, name in enumerate(BasicProperties.__dataclass_fields__)
)
"""(flag, name, decoder, encoder), in the order of the wire."""


def decode_header(payload: bytes) -> tuple[int, BasicProperties]:
    """The body size in bytes and the properties of a content header.

    Raises:
        FrameError, UnexpectedFrame, AmqpSyntaxError: as `check_header` does.
    """
    body_size = check_header(payload)
    flags = int.from_bytes(payload[12:14], "big")
    reader = Reader(payload, _HEADER_BYTES_MIN, text_errors="surrogateescape")
    properties = BasicProperties()
    for flag, name, decode, _ in _PROPERTIES:
        if flags & flag:
            setattr(properties, name, decode(reader))
    return body_size, properties


def decode_headers(payload: bytes) -> Table:
    """Only the property `headers` of a content header, {} where there is none. Raises as `decode_header`."""
    check_header(payload)
    if not payload[12] << 8 & _HEADERS_FLAG:
        return {}
    reader = Reader(payload, _HEADER_BYTES_MIN, text_errors="surrogateescape")
    for flag in (0x8000, 0x4000):
        if payload[12] << 8 & flag:
            reader.take(reader.octet())
    return reader.table()


class AskingProperties(NamedTuple):
    """The properties that may ask something of the broker; None where the publisher did not set one.

    Args:
        headers: only those of ASKING_HEADERS.
        priority, reply_to, expiration, user_id: as in `BasicProperties`.
    """

    headers: Table | None
    priority: int | None
    reply_to: str | None
    expiration: str | None
    user_id: str | None


def decode_asking(properties: bytes) -> AskingProperties:
    """What `decode_header` would say of these properties, without a look at the others.

    Args:
        properties: of a content header that adds up, from its flags on.
    """
    flags = properties[0] << 8 | properties[1]
    pos = 2
    if flags & 0x8000:
        pos += 1 + properties[pos]
    if flags & 0x4000:
        pos += 1 + properties[pos]
    headers, pos = _asking_headers(properties, pos) if flags & _HEADERS_FLAG else (None, pos)
    pos += bool(flags & 0x1000)
    priority = properties[pos] if flags & 0x0800 else None
    pos += bool(flags & 0x0800)
    if flags & 0x0400:
        pos += 1 + properties[pos]
    reply_to, pos = _text(properties, pos) if flags & 0x0200 else (None, pos)
    expiration, pos = _text(properties, pos) if flags & 0x0100 else (None, pos)
    if not flags & 0x0010:
        return AskingProperties(headers, priority, reply_to, expiration, None)
    if flags & 0x0080:
        pos += 1 + properties[pos]
    pos += 8 * bool(flags & 0x0040)
    if flags & 0x0020:
        pos += 1 + properties[pos]
    return AskingProperties(headers, priority, reply_to, expiration, _text(properties, pos)[0])


def _text(data: bytes, pos: int) -> tuple[str, int]:
    end = pos + 1 + data[pos]
    return data[pos + 1 : end].decode("utf-8", "surrogateescape"), end


def _asking_headers(data: bytes, pos: int) -> tuple[Table, int]:
    headers: Table = {}
    end = pos + 4 + int.from_bytes(data[pos : pos + 4], "big")
    pos += 4
    while pos < end:
        start = pos + 1
        pos = start + data[pos]
        name = data[start:pos]
        if name in ASKING_HEADERS:
            reader = Reader(data, pos, text_errors="surrogateescape")
            headers[name.decode("ascii")] = reader.value()
            pos = reader.offset
        else:
            pos = skip_value(data, pos, end, 1)
    return headers, end


def encode_header(body_size: int, properties: BasicProperties) -> bytes:
    """The payload of a content header of class basic.

    Args:
        body_size: in bytes.
        properties: those that are None are left out.

    Raises:
        ValueError: a value does not fit its field.
    """
    flags = 0
    parts: list[bytes] = []
    for flag, name, _, encode in _PROPERTIES:
        value = getattr(properties, name)
        if value is not None:
            flags |= flag
            parts.append(encode(value))
    head = b"\x00\x3c\x00\x00" + primitives.encode_longlong(body_size) + primitives.encode_short(flags)
    return head + b"".join(parts)
