"""The ready messages of a queue that have one priority: those never delivered, and those that came back.

What came back goes first, in its old order. Rows are keyed by positions: `queue_rows` saves what changed.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

from node.broker import packed
from node.broker.runs import Run, add_to_live, attempted, first_part, follows, joined, last_part


@dataclass(slots=True)
class SavedLane:
    """Which rows of a lane the store has: what an incremental checkpoint compares with."""

    ready_low: int = 0  # chunk numbers [ready_low, ready_high)
    ready_high: int = 0
    tail: int = 0  # the position after the last ready run that is saved
    returned: int = 0  # returned runs


@dataclass(slots=True, eq=False)
class Lane:
    """See the module. What was never delivered is `ready`, then `packed`, then `tail`; to it new runs are appended.

    Attributes:
        packed: plain runs as the store has them. While there are none, `tail` is `ready`.
        head: position of the next run among all runs ever put in: rows are keyed by it.
    """

    priority: int
    ready: deque[Run] = field(default_factory=deque)
    packed: deque[bytes] = field(default_factory=deque)
    tail: deque[Run] = field(init=False)
    head: int = 0
    returned: list[Run] = field(default_factory=list)  # newest first, so that the next is popped from the end
    is_head_taken: bool = False  # something left `ready` since the last checkpoint
    returned_kept: int = 0  # returned[:returned_kept] is as it was at the last checkpoint
    saved: SavedLane = field(default_factory=SavedLane)

    def __post_init__(self) -> None:
        self.tail = self.ready

    @property
    def is_empty(self) -> bool:
        """Nothing is ready."""
        return not (self.ready or self.returned or self.packed)

    @property
    def end(self) -> int:
        """The position after the last run that was put in."""
        behind = sum(map(packed.run_count, self.packed)) + len(self.tail) if self.packed else 0
        return self.head + len(self.ready) + behind

    def put_packed(self, runs: bytes) -> None:
        """Add plain runs at the end; nothing but such may have been put in before."""
        if not self.packed:
            self.tail = deque()
        self.packed.append(runs)

    def put_all(self, runs: list[Run]) -> None:
        """Add runs at the end."""
        self.tail.extend(runs)

    def _unpack(self) -> None:
        """Let `ready`, which is empty, have what follows."""
        self.ready.extend(packed.unpack_plain(self.packed.popleft()))
        if not self.packed:
            self.ready.extend(self.tail)
            self.tail = self.ready

    def next_run(self) -> Run | None:
        """Return the run that is next, None where there is none."""
        if self.returned:
            return self.returned[-1]
        if self.packed and not self.ready:
            self._unpack()
        return self.ready[0] if self.ready else None

    def take(self, limit: int) -> Run:
        """Remove and return the next run, at most `limit` (>= 1) messages of it; there must be one."""
        returned = self.returned
        if returned:
            run = returned.pop()
            if run[3] > limit:
                returned.append(last_part(run, limit))
                run = first_part(run, limit)
                self.returned_kept = min(self.returned_kept, len(returned) - 1)
            else:
                self.returned_kept = min(self.returned_kept, len(returned))
            return run
        self.is_head_taken = True
        if self.packed and not self.ready:
            self._unpack()
        run = self.ready[0]
        if run[3] > limit:
            self.ready[0] = last_part(run, limit)
            return first_part(run, limit)
        self.ready.popleft()
        self.head += 1
        return run

    def give_back(self, runs: list[Run]) -> None:
        """Make runs (ascending, not empty) ready again, in their old order."""
        batch = joined(runs)
        place = _place(self.returned, batch[-1])
        if len(batch) == 1:
            place = _insert(self.returned, place, batch[0])
        else:
            tail = self.returned[place:] + batch
            tail.sort(reverse=True)
            self.returned[place:] = tail
        self.returned_kept = min(self.returned_kept, place)

    def clear(self) -> list[Run]:
        """Forget all; returns the runs."""
        runs = list(self.runs())
        self.is_head_taken = True
        self.head += len(runs)
        runs += self.returned
        self.returned_kept = 0
        self.ready.clear()
        self.packed.clear()
        self.tail = self.ready
        self.returned.clear()
        return runs

    def runs(self) -> Iterator[Run]:
        """Yield what was never delivered, in its order."""
        yield from self.ready
        for chunk in self.packed:
            yield from packed.unpack_plain(chunk)
        if self.packed:
            yield from self.tail

    def last_runs(self, count: int) -> list[Run]:
        """Return the last `count` (>= 1) of what was never delivered, in its order."""
        runs = list(islice(reversed(self.tail), count))
        runs.reverse()
        for chunk in reversed(self.packed):
            if len(runs) >= count:
                break
            runs = packed.unpack_plain(chunk) + runs
        else:
            runs = [*self.ready, *runs] if self.packed else runs
        return runs[-count:]

    def add_to_live(self, live: dict[int, int]) -> None:
        """Add the messages that are ready to those that are alive, by log index."""
        for chunk in self.packed:
            for index, count in packed.references(chunk):
                live[index] = live.get(index, 0) + count
        add_to_live(live, self.ready)
        add_to_live(live, self.tail if self.packed else ())
        add_to_live(live, self.returned)


def returned_runs(runs: list[Run], *, failed: bool) -> list[Run]:
    """Return runs that come back now, ascending, each with one more return (and failure)."""
    return sorted([attempted(run, failed) for run in runs])


def _place(descending: list[Run], run: Run) -> int:
    """Return the position of the first run that is older than `run`."""
    low, high = 0, len(descending)
    while low < high:
        middle = (low + high) // 2
        if descending[middle] > run:
            low = middle + 1
        else:
            high = middle
    return low


def _insert(descending: list[Run], place: int, run: Run) -> int:
    """Insert a run, joined with its neighbours where it can be; returns the first position that changed."""
    start = stop = place
    if place and follows(run, descending[place - 1]):
        start -= 1
        run = first_part(run, run[3] + descending[start][3])
    if place < len(descending) and follows(descending[place], run):
        stop += 1
        run = first_part(descending[place], descending[place][3] + run[3])
    descending[start:stop] = [run]
    return start
