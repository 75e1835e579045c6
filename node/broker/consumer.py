"""A consumer of a queue as the queue machine keeps it: what it may hold, and what it holds."""

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from node.broker.runs import PLAIN, Run, first_part, last_part

Held = tuple[int, Run]
"""First delivery id, run: delivery `first_id + k` is record `first_record + k`."""
Key = tuple[int, int]
"""Origin node and an id (of a session or a consumer) that it made."""

HELD_SHIFT = 10
"""What a consumer holds is kept, and saved, in chunks of 2 ** HELD_SHIFT delivery ids: settling one delivery
of a million moves and rewrites one chunk."""

_NO_RUN: Run = (-1, 0, 0, 0, 0, 0, PLAIN)


@dataclass(slots=True, eq=False)
class Consumer:
    """A consumer of a queue, or the holder of a basic.get: not attached from the start.

    One that is not attached and holds nothing is forgotten.
    """

    key: Key
    session: Key
    window: int  # most messages it may hold; 0 for a holder of basic.get
    attached: bool
    no_ack: bool = False
    exclusive: bool = False
    priority: int = 0
    timeout_ms: int = 0  # how long it may hold a message; 0: as long as it wants
    number: int = 0  # counts the consumers that were attached to the queue
    next_id: int = 1
    unacked: int = 0
    is_in_service: bool = False  # stands in the queue's `service`
    chunks: dict[int, list[Held]] = field(default_factory=dict)  # ascending numbers, each list ascending ids
    dirty_chunks: dict[int, None] = field(default_factory=dict)
    given: deque[tuple[int, int]] = field(default_factory=deque)  # (first delivery id, when), with a timeout

    def hold(self, run: Run) -> int:
        """Take a run over; returns the delivery id of its first message."""
        first_id = self.next_id
        self.next_id = end = first_id + run[3]
        self.unacked += run[3]
        start = first_id
        # A slice never crosses a chunk, so that one id is always found in the chunk of its number.
        while (end - 1) >> HELD_SHIFT != start >> HELD_SHIFT:
            size = (((start >> HELD_SHIFT) + 1) << HELD_SHIFT) - start
            self._append(start, first_part(run, size))
            run = last_part(run, size)
            start += size
        self._append(start, run)
        return first_id

    def release(self, first: int, last: int) -> list[Run]:
        """Let go of the deliveries `first..last`; returns what it held of them, in id order."""
        first = max(first, 1)
        last = min(last, self.next_id - 1)
        low, high = first >> HELD_SHIFT, last >> HELD_SHIFT
        released: list[Run] = []
        # A range from a client may span any ids: the work is bounded by what is held.
        numbers: Iterable[int]
        if high - low < len(self.chunks):
            numbers = range(low, high + 1)
        else:
            numbers = [number for number in self.chunks if low <= number <= high]
        for number in numbers:
            held = self.chunks.get(number)
            if held is None:
                continue
            part = _cut(held, first, last)
            if part:
                released += part
                self.dirty_chunks[number] = None
                if not held:
                    del self.chunks[number]
        for run in released:
            self.unacked -= run[3]
        return released

    def mark(self, first_id: int, now: int) -> None:
        """Note when deliveries from `first_id` on were given to it."""
        if not self.given or self.given[-1][1] != now:
            self.given.append((first_id, now))

    def deadline(self) -> int:
        """Return when it must have settled the oldest delivery that it holds; 0: it may keep all."""
        given = self.given
        if not self.unacked:
            given.clear()
        if not given:
            return 0
        oldest = next(iter(self.chunks.values()))[0][0]
        while len(given) > 1 and given[1][0] <= oldest:
            given.popleft()
        return given[0][1] + self.timeout_ms

    def _append(self, first_id: int, run: Run) -> None:
        number = first_id >> HELD_SHIFT
        self.dirty_chunks[number] = None
        chunk = self.chunks.get(number)
        if chunk is None:
            self.chunks[number] = [(first_id, run)]
        else:
            chunk.append((first_id, run))


def _cut(held: list[Held], first: int, last: int) -> list[Run]:
    """Remove ids `first..last` from a chunk and return their runs; slices that stick out are split."""
    start = bisect_left(held, (first, _NO_RUN))
    if start and held[start - 1][0] + held[start - 1][1][3] > first:
        start -= 1
    stop = bisect_left(held, (last + 1, _NO_RUN), start)
    if start >= stop:
        return []
    part = held[start:stop]
    kept: list[Held] = []
    head_id, run = part[0]
    if head_id < first:
        kept.append((head_id, first_part(run, first - head_id)))
        part[0] = (first, last_part(run, first - head_id))
    tail_id, run = part[-1]
    if tail_id + run[3] > last + 1:
        size = last + 1 - tail_id
        part[-1] = (tail_id, first_part(run, size))
        kept.append((last + 1, last_part(run, size)))
    held[start:stop] = kept
    return [run for _, run in part]
