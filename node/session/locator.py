"""Where the records of a slice stand: from a machine's (entry, command, record number) to their frames.

A run is delivered in slices, as credit allows, and mostly in order. So for each of the runs read last the
place is kept where the slice before ended: the next one goes on from there.
"""

from typing import TYPE_CHECKING

from node.broker import commands_read
from node.wire import codec
from node.wire.primitives import Long
from node.wire.records import with_header

if TYPE_CHECKING:
    from node.broker.effects import Slice
    from node.session.ports import NodePort

_FLAG = (b"\x00", b"\x01")  # the bit `redelivered`

RUNS_MAX = 1024
"""How many runs' places are kept; the oldest is forgotten first."""


class Locator:
    """Finds records in entry data, for all consumers of a node, and has the codec write them."""

    __slots__ = ("_node", "_runs")

    def __init__(self, node: "NodePort") -> None:
        self._node = node
        # Where record 0 starts, and number and offset of the record that is probably asked for next.
        self._runs: dict[tuple[int, int, int], tuple[int, int, int]] = {}

    def frames(  # noqa: PLR0917 - called per slice: no object, no keywords
        self, group: int, piece: "Slice", channel: int, head: bytes, tag: int, more: bytes, frame_max: int
    ) -> bytes:
        """The messages of a slice as frames of basic.deliver or basic.get-ok.

        Args:
            group: whose entry the slice names.
            piece: what to write.
            channel: number of the client's channel.
            head: the method up to the delivery tag.
            tag: of the first message.
            more: the method's arguments after the routing key.
            frame_max: as negotiated.

        Raises:
            KeyError: the entry is gone.
        """
        index, command_offset, record, count, _, redelivered, attempts = piece
        flags = _FLAG[redelivered]
        data = self._node.entry_data(group, index)
        key = (group, index, command_offset)
        place = self._runs.get(key)
        if place is None:
            start, total = commands_read.enqueue_layout(data, command_offset)
            if count == total and not attempts:
                return codec.content_frames(data, start, count, channel, head, tag, flags, more, frame_max)[0]
            at, offset = 0, start
            if len(self._runs) >= RUNS_MAX:
                del self._runs[next(iter(self._runs))]
        else:
            start, at, offset = place
            if record < at:
                at, offset = 0, start
        if record > at:
            offset = codec.skip(data, offset, record - at)
        frames, end = codec.content_frames(data, offset, count, channel, head, tag, flags, more, frame_max)
        self._runs[key] = (start, record + count, end)
        if attempts:
            counted = with_header(data, offset, count, "x-delivery-count", Long(attempts))
            return codec.content_frames(counted, 0, count, channel, head, tag, flags, more, frame_max)[0]
        return frames
