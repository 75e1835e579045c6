"""Frames to runs and runs to frames (AMQP 4.2.3, 4.2.6) in plain Python: meaning and fallback of the codec.

First and last on a message's path. `_codec.pyx` does the same on pointers and is held equal to this module by
tests; `codec.py` picks one of the two. Nothing here raises on what a peer sent, save `check_header`, which is
asked to.

A packed record is `u32 head length | u32 body length | head | body`, and its head `exchange | routing key | content
header payload`, the first two as the shortstrs that they are in basic.publish and basic.deliver.
"""

from __future__ import annotations

import struct
from typing import Final, Literal

from node.errors import FrameError
from node.wire.content_header import check_header, frame_fault, header_adds_up, is_special
from node.wire.items import (
    ACK,
    BODY,
    ERROR,
    HEADER,
    HEARTBEAT,
    METHOD,
    PUBLISH,
    WAIT_BODY_BYTES_MAX,
    WAIT_BODY_FRAMES_MAX,
    WAIT_HEADER_BYTES_MAX,
    Item,
    publish_args,
)
from node.wire.primitives import FRAME_END, FRAME_OVERHEAD_BYTES

__all__ = ["check_header", "content_frames", "is_special", "scan", "skip"]

_FRAME_METHOD: Final = 1
_FRAME_HEADER: Final = 2
_FRAME_BODY: Final = 3
_FRAME_HEARTBEAT: Final = 8
_FRAME_TYPES: Final = (_FRAME_METHOD, _FRAME_HEADER, _FRAME_BODY, _FRAME_HEARTBEAT)
_ITEM_KINDS: Final[dict[int, Literal[3, 4, 5]]] = {
    _FRAME_HEADER: HEADER,
    _FRAME_BODY: BODY,
    _FRAME_HEARTBEAT: HEARTBEAT,
}

_CLASS_BASIC: Final = 60
_BASIC_PUBLISH: Final = _CLASS_BASIC << 16 | 40
_BASIC_ACK: Final = _CLASS_BASIC << 16 | 80
_ACK_PAYLOAD_BYTES: Final = 13
_DELIVERY_TAG_MAX: Final = (1 << 64) - 1
_U32_MAX: Final = (1 << 32) - 1

_FRAME_HEAD: Final = struct.Struct(">BHI")
_RECORD_HEAD: Final = struct.Struct(">II")
_ACK_ARGS: Final = struct.Struct(">QB")
_TAG: Final = struct.Struct(">Q")

_FLAGS_BYTES: Final = 1
_EXRK_BYTES_MAX: Final = 512

_WAIT: Final = -1
_SINGLE: Final = -2

_Frame = tuple[int, int, int, int]
"""type, channel, where the payload starts, where it ends (at the end octet)."""


def scan(data: bytes, frame_max: int, run_bytes_max: int) -> tuple[list[Item], int]:
    """Turn the front of a byte stream into runs and frames.

    Runs of publishes that follow each other on one channel are one item.

    Args:
        data: all bytes that have come and were not yet consumed.
        frame_max: the negotiated size of a frame in bytes, 0 for no limit.
        run_bytes_max: bound of the packed bytes of one run; a larger message stands alone.

    Returns:
        The items in order, and how many bytes they took. Nothing follows an ERROR item, which takes all
        bytes.
    """
    items: list[Item] = []
    pos = 0
    while True:
        frame = _frame_at(data, pos, frame_max)
        if frame is None:
            return items, pos
        if isinstance(frame, str):
            items.append(_error_item(data, pos, frame))
            return items, len(data)
        frame_type, channel, start, end = frame
        if frame_type != _FRAME_METHOD:
            items.append((_ITEM_KINDS[frame_type], channel, data[start:end]))
            pos = end + 1
            continue
        method_id = int.from_bytes(data[start : start + 4], "big")
        after = _SINGLE
        if method_id == _BASIC_PUBLISH and _publish_args_add_up(data, start + 4, end):
            after = _scan_run(data, frame, frame_max, run_bytes_max, items)
        elif method_id == _BASIC_ACK and end - start == _ACK_PAYLOAD_BYTES:
            after = _scan_acks(data, frame, items)
        if after == _WAIT:
            return items, pos
        if after == _SINGLE:
            items.append((METHOD, channel, method_id, data[start + 4 : end]))
            after = end + 1
        pos = after


