"""basic.deliver and basic.get-ok: slices of runs become frames, when the client's socket has room for them.

What does not fit waits as slices, which are references into the log: a slow client costs no bodies in memory.

A group learns of an ack only when it is committed. A consumer that wants many messages at once is therefore
assigned more than it may hold; the rest waits here, and an ack lets it go out at once.

What a consumer without acks is sent is settled, but nobody waits for that: its group is told of many at once.
"""

import struct
from collections import deque
from typing import TYPE_CHECKING

from node.broker import commands
from node.errors import InternalError

if TYPE_CHECKING:
    from node.broker.effects import GetResult, Slice
    from node.session.channel import ChannelSession

_DELIVER = struct.pack(">HH", 60, 60)
_GET_OK = struct.pack(">HH", 60, 71)
_MESSAGE_COUNT = struct.Struct(">I")

READ_AHEAD_PREFETCH_MIN = 100
"""Who may hold so many is assigned as many again. Those who want few at a time share messages among them fairly, and
what one of them is assigned no other gets."""
SETTLED_BYTES_MAX = 256 << 10
"""What was sent to a consumer without acks and its group was not told of: until then the group keeps it."""
UNLIMITED = 1 << 62
"""The room where nothing bounds it."""


def window_of(prefetch: int) -> int:
    """Messages that a group assigns to a consumer before it settles some; 0: no bound."""
    return 2 * prefetch if prefetch >= READ_AHEAD_PREFETCH_MIN else prefetch


class Consumer:
    """A consumer of a client of this node.

    Args:
        consumer_id: its name in the group.
        channel: where it was started.
        tag: its name on the channel.
        group: where its queue lives.
        no_ack: True: what is written to the socket is settled.
        window: messages that the group assigns to it before it settles some; 0: no bound.
        prefetch: messages that the client may hold; 0: no bound.

    Attributes:
        unacked: sent to the client and not settled by it.
        backlog: assigned and not sent.
    """

    __slots__ = (
        "_held", "_owed", "_settled", "_settled_bytes",
        "backlog", "channel", "group", "head", "id", "no_ack", "prefetch", "tag", "unacked", "window",
    )  # fmt: skip

    def __init__(
        self,
        consumer_id: int,
        channel: "ChannelSession",
        tag: str,
        group: int,
        *,
        no_ack: bool,
        window: int,
        prefetch: int,
    ) -> None:
        self.id = consumer_id
        self.channel = channel
        self.tag = tag
        self.group = group
        self.no_ack = no_ack
        self.window = window
        self.prefetch = prefetch
        self.unacked = 0
        self._held = 0  # deliveries that the group was not urgently told to be settled
        self._owed = 0  # of these, settled by the client
        self._settled: tuple[int, int] | None = None  # sent without acks, and the group was not told
        self._settled_bytes = 0
        name = tag.encode()
        self.head = _DELIVER + bytes((len(name),)) + name
        self.backlog: deque[Slice] = deque()

    def assigned(self, count: int) -> None:
        """The group has assigned `count` more to it."""
        self._held += count

    @property
    def room(self) -> int:
        """How many more the client may hold."""
        if self.no_ack:
            return UNLIMITED
        room = self.prefetch - self.unacked if self.prefetch else UNLIMITED
        limit = self.channel.limit
        return room if limit is None else min(room, limit.room)

    def sent(self, count: int) -> None:
        """So many went to the client."""
        self.unacked += count
        if self.channel.limit is not None and not self.no_ack:
            self.channel.limit.sent(self.id, count)

    def settled(self, count: int) -> None:
        """The client has acknowledged, rejected or returned so many."""
        self.unacked -= count

    def can_wait(self, count: int) -> bool:
        """Whether the group may be told later that `count` more are settled: half of the window is open as it is."""
        self._owed += count
        if not self.window or self._held * 2 < self.window:
            return True
        self.told(0)
        return False

    def told(self, count: int) -> None:
        """The group is told now of `count` more that are settled or returned, and so of all before them."""
        self._held -= self._owed + count
        self._owed = 0

    def sent_for_good(self, first_id: int, last_id: int, size_bytes: int) -> None:
        """These went to a client that acknowledges nothing: they are settled."""
        # One range: to its group the consumer does not hold ids in between that were given back.
        self._settled = (self._settled[0] if self._settled else first_id, last_id)
        self._settled_bytes += size_bytes

    @property
    def has_settled_much(self) -> bool:
        """Whether what the group was not told of is too much to keep until the next tick."""
        return self._settled_bytes >= SETTLED_BYTES_MAX

    def take_settled(self) -> list[tuple[int, int]]:
        """The delivery ids that the group is to be told of."""
        settled, self._settled, self._settled_bytes = self._settled, None, 0
        return [settled] if settled else []

    def take_unsent(self, kept: int) -> list[tuple[int, int]]:
        """Take all from the backlog but `kept` messages; their delivery ids, to be given back."""
        ranges = []
        backlog, self.backlog = self.backlog, deque()
        for piece in backlog:
            if piece.count > kept:
                first_id = piece.first_id + kept
                ranges.append((first_id, piece.first_id + piece.count - 1))
                self.told(piece.count - kept)
                if kept:
                    self.backlog.append(piece._replace(count=kept))
                kept = 0
            else:
                self.backlog.append(piece)
                kept -= piece.count
        return ranges


