"""basic.deliver and basic.get-ok: slices of runs become frames, when the client's socket has room for them.

What does not fit waits as slices, which are references into the log: a slow client costs no bodies in memory.
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


class Consumer:
    """A consumer of a client of this node.

    Args:
        consumer_id: its name in the group.
        channel: where it was started.
        tag: its name on the channel.
        group: where its queue lives.
        no_ack: True: what is written to the socket is settled.
        window: messages that the group assigns to it before it settles some; 0: no bound.
    """

    __slots__ = ("_held", "_owed", "backlog", "channel", "group", "head", "id", "no_ack", "tag", "window")

    def __init__(
        self, consumer_id: int, channel: "ChannelSession", tag: str, group: int, *, no_ack: bool, window: int
    ) -> None:
        self.id = consumer_id
        self.channel = channel
        self.tag = tag
        self.group = group
        self.no_ack = no_ack
        self.window = window
        self._held = 0  # deliveries that the group was not urgently told to be settled
        self._owed = 0  # of these, settled by the client
        name = tag.encode()
        self.head = _DELIVER + bytes((len(name),)) + name
        self.backlog: deque[Slice] = deque()

    def delivered(self, count: int) -> None:
        """The group has assigned `count` more to it."""
        self._held += count

    def can_wait(self, count: int) -> bool:
        """Whether the group may be told later that `count` more are settled: half of the window is open as it is."""
        self._owed += count
        if not self.window or self._held * 2 < self.window:
            return True
        self._held -= self._owed
        self._owed = 0
        return False


def deliver(consumer: Consumer, slices: "list[Slice]") -> None:
    """Write what there is room for, in order; the rest waits."""
    consumer.backlog.extend(slices)
    consumer.delivered(sum([piece.count for piece in slices]))
    flush(consumer)


def flush(consumer: Consumer) -> None:
    """Write waiting slices while the socket takes more."""
    channel = consumer.channel
    session = channel.session
    backlog = consumer.backlog
    if channel.gone:
        # The end of its session returns them to the queue.
        backlog.clear()
    first_id = backlog[0].first_id if backlog else 0
    last_id = 0
    while backlog and session.room_bytes > 0 and session.writable:
        piece = backlog.popleft()
        last_id = piece.first_id + piece.count - 1
        tag = channel.amqp.record_delivery(consumer.id, piece.first_id, piece.count, no_ack=consumer.no_ack)
        _write(channel, consumer.group, piece, consumer.head, tag, b"")
    if last_id and consumer.no_ack:
        is_patient = consumer.can_wait(last_id - first_id + 1)
        session.node.submit(
            consumer.group, commands.settle(consumer.id, [(first_id, last_id)]), is_patient=is_patient
        )
    if backlog:
        session.stalled[consumer.id] = consumer
        if session.writable:
            session.shared.stalled[session.conn] = session
    else:
        session.stalled.pop(consumer.id, None)


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
