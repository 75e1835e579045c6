"""What a queue group's log holds: the commands of the queue machine and their byte encoding.

The session layer builds commands here, on a message's way from the publisher to the log; the queue
machine reads them back in `apply`. An encoder returns parts that the host joins once, so that message
bodies are not copied in between. All integers are big-endian. A command is

    kind u8 | body length u32 | body

and is named by the offset of its kind octet in the entry's data. A body that makes no sense is ignored
by the machine; a kind it does not know stops it (`UnknownCommand`), because the group then speaks a
newer version. `session`, `consumer` and `ticket` are u64, chosen by the submitting node, unique
within its epoch; ticket 0 asks for no reply. `uid` names a queue (u64, from the topology).
"""

import struct
from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import NamedTuple

from node.broker.errors import UnknownCommand

Parts = tuple[bytes, ...]
"""A command in pieces, to be joined."""
Range = tuple[int, int]
"""First and last delivery id, both inclusive."""

CONFIG_VERSION = 1

_HEAD = struct.Struct(">BI")
_ENQUEUE = struct.Struct(">BIQIH")
_ENQUEUE_BODY = struct.Struct(">QIH")
_OPTIONS = struct.Struct(">BqqqQQH")
_OPTIONS_LENGTH = struct.Struct(">I")
_UID_BYTES = 8
_RECORD_BYTES_MIN = 8  # the two length fields of a packed record
_TICKET = struct.Struct(">Q")
_TICKET_UID = struct.Struct(">QQ")
_DELETE = struct.Struct(">QQB")
_ATTACH = struct.Struct(">QQQQIBi")
_GET = struct.Struct(">QQQQ")
_SETTLE = struct.Struct(">QI")
_GIVE_BACK = struct.Struct(">QBI")
PREFETCH_MAX = 0xFFFFFFFF


class Kind(IntEnum):
    """The kind octet of a command. Numbers are never used again for something else.

    1 was an enqueue whose records all had one exchange and routing key.
    """

    CREATE_QUEUE = 2
    DELETE_QUEUE = 3
    PURGE = 4
    ATTACH = 5
    DETACH = 6
    SETTLE = 7
    GIVE_BACK = 8
    DISCARD = 9
    GET = 10
    CLOSE_SESSION = 11
    TICK = 12
    ENQUEUE = 13
    ENQUEUE_WITH = 14
    FENCE = 15
    RESIZE = 18
    PROBE = 19
    ANSWER = 20


# An attribute of an enum costs a lookup, and these are asked for with each command.
_KIND_MIN = int(min(Kind))
_KIND_MAX = int(max(Kind))
_KIND_ENQUEUE = int(Kind.ENQUEUE)
_KIND_ENQUEUE_WITH = int(Kind.ENQUEUE_WITH)


_UNTICKETED = (Kind.SETTLE, Kind.GIVE_BACK, Kind.DISCARD, Kind.TICK, Kind.RESIZE, Kind.PROBE, Kind.ANSWER)
_TICKETED = frozenset(Kind) - frozenset(_UNTICKETED)
"""Kinds whose body starts with the ticket of a reply that the group itself gives."""


class MalformedCommand(ValueError):
    """A body that is no encoding of its kind; the machine ignores the command."""


class QueueConfig(NamedTuple):
    """What the machine is told about a queue when it is created.

    Args:
        durable: as declared; the machine treats all queues alike.
        exclusive: as declared; ownership is checked by the topology, not here.
        auto_delete: the queue ends when its last consumer goes.
        arguments: the declared arguments as an encoded field table; kept for what the machine does not
            do yet (limits, expiry, priorities).
    """

    durable: bool = True
    exclusive: bool = False
    auto_delete: bool = False
    arguments: bytes = b""

    def encode(self) -> bytes:
        """Return the canonical bytes for `create_queue`."""
        flags = self.durable | self.exclusive << 1 | self.auto_delete << 2
        return bytes((CONFIG_VERSION, flags)) + self.arguments

    @classmethod
    def decode(cls, data: bytes) -> "QueueConfig":
        """Read what `encode` wrote.

        Raises:
            MalformedCommand: the bytes are too short or of another version.
        """
        if len(data) < 2 or data[0] != CONFIG_VERSION or data[1] > 7:
            msg = "not a queue configuration"
            raise MalformedCommand(msg)
        flags = data[1]
        return cls(bool(flags & 1), bool(flags & 2), bool(flags & 4), data[2:])


