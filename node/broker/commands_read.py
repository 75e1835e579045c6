"""What `apply` and the reader of an entry see of commands: the decoders of what `node.broker.commands` encodes."""

import struct

from node.broker.commands import (
    ATTACH,
    DELETE,
    ENQUEUE,
    ENQUEUE_BODY,
    GET,
    GIVE_BACK,
    HEAD,
    KIND_ENQUEUE,
    KIND_ENQUEUE_WITH,
    KIND_MAX,
    KIND_MIN,
    OPTIONS,
    OPTIONS_LENGTH,
    RECORD,
    RECORD_BYTES_MIN,
    SETTLE,
    TICKET,
    TICKET_UID,
    UID_BYTES,
    MalformedCommand,
    Options,
    QueueConfig,
)
from node.broker.errors import UnknownCommand


def frames(data: bytes, offset: int) -> list[tuple[int, int, int, int]]:
    """Split entry data into commands: (kind, command offset, body offset, end), in order.

    A command that is cut off at the end of the data is left out.

    Raises:
        UnknownCommand: a kind that is not in `Kind`.
    """
    found = []
    size = len(data)
    unpack = HEAD.unpack_from
    while offset < size:
        if not KIND_MIN <= data[offset] <= KIND_MAX:
            msg = f"command kind {data[offset]} at offset {offset}"
            raise UnknownCommand(msg)
        if size - offset < HEAD.size:
            break
        kind, length = unpack(data, offset)
        body = offset + 5
        end = body + length
        if end > size:
            break
        found.append((kind, offset, body, end))
        offset = end
    return found


def enqueue_layout(data: bytes, command_offset: int) -> tuple[int, int]:
    """Find the records of an enqueue command for delivery: (offset of record 0, count).

    Args:
        data: of the entry that `Slice.index` names.
        command_offset: `Slice.command_offset`.

    Raises:
        MalformedCommand: there is no enqueue command at that offset.
    """
    kind = data[command_offset] if len(data) - command_offset >= ENQUEUE.size else 0
    if kind not in (KIND_ENQUEUE, KIND_ENQUEUE_WITH):
        msg = f"no enqueue command at offset {command_offset}"
        raise MalformedCommand(msg)
    _, length, _, count, queues = ENQUEUE.unpack_from(data, command_offset)
    records = command_offset + ENQUEUE.size + UID_BYTES * queues
    if kind == KIND_ENQUEUE_WITH:
        records += OPTIONS_LENGTH.size + OPTIONS_LENGTH.unpack_from(data, records)[0]
    if records + count * RECORD_BYTES_MIN > command_offset + HEAD.size + length or not count:
        msg = f"enqueue command at offset {command_offset} does not add up"
        raise MalformedCommand(msg)
    return records, count


def is_letter(data: bytes, command_offset: int) -> bool:
    """Whether the records of an enqueue command are dead letters of another queue."""
    if data[command_offset] != KIND_ENQUEUE_WITH:
        return False
    *_, queues = ENQUEUE.unpack_from(data, command_offset)
    at = command_offset + ENQUEUE.size + UID_BYTES * queues + OPTIONS_LENGTH.size
    return bool(OPTIONS.unpack_from(data, at)[4])


def decode_enqueue(data: bytes, body: int, end: int) -> tuple[int, int, tuple[int, ...]]:
    """Return (ticket, count, uids).

    Args:
        data: of the entry.
        body: where the body of the command starts.
        end: where it ends.

    Raises:
        MalformedCommand: the body is no such command; so do all decoders below.
    """
    if end - body < ENQUEUE_BODY.size:
        raise MalformedCommand
    ticket, count, queues = ENQUEUE_BODY.unpack_from(data, body)
    first_uid = body + ENQUEUE_BODY.size
    # Each record has its two lengths at least, so a count that cannot be true shows without a look at them.
    if first_uid + UID_BYTES * queues + count * RECORD_BYTES_MIN > end or not count:
        raise MalformedCommand
    if queues == 1:
        return ticket, count, TICKET.unpack_from(data, first_uid)
    return ticket, count, struct.unpack_from(f">{queues}Q", data, first_uid)


