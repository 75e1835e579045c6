"""The runs of a queue that wait for their time: near ones in a heap, the many far ones packed by the minute.

A message scheduled for next week costs its packed bytes until its minute comes. How runs are divided between the two
is no part of the state: it shows nowhere.
"""

import struct
from collections.abc import Iterator
from heapq import heappop, heappush

from node.broker.runs import PLAIN, Run

Item = tuple[int, Run]
"""When a run is due, in ms since the epoch, and the run."""

BUCKET_SHIFT = 16
"""A bucket spans 2 ** BUCKET_SHIFT ms, about a minute."""

_PACKED = struct.Struct(">QQIIIHHBQI")


class Delayed:
    """See the module."""

    __slots__ = ("_buckets", "_far", "_horizon", "_near", "count")

    def __init__(self) -> None:
        self.count = 0  # messages
        self._near: list[Item] = []  # a heap of all that is due before the bucket `_horizon` begins
        self._horizon = 0
        self._far: dict[int, bytearray] = {}
        self._buckets: list[int] = []  # a heap of the numbers of the far ones

    def __iter__(self) -> Iterator[Item]:
        """All, in no order."""
        yield from self._near
        for packed in self._far.values():
            yield from _unpacked(packed)

    def add(self, due: int, run: Run) -> None:
        """Take a run in."""
        self.count += run[3]
        number = due >> BUCKET_SHIFT
        if number < self._horizon:
            heappush(self._near, (due, run))
            return
        bucket = self._far.get(number)
        if bucket is None:
            bucket = self._far[number] = bytearray()
            heappush(self._buckets, number)
        bucket += _PACKED.pack(due, *run[:6], *run[6])

    def next_due(self) -> int:
        """When something may be due, 0: never. It may be early, never late."""
        if self._near:
            return self._near[0][0]
        return max(self._buckets[0] << BUCKET_SHIFT, 1) if self._buckets else 0

    def take(self, now: int) -> Item | None:
        """Remove and return what is due first, if it is due."""
        while self._buckets and self._buckets[0] << BUCKET_SHIFT <= now:
            number = heappop(self._buckets)
            self._horizon = number + 1
            for item in _unpacked(self._far.pop(number)):
                heappush(self._near, item)
        if not self._near or self._near[0][0] > now:
            return None
        due, run = heappop(self._near)
        self.count -= run[3]
        return due, run


def _unpacked(packed: bytearray) -> Iterator[Item]:
    for due, index, offset, first, count, returns, failures, *rest in _PACKED.iter_unpack(packed):
        traits = (rest[0], rest[1], rest[2])
        yield due, (index, offset, first, count, returns, failures, traits if traits != PLAIN else PLAIN)
