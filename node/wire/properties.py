"""The basic properties of a content header (AMQP 1.8.1, 4.2.6.1), decoded on demand.

On a message's path the header stays the bytes that arrived; this is for who must look into it: headers
exchanges, expiration, user-id, dead lettering, administration. Text that is not UTF-8 survives a round trip.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from node.wire import primitives
from node.wire.content_header import check_header
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