class Options(NamedTuple):
    """What the properties of messages ask of their queues; the same for all messages of a command.

    Args:
        priority: 0 to 255; a queue without priorities ignores it.
        ttl_ms: the message's own time to live, -1: none.
        delay_ms: how long the message is kept back, 0: not at all.
        deliver_at_ms: when it may be delivered, in milliseconds since the epoch; 0: at once. The later one counts.
        source_uid: of a dead letter: the queue that it comes from, 0: this is none.
        source_seq: of a dead letter: its number in that queue, rising; one that does not rise came before.
        dedup_ids: x-dedup-id of each message, or empty; at most 255 bytes each.
    """

    priority: int = 0
    ttl_ms: int = -1
    delay_ms: int = 0
    deliver_at_ms: int = 0
    source_uid: int = 0
    source_seq: int = 0
    dedup_ids: tuple[bytes, ...] = ()


# --- encoders: what a node submits -------------------------------------------------------------------


def targets(uids: Sequence[int]) -> bytes:
    """The queues of an enqueue command, each once, all in its group."""
    return struct.pack(f">{len(uids)}Q", *uids)


def enqueue(ticket: int, uids: bytes, count: int, packed: Iterable[bytes]) -> Parts:
    """Put a run into queues; replies with the number of queues in `uids` that do not exist (0: all took it).

    Exchange and routing key stand in each record: the messages of a run go to the same queues, for whatever
    reason. Sizes of single messages are not part of the command: the machine counts messages, not bytes. Limits
    in bytes need them; a later version can carry `count` u32 sizes between the uids and the records,
    under a new kind, for the queues that have such a limit.

    Args:
        ticket: names the reply (the publisher's confirm follows from it).
        uids: made by `targets`.
        count: messages in the run, at least 1.
        packed: `count` records as `node.wire` packs them, in pieces.
    """
    body_bytes = _ENQUEUE_BODY.size + len(uids)
    for piece in packed:
        body_bytes += len(piece)
    head = _ENQUEUE.pack(_KIND_ENQUEUE, body_bytes, ticket, count, len(uids) // _UID_BYTES)
    return head + uids, *packed


def enqueue_with(ticket: int, uids: bytes, count: int, packed: Iterable[bytes], options: Options) -> Parts:
    """As `enqueue`, for messages that ask something of their queues.

    Both reply with `effects.Refused` where a full queue refused messages.
    """
    dedup = b"".join([bytes((len(name),)) + name for name in options.dedup_ids])
    extra = _OPTIONS.pack(*options[:6], len(options.dedup_ids)) + dedup
    body_bytes = _ENQUEUE_BODY.size + len(uids) + _OPTIONS_LENGTH.size + len(extra)
    for piece in packed:
        body_bytes += len(piece)
    head = _ENQUEUE.pack(_KIND_ENQUEUE_WITH, body_bytes, ticket, count, len(uids) // _UID_BYTES)
    return head + uids + _OPTIONS_LENGTH.pack(len(extra)) + extra, *packed


def create_queue(ticket: int, uid: int, config: bytes) -> Parts:
    """Create a queue unless the uid is there already; replies None.

    Args:
        ticket: names the reply.
        uid: of the queue.
        config: `QueueConfig.encode()`.
    """
    return _command(Kind.CREATE_QUEUE, _TICKET_UID.pack(ticket, uid) + config)


def delete_queue(ticket: int, uid: int, *, if_unused: bool, if_empty: bool) -> Parts:
    """Delete a queue; replies with its number of ready messages or a `Refusal`."""
    return _command(Kind.DELETE_QUEUE, _DELETE.pack(ticket, uid, if_unused | if_empty << 1))


def purge(ticket: int, uid: int) -> Parts:
    """Drop all ready messages, not those that consumers hold; replies with their number or a `Refusal`."""
    return _command(Kind.PURGE, _TICKET_UID.pack(ticket, uid))


def attach(
    ticket: int,
    session: int,
    consumer: int,
    uid: int,
    *,
    prefetch: int,
    no_ack: bool,
    exclusive: bool,
    priority: int,
) -> Parts:
    """Start a consumer; replies None or a `Refusal`.

    Args:
        ticket: names the reply.
        session: whose end ends the consumer.
        consumer: a new id.
        uid: of the queue.
        prefetch: messages held at once at most; 0: no limit. Not used with `no_ack`.
        no_ack: the window is fixed (`NO_ACK_WINDOW` messages); the session settles what it has written.
        exclusive: no other consumer may be there, now or later.
        priority: x-priority, higher first.
    """
    flags = no_ack | exclusive << 1
    limit = min(prefetch, PREFETCH_MAX)
    clamped = max(-(1 << 31), min(priority, (1 << 31) - 1))
    return _command(Kind.ATTACH, _ATTACH.pack(ticket, session, consumer, uid, limit, flags, clamped))


def detach(ticket: int, consumer: int) -> Parts:
    """Give a consumer no more messages; what it holds stays until it is settled. Replies None."""
    return _command(Kind.DETACH, _TICKET_UID.pack(ticket, consumer))


def settle(consumer: int, ranges: Sequence[Range]) -> Parts:
    """The consumer is done with these deliveries; ids it does not hold are ignored."""
    return _command(Kind.SETTLE, _SETTLE.pack(consumer, len(ranges)) + _pack_ranges(ranges))


def give_back(consumer: int, ranges: Sequence[Range], *, failed: bool) -> Parts:
    """These deliveries are ready again, in their old place, and count as redelivered.

    Args:
        consumer: who holds them.
        ranges: delivery ids.
        failed: the delivery counts as a failed attempt (it will count towards the delivery limit).
    """
    return _command(
        Kind.GIVE_BACK,
        _GIVE_BACK.pack(consumer, failed, len(ranges)) + _pack_ranges(ranges),
    )


def discard(consumer: int, ranges: Sequence[Range]) -> Parts:
    """The consumer refuses these deliveries for good (reject or nack without requeue)."""
    return _command(Kind.DISCARD, _SETTLE.pack(consumer, len(ranges)) + _pack_ranges(ranges))


def get(ticket: int, session: int, consumer: int, uid: int) -> Parts:
    """Take one message (basic.get); replies None (empty), a `GetResult` or a `Refusal`.

    Args:
        ticket: names the reply.
        session: whose end returns the message.
        consumer: id that holds the message until it is settled; not that of an attached consumer. It is
            forgotten when it holds nothing, and its delivery ids then start from 1 again.
        uid: of the queue.
    """
    return _command(Kind.GET, _GET.pack(ticket, session, consumer, uid))


def close_session(ticket: int, session: int) -> Parts:
    """End a session: its consumers go, all that they hold is ready again. Replies None."""
    return _command(Kind.CLOSE_SESSION, _TICKET_UID.pack(ticket, session))


def tick() -> Parts:
    """Let the machine go on with work it put off (`Duties.unfinished`)."""
    return _command(Kind.TICK, b"")


def fence(ticket: int) -> Parts:
    """Nothing; replies None when all that was submitted before is done."""
    return _command(Kind.FENCE, _TICKET.pack(ticket))


def resize(consumer: int, prefetch: int) -> Parts:
    """From now on the consumer may hold `prefetch` messages (0: no limit); what it holds beyond stays with it."""
    return _command(Kind.RESIZE, _TICKET_UID.pack(consumer, prefetch))


def probe(ticket: int, uid: int) -> Parts:
    """Ask the owner of a memory group whether it has a queue; its node answers with `answer`."""
    return _command(Kind.PROBE, _TICKET_UID.pack(ticket, uid))


def answer(ticket: int, value: int) -> Parts:
    """The answer to `probe`, submitted to the memory group of the node that asked: 1 or 0."""
    return _command(Kind.ANSWER, _TICKET_UID.pack(ticket, value))


def tickets(parts: Parts) -> list[int]:
    """The tickets, not 0, of commands that were joined; each command begins with a part of its own."""
    found = []
    left = 0
    for part in parts:
        if left == 0:
            kind, length = _HEAD.unpack_from(part)
            left = _HEAD.size + length
            if kind in _TICKETED and (ticket := _TICKET.unpack_from(part, _HEAD.size)[0]):
                found.append(ticket)
        left -= len(part)
    return found


# --- decoders: what `apply` and the reader of an entry see -------------------------------------------


def frames(data: bytes, offset: int) -> list[tuple[int, int, int, int]]:
    """Split entry data into commands: (kind, command offset, body offset, end), in order.

    A command that is cut off at the end of the data is left out.

    Raises:
        UnknownCommand: a kind that is not in `Kind`.
    """
    found = []
    size = len(data)
    unpack = _HEAD.unpack_from
    while offset < size:
        if not _KIND_MIN <= data[offset] <= _KIND_MAX:
            msg = f"command kind {data[offset]} at offset {offset}"
            raise UnknownCommand(msg)
        if size - offset < _HEAD.size:
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
    kind = data[command_offset] if len(data) - command_offset >= _ENQUEUE.size else 0
    if kind not in (_KIND_ENQUEUE, _KIND_ENQUEUE_WITH):
        msg = f"no enqueue command at offset {command_offset}"
        raise MalformedCommand(msg)
    _, length, _, count, queues = _ENQUEUE.unpack_from(data, command_offset)
    records = command_offset + _ENQUEUE.size + _UID_BYTES * queues
    if kind == _KIND_ENQUEUE_WITH:
        records += _OPTIONS_LENGTH.size + _OPTIONS_LENGTH.unpack_from(data, records)[0]
    if records + count * _RECORD_BYTES_MIN > command_offset + _HEAD.size + length or not count:
        msg = f"enqueue command at offset {command_offset} does not add up"
        raise MalformedCommand(msg)
    return records, count


def decode_enqueue(data: bytes, body: int, end: int) -> tuple[int, int, tuple[int, ...]]:
    """Return (ticket, count, uids).

    Args:
        data: of the entry.
        body: where the body of the command starts.
        end: where it ends.

    Raises:
        MalformedCommand: the body is no such command; so do all decoders below.
    """
    if end - body < _ENQUEUE_BODY.size:
        raise MalformedCommand
    ticket, count, queues = _ENQUEUE_BODY.unpack_from(data, body)
    first_uid = body + _ENQUEUE_BODY.size
    # Each record has its two lengths at least, so a count that cannot be true shows without a look at them.
    if first_uid + _UID_BYTES * queues + count * _RECORD_BYTES_MIN > end or not count:
        raise MalformedCommand
    if queues == 1:
        return ticket, count, _TICKET.unpack_from(data, first_uid)
    return ticket, count, struct.unpack_from(f">{queues}Q", data, first_uid)


def decode_enqueue_with(data: bytes, body: int, end: int) -> tuple[int, int, tuple[int, ...], Options]:
    """Return (ticket, count, uids, options)."""
    ticket, count, uids = decode_enqueue(data, body, end)
    at = body + _ENQUEUE_BODY.size + _UID_BYTES * len(uids)
    start = at + _OPTIONS_LENGTH.size
    if start + _OPTIONS.size > end:
        raise MalformedCommand
    stop = start + _OPTIONS_LENGTH.unpack_from(data, at)[0]
    *fixed, names = _OPTIONS.unpack_from(data, start)
    at = start + _OPTIONS.size
    dedup_ids = []
    if names not in (0, count) or stop + count * _RECORD_BYTES_MIN > end:
        raise MalformedCommand
    for _ in range(names):
        first = at + 1
        at = first + data[at] if at < stop else end
        dedup_ids.append(data[first:at])
    if at != stop:
        raise MalformedCommand
    return ticket, count, uids, Options(*fixed, tuple(dedup_ids))


def decode_one(data: bytes, body: int, end: int) -> int:
    """Return the ticket of fence."""
    if end - body != _TICKET.size:
        raise MalformedCommand
    (value,) = _TICKET.unpack_from(data, body)
    return int(value)


def decode_pair(data: bytes, body: int, end: int) -> tuple[int, int]:
    """Return both numbers: of purge, detach and close_session the ticket comes first; else see the encoder."""
    if end - body != _TICKET_UID.size:
        raise MalformedCommand
    ticket, subject = _TICKET_UID.unpack_from(data, body)
    return ticket, subject


def decode_create_queue(data: bytes, body: int, end: int) -> tuple[int, int, QueueConfig]:
    """Return (ticket, uid, config)."""
    if end - body < _TICKET_UID.size:
        raise MalformedCommand
    ticket, uid = _TICKET_UID.unpack_from(data, body)
    return ticket, uid, QueueConfig.decode(data[body + _TICKET_UID.size : end])


def decode_delete_queue(data: bytes, body: int, end: int) -> tuple[int, int, bool, bool]:
    """Return (ticket, uid, if_unused, if_empty)."""
    if end - body != _DELETE.size:
        raise MalformedCommand
    ticket, uid, flags = _DELETE.unpack_from(data, body)
    return ticket, uid, bool(flags & 1), bool(flags & 2)


def decode_attach(data: bytes, body: int, end: int) -> tuple[int, int, int, int, int, int, int]:
    """Return (ticket, session, consumer, uid, prefetch, flags: 1 no_ack | 2 exclusive, priority)."""
    if end - body != _ATTACH.size:
        raise MalformedCommand
    ticket, session, consumer, uid, prefetch, flags, priority = _ATTACH.unpack_from(data, body)
    return ticket, session, consumer, uid, prefetch, flags & 3, priority


def decode_get(data: bytes, body: int, end: int) -> tuple[int, int, int, int]:
    """Return (ticket, session, consumer, uid)."""
    if end - body != _GET.size:
        raise MalformedCommand
    ticket, session, consumer, uid = _GET.unpack_from(data, body)
    return ticket, session, consumer, uid


def decode_settle(data: bytes, body: int, end: int) -> tuple[int, tuple[int, ...]]:
    """Return (consumer, first and last id of each range, flat) of settle and discard."""
    if end - body < _SETTLE.size:
        raise MalformedCommand
    consumer, count = _SETTLE.unpack_from(data, body)
    return consumer, _unpack_ranges(data, body + _SETTLE.size, end, count)


def decode_give_back(data: bytes, body: int, end: int) -> tuple[int, bool, tuple[int, ...]]:
    """Return (consumer, failed, first and last id of each range, flat)."""
    if end - body < _GIVE_BACK.size:
        raise MalformedCommand
    consumer, failed, count = _GIVE_BACK.unpack_from(data, body)
    return consumer, bool(failed), _unpack_ranges(data, body + _GIVE_BACK.size, end, count)


def _command(kind: Kind, body: bytes) -> Parts:
    return (_HEAD.pack(kind, len(body)) + body,)


def _pack_ranges(ranges: Sequence[Range]) -> bytes:
    return b"".join([_TICKET_UID.pack(first, last) for first, last in ranges])


def _unpack_ranges(data: bytes, offset: int, end: int, count: int) -> tuple[int, ...]:
    if end - offset != 16 * count:
        raise MalformedCommand
    return struct.unpack_from(f">{2 * count}Q", data, offset)
