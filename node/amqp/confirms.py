"""Publisher confirms of one channel: gathered through a turn, told in as few basic.ack and basic.nack as can
be.

`multiple` settles at the client everything up to a number that it still waits for, so it may stand only where
nothing
below that number is open: the gathered numbers that follow on from the lowest open one are told as ranges,
those beyond a gap one by one. They are not held back, because the gap may last as long as a shard has no
leader.
"""

import struct
from bisect import bisect_left
from typing import Final

_FRAME: Final = struct.Struct(">BHIHHQBB")
_PAYLOAD_BYTES: Final = 13
_BASIC: Final = 60
_ACK: Final = 80
_NACK: Final = 120
_REQUEUE: Final = 2


class Confirms:
    """The confirm sequence of one channel in confirm mode.

    Attributes:
        next_seq: number that the next published message gets; from 1.
        channel: number of the channel, for the frames.
    """

    __slots__ = ("_gathered", "_settled", "_told", "channel", "next_seq")

    def __init__(self, channel: int) -> None:
        self.channel = channel
        self.next_seq = 1
        self._settled = 0  # every number up to it was told
        self._told: list[
            tuple[int, int]
        ] = []  # (first, last) told above it, ascending, disjoint, never adjacent
        self._gathered: list[tuple[int, int, bool]] = []

    @property
    def open_count(self) -> int:
        """Messages whose confirm has not been told, those gathered included."""
        return self.next_seq - 1 - self._settled - sum(last - first + 1 for first, last in self._told)

    def number(self, count: int) -> int:
        """Take the numbers for `count` published messages; the first of them."""
        first_seq = self.next_seq
        self.next_seq += count
        return first_seq

    def gather(self, ranges: list[tuple[int, int]], *, ok: bool) -> bool:
        """Note that messages are settled, each once; true where they are the first of this turn."""
        gathered = self._gathered
        is_first = not gathered
        for first_seq, last_seq in ranges:
            assert self._settled < first_seq, "told before"
            assert last_seq < self.next_seq, "not yet published"
            gathered.append((first_seq, last_seq, ok))
        return is_first

    def frames(self) -> bytes:
        """The frames for all that was gathered since the last call."""
        gathered = self._gathered
        if not gathered:
            return b""
        if len(gathered) > 1:
            gathered.sort()
        self._gathered = []
        parts: list[bytes] = []
        beyond = self._tell_ranges(gathered, parts)
        for first, last, ok in gathered[beyond:]:
            self._remember(first, last)
            parts.extend([self._frame(seq, ok=ok, multiple=False) for seq in range(first, last + 1)])
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _tell_ranges(self, gathered: list[tuple[int, int, bool]], parts: list[bytes]) -> int:
        """Tell what follows on from the lowest open number; the index of the first of `gathered` beyond a
        gap.
        """
        at = 0
        while at < len(gathered) and gathered[at][0] == self._settled + 1:
            ok = gathered[at][2]
            open_count = last_open = 0
            while at < len(gathered) and gathered[at][0] == self._settled + 1 and gathered[at][2] is ok:
                first, last_open, _ = gathered[at]
                open_count += last_open - first + 1
                self._settled = last_open
                self._close_gap()
                at += 1
            parts.append(self._frame(last_open, ok=ok, multiple=open_count > 1))
        return at

    def _close_gap(self) -> None:
        """Move the settled mark over what was told before and now adjoins it."""
        if self._told and self._told[0][0] == self._settled + 1:
            self._settled = self._told.pop(0)[1]

    def _remember(self, first: int, last: int) -> None:
        """Add a range to what was told beyond the gap, joined with its neighbours."""
        told = self._told
        at = bisect_left(told, (first, last))
        if at < len(told) and told[at][0] == last + 1:
            last = told.pop(at)[1]
        if at > 0 and told[at - 1][1] == first - 1:
            at -= 1
            first = told.pop(at)[0]
        told.insert(at, (first, last))

    def _frame(self, seq: int, *, ok: bool, multiple: bool) -> bytes:
        # basic.ack and basic.nack share a layout: the tag, then bits. `requeue` means nothing to a publisher, but
        # clients know its default, true, from RabbitMQ.
        method_id = _ACK if ok else _NACK
        bits = multiple if ok else multiple | _REQUEUE
        return _FRAME.pack(1, self.channel, _PAYLOAD_BYTES, _BASIC, method_id, seq, bits, 0xCE)