def decode_enqueue_with(data: bytes, body: int, end: int) -> tuple[int, int, tuple[int, ...], Options]:
    """Return (ticket, count, uids, options)."""
    ticket, count, uids = decode_enqueue(data, body, end)
    at = body + ENQUEUE_BODY.size + UID_BYTES * len(uids)
    start = at + OPTIONS_LENGTH.size
    if start + OPTIONS.size > end:
        raise MalformedCommand
    stop = start + OPTIONS_LENGTH.unpack_from(data, at)[0]
    *fixed, names = OPTIONS.unpack_from(data, start)
    at = start + OPTIONS.size
    dedup_ids = []
    if names not in (0, count) or stop + count * RECORD_BYTES_MIN > end:
        raise MalformedCommand
    for _ in range(names):
        first = at + 1
        at = first + data[at] if at < stop else end
        dedup_ids.append(data[first:at])
    if at != stop or not fixed[6] + count < 1 << 63:
        raise MalformedCommand
    return ticket, count, uids, Options._make((*fixed, tuple(dedup_ids)))


def body_sizes(data: bytes, offset: int, count: int) -> list[int]:
    """Return the bytes of the bodies of `count` records, the first at `offset`.

    Raises:
        MalformedCommand: the data ends before the records do.
    """
    sizes = []
    for _ in range(count):
        if offset + RECORD.size > len(data):
            raise MalformedCommand
        head_bytes, body_bytes = RECORD.unpack_from(data, offset)
        sizes.append(body_bytes)
        offset += RECORD.size + head_bytes + body_bytes
    if offset > len(data):
        raise MalformedCommand
    return sizes


def decode_pair(data: bytes, body: int, end: int) -> tuple[int, int]:
    """Return (ticket, uid | consumer | session) of purge, detach, close_session and probe, (ticket, value) of answer.

    Also (uid, last) of letters_done, and (consumer, window) of resize.
    """
    if end - body != TICKET_UID.size:
        raise MalformedCommand
    ticket, subject = TICKET_UID.unpack_from(data, body)
    return ticket, subject


def decode_one(data: bytes, body: int, end: int) -> int:
    """Return the ticket of fence, the uid of forget_source."""
    if end - body != TICKET.size:
        raise MalformedCommand
    (value,) = TICKET.unpack_from(data, body)
    return int(value)


def decode_create_queue(data: bytes, body: int, end: int) -> tuple[int, int, QueueConfig]:
    """Return (ticket, uid, config)."""
    if end - body < TICKET_UID.size:
        raise MalformedCommand
    ticket, uid = TICKET_UID.unpack_from(data, body)
    return ticket, uid, QueueConfig.decode(data[body + TICKET_UID.size : end])


def decode_delete_queue(data: bytes, body: int, end: int) -> tuple[int, int, bool, bool]:
    """Return (ticket, uid, if_unused, if_empty)."""
    if end - body != DELETE.size:
        raise MalformedCommand
    ticket, uid, flags = DELETE.unpack_from(data, body)
    return ticket, uid, bool(flags & 1), bool(flags & 2)


def decode_attach(data: bytes, body: int, end: int) -> tuple[int, int, int, int, int, int, int, int]:
    """Return (ticket, session, consumer, uid, prefetch, flags: 1 no_ack | 2 exclusive, priority, timeout_ms)."""
    if end - body != ATTACH.size:
        raise MalformedCommand
    ticket, session, consumer, uid, prefetch, flags, priority, timeout_ms = ATTACH.unpack_from(data, body)
    return ticket, session, consumer, uid, prefetch, flags & 3, priority, timeout_ms


def decode_get(data: bytes, body: int, end: int) -> tuple[int, int, int, int]:
    """Return (ticket, session, consumer, uid)."""
    if end - body != GET.size:
        raise MalformedCommand
    ticket, session, consumer, uid = GET.unpack_from(data, body)
    return ticket, session, consumer, uid


def decode_settle(data: bytes, body: int, end: int) -> tuple[int, tuple[int, ...]]:
    """Return (consumer, first and last id of each range, flat) of settle and discard."""
    if end - body < SETTLE.size:
        raise MalformedCommand
    consumer, count = SETTLE.unpack_from(data, body)
    return consumer, _unpack_ranges(data, body + SETTLE.size, end, count)


def decode_give_back(data: bytes, body: int, end: int) -> tuple[int, int, tuple[int, ...]]:
    """Return (consumer, failed or UNSENT, first and last id of each range, flat)."""
    if end - body < GIVE_BACK.size:
        raise MalformedCommand
    consumer, failed, count = GIVE_BACK.unpack_from(data, body)
    return consumer, failed, _unpack_ranges(data, body + GIVE_BACK.size, end, count)


def _unpack_ranges(data: bytes, offset: int, end: int, count: int) -> tuple[int, ...]:
    if end - offset != 16 * count:
        raise MalformedCommand
    return struct.unpack_from(f">{2 * count}Q", data, offset)
