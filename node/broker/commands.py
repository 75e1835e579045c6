"""What a queue group's log holds: the commands of the queue machine and their byte encoding.

The session layer builds commands here, on a message's way from the publisher to the log; the queue
machine reads them back in `apply` (`node.broker.commands_read`). An encoder returns parts that the host
joins once, so that message bodies are not copied in between. All integers are big-endian. A command is

    kind u8 | body length u32 | body

and is named by the offset of its kind octet in the entry's data. A body that makes no sense is ignored
by the machine; a kind it does not know stops it (`errors.UnknownCommand`), because the group then speaks a
newer version. `session`, `consumer` and `ticket` are u64, chosen by the submitting node, unique
within its epoch; ticket 0 asks for no reply. `uid` names a queue (u64, from the topology).
"""

import struct
from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import NamedTuple

Parts = tuple[bytes, ...]
"""A command in pieces, to be joined."""
Range = tuple[int, int]
"""First and last delivery id, both inclusive."""

CONFIG_VERSION = 1

HEAD = struct.Struct(">BI")
ENQUEUE = struct.Struct(">BIQIH")
ENQUEUE_BODY = struct.Struct(">QIH")
OPTIONS = struct.Struct(">BqqqQQQH")
OPTIONS_LENGTH = struct.Struct(">I")
UID_BYTES = 8
RECORD = struct.Struct(">II")  # bytes of head and body of a packed record
RECORD_BYTES_MIN = RECORD.size
TICKET = struct.Struct(">Q")
TICKET_UID = struct.Struct(">QQ")
DELETE = struct.Struct(">QQB")
ATTACH = struct.Struct(">QQQQIBiQ")
GET = struct.Struct(">QQQQ")
SETTLE = struct.Struct(">QI")
GIVE_BACK = struct.Struct(">QBI")
_PREFETCH_MAX = 0xFFFFFFFF


UNSENT = 2
"""What stands for `failed` in a GIVE_BACK of deliveries that were never sent."""
UNLIMITED_WINDOW = 1 << 62
"""The window of who may hold any number: no limit that anybody could reach."""


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
    LETTERS_DONE = 16
    FORGET_SOURCE = 17
    RESIZE = 18
    PROBE = 19
    ANSWER = 20


# An attribute of an enum costs a lookup, and these are asked for with each command.
KIND_MIN = int(min(Kind))
KIND_MAX = int(max(Kind))
KIND_ENQUEUE = int(Kind.ENQUEUE)
KIND_ENQUEUE_WITH = int(Kind.ENQUEUE_WITH)


_UNTICKETED = frozenset(
    (
        *(
            Kind.SETTLE,
            Kind.GIVE_BACK,
            Kind.DISCARD,
            Kind.RESIZE,
            Kind.TICK,
            Kind.LETTERS_DONE,
            Kind.FORGET_SOURCE,
        ),
        *(Kind.PROBE, Kind.ANSWER),  # theirs is not for the group to answer
    )
)
"""Kinds whose body does not start with the ticket of a reply that the group itself gives."""


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
        source_low: of a dead letter: all letters of that queue with a number below this one are settled.
        source_seq: of a dead letter: its number in that queue; the further ones of a command follow without gaps.
        dedup_ids: x-dedup-id of each message, or empty; at most 255 bytes each.
    """

    priority: int = 0
    ttl_ms: int = -1
    delay_ms: int = 0
    deliver_at_ms: int = 0
    source_uid: int = 0
    source_low: int = 0
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
    body_bytes = ENQUEUE_BODY.size + len(uids)
    for piece in packed:
        body_bytes += len(piece)
    head = ENQUEUE.pack(KIND_ENQUEUE, body_bytes, ticket, count, len(uids) // UID_BYTES)
    return head + uids, *packed


def enqueue_with(ticket: int, uids: bytes, count: int, packed: Iterable[bytes], options: Options) -> Parts:
    """As `enqueue`, for messages that ask something of their queues.

    Both reply with `effects.Refused` where a full queue refused messages.
    """
    dedup = b"".join([bytes((len(name),)) + name for name in options.dedup_ids])
    extra = OPTIONS.pack(*options[:7], len(options.dedup_ids)) + dedup
    body_bytes = ENQUEUE_BODY.size + len(uids) + OPTIONS_LENGTH.size + len(extra)
    for piece in packed:
        body_bytes += len(piece)
    head = ENQUEUE.pack(KIND_ENQUEUE_WITH, body_bytes, ticket, count, len(uids) // UID_BYTES)
    return head + uids + OPTIONS_LENGTH.pack(len(extra)) + extra, *packed


def create_queue(ticket: int, uid: int, config: bytes) -> Parts:
    """Create a queue unless the uid is there already; replies None.

    Args:
        ticket: names the reply.
        uid: of the queue.
        config: `QueueConfig.encode()`.
    """
    return _command(Kind.CREATE_QUEUE, TICKET_UID.pack(ticket, uid) + config)


def delete_queue(ticket: int, uid: int, *, if_unused: bool, if_empty: bool) -> Parts:
    """Delete a queue; replies with its number of ready messages or a `Refusal`."""
    return _command(Kind.DELETE_QUEUE, DELETE.pack(ticket, uid, if_unused | if_empty << 1))


def purge(ticket: int, uid: int) -> Parts:
    """Drop all ready messages, not those that consumers hold; replies with their number or a `Refusal`."""
    return _command(Kind.PURGE, TICKET_UID.pack(ticket, uid))


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
    timeout_ms: int = 0,
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
        timeout_ms: how long it may hold a message; 0: as the queue says.
    """
    flags = no_ack | exclusive << 1
    limit = min(prefetch, _PREFETCH_MAX)
    clamped = max(-(1 << 31), min(priority, (1 << 31) - 1))
    return _command(
        Kind.ATTACH, ATTACH.pack(ticket, session, consumer, uid, limit, flags, clamped, timeout_ms)
    )


