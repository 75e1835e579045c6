"""Single packed records, taken apart and put together: for the few messages whose properties the broker changes.

A record is `u32 head length | u32 body length | exchange | routing key | content header payload | body`.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from node.wire.primitives import Reader, encode_shortstr
from node.wire.properties import BasicProperties, decode_header, encode_header

_LENGTHS = struct.Struct(">II")
_CLASS_BASIC = 60
_HEADER_START = struct.Struct(">HHQ")  # class, weight, bytes of the body
_PROPERTIES_AT = _HEADER_START.size


class Record(NamedTuple):
    """A message: `header` is the payload of its content header frame."""

    exchange: str
    routing_key: str
    header: bytes
    body: bytes

    @property
    def properties(self) -> BasicProperties:
        """The properties, decoded."""
        return decode_header(self.header)[1]


def read_record(data: bytes, offset: int) -> tuple[Record, int]:
    """The record at `offset` and the offset after it; the codec has checked it when it was packed."""
    head_bytes, body_bytes = _LENGTHS.unpack_from(data, offset)
    start = offset + _LENGTHS.size
    body_start = start + head_bytes
    reader = Reader(data, start, text_errors="surrogateescape")
    exchange, routing_key = reader.shortstr(), reader.shortstr()
    end = body_start + body_bytes
    return Record(exchange, routing_key, data[reader.offset : body_start], data[body_start:end]), end


def pack_record(exchange: str, routing_key: str, properties: BasicProperties, body: bytes) -> bytes:
    """The packed record of a message.

    Raises:
        ValueError: a property does not fit its field.
    """
    header = encode_header(len(body), properties)
    head = encode_shortstr(exchange) + encode_shortstr(routing_key) + header
    return _LENGTHS.pack(len(head), len(body)) + head + body


def parts_of(data: bytes, offset: int) -> tuple[bytes, bytes, bytes, int]:
    """The record at `offset` in pieces: exchange and routing key, encoded properties, body; and the offset after it."""
    head_bytes, body_bytes = _LENGTHS.unpack_from(data, offset)
    start = offset + _LENGTHS.size
    key_at = start + 1 + data[start]
    header_at = key_at + 1 + data[key_at]
    body_at = start + head_bytes
    end = body_at + body_bytes
    return data[start:header_at], data[header_at + _PROPERTIES_AT : body_at], data[body_at:end], end


def joined_record(head: bytes, properties: bytes, body: bytes) -> bytes:
    """The packed record of a message in the pieces of `parts_of`."""
    size = _HEADER_START.size + len(properties)
    lengths = _LENGTHS.pack(len(head) + size, len(body))
    return b"".join((lengths, head, _HEADER_START.pack(_CLASS_BASIC, 0, len(body)), properties, body))


def with_header(data: bytes, offset: int, count: int, name: str, value: int) -> bytes:
    """Return `count` records with one more header, or another value of it."""
    packed: list[bytes] = []
    for _ in range(count):
        record, offset = read_record(data, offset)
        properties = record.properties
        properties.headers = {**(properties.headers or {}), name: value}
        packed.append(pack_record(record.exchange, record.routing_key, properties, record.body))
    return b"".join(packed)