def content_frames(  # noqa: PLR0917 - the hot call of delivery; keywords cost as much as a message
    data: bytes,
    offset: int,
    count: int,
    channel: int,
    head: bytes,
    first_tag: int,
    flags: bytes,
    tail: bytes,
    frame_max: int,
) -> tuple[bytes, int]:
    """Write packed records as the frames of basic.deliver, basic.return or basic.get-ok.

    Args:
        data: holds the records, among other things.
        offset: where the first record starts.
        count: how many records to write.
        channel: goes into each frame.
        head: class id, method id and what comes before the delivery tag.
        first_tag: delivery tag of the first record, the next has one more; negative: the method has no tag.
        flags: the arguments between the delivery tag and the exchange.
        tail: the arguments after the routing key.
        frame_max: body frames are split to fit it; 0 for no limit. A content header is never split.

    Returns:
        The frames, and the offset after the last record.

    Raises:
        ValueError: the data ends before the last record does, a head does not add up, or an argument is out of
            its range.
    """
    _check_range(data, offset, count)
    body_max = frame_max - FRAME_OVERHEAD_BYTES if frame_max else _U32_MAX
    if body_max < 1 or not 0 <= channel <= 0xFFFF or first_tag + count > 1 << 63:
        msg = f"channel {channel}, frame_max {frame_max}, first_tag {first_tag}"
        raise ValueError(msg)
    parts: list[bytes] = []
    for number in range(count):
        start, body_start, end = _record_at(data, offset)
        header_start = _exrk_end(data, start, body_start)
        tag = _TAG.pack(first_tag + number) if first_tag >= 0 else b""
        method = head + tag + flags + data[start:header_start] + tail
        parts.append(_frame(_FRAME_METHOD, channel, method))
        parts.append(_frame(_FRAME_HEADER, channel, data[header_start:body_start]))
        parts.extend(
            _frame(_FRAME_BODY, channel, data[start : min(start + body_max, end)])
            for start in range(body_start, end, body_max)
        )
        offset = end
    return b"".join(parts), offset


def skip(data: bytes, offset: int, count: int) -> int:
    """The offset after `count` packed records; ValueError if the data ends before."""
    _check_range(data, offset, count)
    for _ in range(count):
        offset = _record_at(data, offset)[2]
    return offset


def _frame_at(data: bytes, pos: int, frame_max: int) -> _Frame | str | None:
    """The frame at `pos`; None if it is not yet complete, a fault if it never will be one.

    Type and size are judged as soon as they are there, so that no peer makes us wait for what we would
    refuse.
    """
    if len(data) - pos < 7:
        return None
    frame_type, channel, size = _FRAME_HEAD.unpack_from(data, pos)
    if frame_type not in _FRAME_TYPES:
        return "unknown_frame"
    if frame_max and size > frame_max:
        # The payload may be frame_max - 8; the limit is 8 more, as clients are used to.
        return f"{{frame_too_large,{size},{frame_max - FRAME_OVERHEAD_BYTES}}}"
    end = pos + 7 + size
    if end >= len(data):
        return None
    if data[end] != FRAME_END:
        return f"{{invalid_frame_end_marker,{data[end]}}}"
    if frame_type == _FRAME_METHOD and size < 4:
        return "unknown_frame"
    return frame_type, channel, pos + 7, end


def _error_item(data: bytes, pos: int, fault: str) -> Item:
    frame_type, channel, size = _FRAME_HEAD.unpack_from(data, pos)
    payload = b""
    if fault.startswith("{invalid") or (fault == "unknown_frame" and frame_type == _FRAME_METHOD):
        # Only a frame that is there in full is quoted: what is said must not depend on how the bytes were
        # cut.
        payload = data[pos + 7 : pos + 7 + size]
    return (ERROR, channel, FrameError.reply_code, frame_fault(frame_type, payload, fault))


def _publish_args_add_up(data: bytes, pos: int, end: int) -> bool:
    """Ticket, exchange, routing key, flags, and nothing else."""
    pos += 2
    for _ in range(2):
        if pos >= end:
            return False
        pos += 1 + data[pos]
    return pos + 1 == end


def _scan_run(data: bytes, method: _Frame, frame_max: int, run_bytes_max: int, items: list[Item]) -> int:
    """Append the run that starts with the basic.publish `method`, to the burst before it if that is of its channel.

    Returns:
        Where the next item starts, or _WAIT or _SINGLE where there is no run.
    """
    _, channel, start, end = method
    head = data[start - 7 : end + 1]
    args = data[start + 6 : end]
    exrk = args[:-_FLAGS_BYTES]
    parts: list[bytes] = []
    count = run_bytes = pos = 0
    special = False
    after_method = end + 1
    while True:
        found = _scan_content(data, after_method, channel, frame_max)
        if isinstance(found, int):
            after = found
            break
        after, payload, body = found
        message_bytes = _RECORD_HEAD.size + len(exrk) + len(payload) + len(body)
        if not count:
            special = is_special(payload)
        elif run_bytes + message_bytes > run_bytes_max or is_special(payload) != special:
            break
        parts += (_RECORD_HEAD.pack(len(exrk) + len(payload), len(body)), exrk, payload, body)
        count += 1
        run_bytes += message_bytes
        pos = after
        if not data.startswith(head, pos):
            break
        after_method = pos + len(head)
    if not count:
        return after
    run = (publish_args(args, special=special), count, b"".join(parts))
    before = items[-1] if items else None
    if before is not None and before[0] == PUBLISH and before[1] == channel:
        before[2].append(run)
    else:
        items.append((PUBLISH, channel, [run]))
    return pos