def deliver(consumer: Consumer, slices: "list[Slice]") -> None:
    """Write what there is room for, in order; the rest waits."""
    consumer.backlog.extend(slices)
    consumer.assigned(sum([piece.count for piece in slices]))
    flush(consumer)


def flush(consumer: Consumer, count_max: int = UNLIMITED) -> bool:
    """Write waiting slices while the socket takes more and the client may hold more; whether any were written.

    Args:
        consumer: whose.
        count_max: messages to write at most.
    """
    channel = consumer.channel
    session = channel.session
    backlog = consumer.backlog
    if channel.gone:
        # The end of its session returns them to the queue.
        return False
    first_id = backlog[0].first_id if backlog else 0
    last_id = 0
    room_bytes = session.room_bytes
    room = min(consumer.room, count_max)
    while backlog and room > 0 and session.room_bytes > 0 and session.writable:
        piece = backlog.popleft()
        if piece.count > room:
            backlog.appendleft(_last_part(piece, room))
            piece = piece._replace(count=room)
        room -= piece.count
        consumer.sent(piece.count)
        last_id = piece.first_id + piece.count - 1
        tag = channel.amqp.record_delivery(consumer.id, piece.first_id, piece.count, no_ack=consumer.no_ack)
        _write(channel, consumer.group, piece, consumer.head, tag, b"")
    if last_id and consumer.no_ack:
        consumer.sent_for_good(first_id, last_id, room_bytes - session.room_bytes)
        if not consumer.can_wait(last_id - first_id + 1):
            settle_sent(consumer)
        elif consumer.has_settled_much:
            settle_sent(consumer, is_patient=True)
        else:
            session.shared.untold[consumer.id] = consumer
    if backlog and room > 0:
        session.stalled[consumer.id] = consumer
        if session.writable:
            session.shared.stalled[session.conn] = session
    else:
        session.stalled.pop(consumer.id, None)
    return last_id > 0


def settle_sent(consumer: Consumer, *, is_patient: bool = False) -> None:
    """Tell the group what was sent to a consumer without acks, if anything was."""
    session = consumer.channel.session
    session.shared.untold.pop(consumer.id, None)
    ranges = consumer.take_settled()
    if ranges:
        if not is_patient:
            consumer.told(0)
        session.node.submit(consumer.group, commands.settle(consumer.id, ranges), is_patient=is_patient)


def _last_part(piece: "Slice", skipped: int) -> "Slice":
    """A slice without its first `skipped` messages."""
    return piece._replace(
        first_record=piece.first_record + skipped,
        count=piece.count - skipped,
        first_id=piece.first_id + skipped,
    )


def send_got(
    channel: "ChannelSession", group: int, holder: int, result: "GetResult", *, no_ack: bool
) -> None:
    """Answer basic.get with the message."""
    piece = result.slice
    tag = channel.amqp.record_delivery(holder, piece.first_id, 1, no_ack=no_ack)
    _write(channel, group, piece, _GET_OK, tag, _MESSAGE_COUNT.pack(result.remaining))


def _write(  # noqa: PLR0917 - called per run: no object, no keywords
    channel: "ChannelSession", group: int, piece: "Slice", head: bytes, tag: int, more: bytes
) -> None:
    session = channel.session
    try:
        frames = session.shared.locator.frames(
            group, piece, channel.amqp.number, head, tag, more, session.amqp.frame_max
        )
    except KeyError:
        # A row stays while a message in it is held; without it nothing that follows can be trusted.
        session.fail(InternalError(f"entry {piece.index} of group {group} is missing"))
        return
    session.send_frames(channel, frames)