def detach(ticket: int, consumer: int) -> Parts:
    """Give a consumer no more messages; what it holds stays until it is settled. Replies None."""
    return _command(Kind.DETACH, TICKET_UID.pack(ticket, consumer))


def settle(consumer: int, ranges: Sequence[Range]) -> Parts:
    """The consumer is done with these deliveries; ids it does not hold are ignored."""
    return _command(Kind.SETTLE, SETTLE.pack(consumer, len(ranges)) + _pack_ranges(ranges))


def give_back(consumer: int, ranges: Sequence[Range], *, failed: bool) -> Parts:
    """These deliveries are ready again, in their old place, and count as redelivered.

    Args:
        consumer: who holds them.
        ranges: delivery ids.
        failed: the delivery counts as a failed attempt (it will count towards the delivery limit).
    """
    return _command(
        Kind.GIVE_BACK,
        GIVE_BACK.pack(consumer, failed, len(ranges)) + _pack_ranges(ranges),
    )


def unsent(consumer: int, ranges: Sequence[Range]) -> Parts:
    """These deliveries never went to the client: they are ready again, and no attempt was made.

    They count as redelivered all the same, for others may have got later messages by then (AMQP 0-9-1, 4.7).
    """
    return _command(Kind.GIVE_BACK, GIVE_BACK.pack(consumer, UNSENT, len(ranges)) + _pack_ranges(ranges))


def discard(consumer: int, ranges: Sequence[Range]) -> Parts:
    """The consumer refuses these deliveries for good (reject or nack without requeue)."""
    return _command(Kind.DISCARD, SETTLE.pack(consumer, len(ranges)) + _pack_ranges(ranges))


def get(ticket: int, session: int, consumer: int, uid: int) -> Parts:
    """Take one message (basic.get); replies None (empty), a `GetResult` or a `Refusal`.

    Args:
        ticket: names the reply.
        session: whose end returns the message.
        consumer: id that holds the message until it is settled; not that of an attached consumer. It is
            forgotten when it holds nothing, and its delivery ids then start from 1 again.
        uid: of the queue.
    """
    return _command(Kind.GET, GET.pack(ticket, session, consumer, uid))


def close_session(ticket: int, session: int) -> Parts:
    """End a session: its consumers go, all that they hold is ready again. Replies None."""
    return _command(Kind.CLOSE_SESSION, TICKET_UID.pack(ticket, session))


def tick() -> Parts:
    """Let the machine go on with work it put off (`Duties.unfinished`), or do what is due."""
    return _command(Kind.TICK, b"")


def fence(ticket: int) -> Parts:
    """Nothing; replies None when all that was submitted before is done."""
    return _command(Kind.FENCE, TICKET.pack(ticket))


def resize(consumer: int, window: int) -> Parts:
    """From now on the consumer may hold `window` messages, none being the least; what it holds beyond stays with it."""
    return _command(Kind.RESIZE, TICKET_UID.pack(consumer, window))


def probe(ticket: int, uid: int) -> Parts:
    """Ask the owner of a memory group whether it has a queue; its node answers with `answer`."""
    return _command(Kind.PROBE, TICKET_UID.pack(ticket, uid))


def answer(ticket: int, value: int) -> Parts:
    """The answer to `probe`, submitted to the memory group of the node that asked: 1 or 0."""
    return _command(Kind.ANSWER, TICKET_UID.pack(ticket, value))


def tickets(parts: Parts) -> list[int]:
    """The tickets, not 0, of commands that were joined; each command begins with a part of its own."""
    found = []
    left = 0
    for part in parts:
        if left == 0:
            kind, length = HEAD.unpack_from(part)
            left = HEAD.size + length
            if kind not in _UNTICKETED and (ticket := TICKET.unpack_from(part, HEAD.size)[0]):
                found.append(ticket)
        left -= len(part)
    return found


def letters_done(uid: int, last: int) -> Parts:
    """The dead letters of a queue up to number `last` are where they belong."""
    return _command(Kind.LETTERS_DONE, TICKET_UID.pack(uid, last))


def forget_source(uid: int) -> Parts:
    """The queue `uid`, which sent dead letters here, is no more, and none of its letters is under way."""
    return _command(Kind.FORGET_SOURCE, TICKET.pack(uid))


def _command(kind: Kind, body: bytes) -> Parts:
    return (HEAD.pack(kind, len(body)) + body,)


def _pack_ranges(ranges: Sequence[Range]) -> bytes:
    return b"".join([TICKET_UID.pack(first, last) for first, last in ranges])