def _scan_content(data: bytes, pos: int, channel: int, frame_max: int) -> tuple[int, bytes, bytes] | int:
    """Read the content that follows a basic.publish.

    Returns:
        Where it ends, its header and its body; or _WAIT or _SINGLE.
    """
    header = _frame_at(data, pos, frame_max)
    if header is None:
        return _unfinished(data, pos, channel, _FRAME_HEADER, WAIT_HEADER_BYTES_MAX)
    if isinstance(header, str) or header[:2] != (_FRAME_HEADER, channel):
        return _SINGLE
    payload = data[header[2] : header[3]]
    if not header_adds_up(payload):
        return _SINGLE
    body_size = missing = int.from_bytes(payload[4:12], "big")
    body: list[bytes] = []
    pos = header[3] + 1
    while missing:
        frame = _frame_at(data, pos, frame_max)
        if frame is None:
            is_small = body_size <= WAIT_BODY_BYTES_MAX and len(payload) <= WAIT_HEADER_BYTES_MAX
            if not is_small or len(body) > WAIT_BODY_FRAMES_MAX:
                return _SINGLE
            return _unfinished(data, pos, channel, _FRAME_BODY, missing)
        if isinstance(frame, str) or frame[:2] != (_FRAME_BODY, channel) or frame[3] - frame[2] > missing:
            return _SINGLE
        body.append(data[frame[2] : frame[3]])
        missing -= frame[3] - frame[2]
        pos = frame[3] + 1
    if body_size > _U32_MAX or len(payload) > _U32_MAX - _EXRK_BYTES_MAX:
        return _SINGLE
    return pos, payload, b"".join(body)


def _unfinished(data: bytes, pos: int, channel: int, frame_type: int, bytes_max: int) -> int:
    """_WAIT if the frame that has begun at `pos` may become the one that is due, else _SINGLE."""
    if len(data) - pos < 7:
        return _WAIT
    found_type, found_channel, size = _FRAME_HEAD.unpack_from(data, pos)
    is_due = found_type == frame_type and found_channel == channel and size <= bytes_max
    return _WAIT if is_due else _SINGLE


def _scan_acks(data: bytes, method: _Frame, items: list[Item]) -> int:
    """Append the acknowledgements from `method` on that follow each other; where the next item starts."""
    _, channel, start, end = method
    first, bits = _ACK_ARGS.unpack_from(data, start + 4)
    pos = end + 1
    if bits & 1:
        items.append((ACK, channel, first, first, True))
        return pos
    head = data[start - 7 : start + 4]
    last = first
    while len(data) - pos >= FRAME_OVERHEAD_BYTES + _ACK_PAYLOAD_BYTES and data.startswith(head, pos):
        tag, bits = _ACK_ARGS.unpack_from(data, pos + 11)
        if bits & 1 or last == _DELIVERY_TAG_MAX or tag != last + 1 or data[pos + 20] != FRAME_END:
            break
        last = tag
        pos += FRAME_OVERHEAD_BYTES + _ACK_PAYLOAD_BYTES
    items.append((ACK, channel, first, last, False))
    return pos


def _check_range(data: bytes, offset: int, count: int) -> None:
    if not 0 <= offset <= len(data) or count < 0:
        msg = f"offset {offset}, count {count} in {len(data)} bytes"
        raise ValueError(msg)


def _record_at(data: bytes, offset: int) -> tuple[int, int, int]:
    """Where head and body of the record at `offset` start and where it ends; ValueError beyond the data."""
    if len(data) - offset >= _RECORD_HEAD.size:
        head_bytes, body_bytes = _RECORD_HEAD.unpack_from(data, offset)
        start = offset + _RECORD_HEAD.size
        end = start + head_bytes + body_bytes
        if end <= len(data):
            return start, start + head_bytes, end
    msg = f"record at {offset} ends beyond the data of {len(data)} bytes"
    raise ValueError(msg)


def _exrk_end(data: bytes, start: int, end: int) -> int:
    """Where exchange and routing key of a head end, and its content header starts; ValueError beyond the head."""
    pos = start
    for _ in range(2):
        if pos < end:
            pos += 1 + data[pos]
        else:
            pos = end + 1
    if pos > end:
        msg = f"head at {start} ends before its routing key does"
        raise ValueError(msg)
    return pos


def _frame(frame_type: int, channel: int, payload: bytes) -> bytes:
    return _FRAME_HEAD.pack(frame_type, channel, len(payload)) + payload + bytes((FRAME_END,))
