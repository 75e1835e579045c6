"""The content header (AMQP 4.2.6.1) without decoding it: whether it adds up, what is wrong with it, what it asks.

On a message's path: part of the reference of the codec, so it looks at bytes and makes no objects of them. Properties
as values are `properties.py`.
"""

from __future__ import annotations

import struct
from typing import Final

from node.errors import AmqpError, AmqpSyntaxError, FrameError, UnexpectedFrame
from node.wire.primitives import TABLE_DEPTH_MAX, Reader, erlang_bytes

_CLASS_BASIC: Final = 60
_HEADER_HEAD: Final = struct.Struct(">HHQ")
_HEADER_BYTES_MIN: Final = 14
_SHORTSTR, _TABLE = -1, -2
_PROPERTY_SIZES: Final = (
    *(_SHORTSTR, _SHORTSTR, _TABLE, 1, 1, _SHORTSTR, _SHORTSTR),
    *(_SHORTSTR, _SHORTSTR, 8, _SHORTSTR, _SHORTSTR, _SHORTSTR, _SHORTSTR),
)
"""Bytes of each basic property in the order of its flag, highest bit first (AMQP 1.8.1)."""
_ASKING_FLAGS: Final = 0x0110
"""The flags of `expiration` and `user-id`, which ask something of the broker whatever they say."""
_HEADERS, _PRIORITY, _REPLY_TO = 2, 4, 6
"""The places of properties that do so at times."""
REPLY_TO: Final = b"amq.rabbitmq.reply-to"
"""The queue that a client names in `reply-to` for replies without a queue."""
ASKING_HEADERS: Final = frozenset((b"CC", b"BCC", b"x-delay", b"x-deliver-at", b"x-dedup-id"))
"""The headers that do."""
_VALUE_SIZES: Final = {
    **dict.fromkeys(b"tbB", 1),
    **dict.fromkeys(b"su", 2),
    **dict.fromkeys(b"Iif", 4),
    **dict.fromkeys(b"lLdT", 8),
    ord("D"): 5,
    ord("V"): 0,
}


def check_header(payload: bytes) -> int:
    """The body size in bytes that a content header announces.

    Raises:
        FrameError: 501, too short, or the properties do not add up.
        UnexpectedFrame: 505, not of class basic.
        AmqpSyntaxError: 502, weight is not 0, or a table nests too deep.
    """
    if not header_adds_up(payload):
        raise header_fault(payload)
    return int.from_bytes(payload[4:12], "big")


def is_special(payload: bytes) -> bool:
    """Whether the properties of a content header that adds up ask something of the broker.

    These do: `expiration`, `user-id`, a `priority` other than 0, the `reply-to` that stands for no queue, and the
    headers of ASKING_HEADERS; not those within other headers.
    """
    flags = payload[12] << 8 | payload[13]
    if flags & _ASKING_FLAGS:
        return True
    if flags & 0x8000 >> _PRIORITY and payload[_skip_properties(payload, _PRIORITY)]:
        return True
    if flags & 0x8000 >> _REPLY_TO:
        pos = _skip_properties(payload, _REPLY_TO)
        if payload.startswith(bytes((len(REPLY_TO),)) + REPLY_TO, pos):
            return True
    return bool(flags & 0x8000 >> _HEADERS) and not _header_names(payload).isdisjoint(ASKING_HEADERS)


def header_fault(payload: bytes) -> AmqpError:
    """The error that names what is wrong with a content header that does not add up."""
    if len(payload) < 12:
        return FrameError(f"type 2, {_snippet(payload)}: unknown_frame")
    class_id, weight, _ = _HEADER_HEAD.unpack_from(payload)
    if class_id != _CLASS_BASIC:
        return UnexpectedFrame(f"expected content header for class 60, got one for class {class_id} instead")
    if weight:
        return AmqpSyntaxError("weight of the content header is not 0")
    if len(payload) >= _HEADER_BYTES_MIN and payload[12] & 0x20 and _skip_to_headers(payload) >= 0:
        # The table is the only property that has more than one way to be wrong: let its decoder tell which.
        try:
            Reader(payload, _skip_to_headers(payload), text_errors="surrogateescape").table()
        except AmqpError as error:
            return error
    return FrameError(f"cannot decode {erlang_bytes(payload[12:])}")


def frame_fault(frame_type: int, payload: bytes, fault: str) -> str:
    """The explanation of a 501 for a whole frame, as clients know it."""
    return f"type {frame_type}, {_snippet(payload)}: {fault}"


def _snippet(payload: bytes) -> str:
    if len(payload) <= 16:
        return f"all octets = {erlang_bytes(payload)}"
    return f"first 16 octets = {erlang_bytes(payload[:16])}"


def header_adds_up(payload: bytes) -> bool:
    """Class basic, weight 0, and properties that are exactly what their flags say."""
    if len(payload) < _HEADER_BYTES_MIN or payload[:4] != b"\x00\x3c\x00\x00" or payload[13] & 3:
        return False
    return _skip_properties(payload, len(_PROPERTY_SIZES)) == len(payload)


def _skip_to_headers(payload: bytes) -> int:
    """Where the table of the property `headers` starts; negative if what is before it does not add up."""
    return _skip_properties(payload, 2)


def _skip_properties(payload: bytes, count: int) -> int:
    """The offset after the first `count` properties, absent or not; negative if they do not add up."""
    flags = payload[12] << 8 | payload[13]
    pos, end = _HEADER_BYTES_MIN, len(payload)
    for number, size in enumerate(_PROPERTY_SIZES[:count]):
        if not flags & 0x8000 >> number:
            continue
        if size == _SHORTSTR:
            pos += 1 + payload[pos] if pos < end else end
        elif size == _TABLE:
            pos = _skip_nested(payload, pos, end, is_table=True, depth=1)
        else:
            pos += size
        if not 0 <= pos <= end:
            return -1
    return pos


def _header_names(payload: bytes) -> set[bytes]:
    """The names in the property `headers`."""
    pos = _skip_to_headers(payload)
    end = pos + 4 + int.from_bytes(payload[pos : pos + 4], "big")
    pos += 4
    names = set()
    while pos < end:
        value = pos + 1 + payload[pos]
        names.add(payload[pos + 1 : value])
        pos = skip_value(payload, value, end, 1)
    return names


def _skip_nested(data: bytes, pos: int, end: int, *, is_table: bool, depth: int) -> int:
    """The offset after the table or array at `pos`; negative if it does not add up within `end`."""
    if depth > TABLE_DEPTH_MAX or end - pos < 4:
        return -1
    inner_end = pos + 4 + int.from_bytes(data[pos : pos + 4], "big")
    if inner_end > end:
        return -1
    pos += 4
    while pos < inner_end:
        if is_table:
            pos += 1 + data[pos]
        pos = skip_value(data, pos, inner_end, depth)
        if pos < 0:
            return -1
    return pos


def skip_value(data: bytes, pos: int, end: int, depth: int) -> int:
    """The offset after the tagged value at `pos`; negative if it does not add up within `end`."""
    if pos >= end:
        return -1
    tag = data[pos]
    pos += 1
    if tag in b"FA":
        return _skip_nested(data, pos, end, is_table=tag == ord("F"), depth=depth + 1)
    if tag in b"Sx":
        if end - pos < 4:
            return -1
        pos += 4 + int.from_bytes(data[pos : pos + 4], "big")
    elif tag in _VALUE_SIZES:
        pos += _VALUE_SIZES[tag]
    else:
        return -1
    return pos if pos <= end else -1
