"""The state of one queue: ready runs, returned runs, and what each consumer holds.

The unit is a run: consecutive messages of one enqueue command. A run of a fanout is one tuple shared by all
its queues; a run is cut only where a consumer's credit or a settled range cuts it, always in O(1). Nothing
here produces effects; `queue_assignment` moves runs to consumers, `queue_rows` saves them. Every message is
in exactly one place: `Queue.ready`, `Queue.returned`, or a chunk of one `Consumer`.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from node.broker.commands import QueueConfig

Run = tuple[int, int, int, int, int, int]
"""Log index, command offset, first record, count, returns, failures. Tuples compare in publish order."""
Held = tuple[int, Run]
"""First delivery id, run: delivery `first_id + k` is record `first_record + k`."""
Key = tuple[int, int]
"""Origin node and an id (of a session or a consumer) that it made."""

HELD_SHIFT = 10
"""What a consumer holds is kept, and saved, in chunks of 2 ** HELD_SHIFT delivery ids: settling one delivery
of a million moves and rewrites one chunk."""
ATTEMPTS_MAX = 0xFFFF
"""Returns and failures stop counting here; limits are far below, and a row has 16 bits for each."""

_NO_RUN: Run = (-1, 0, 0, 0, 0, 0)


def first_part(run: Run, count: int) -> Run:
    """Return the first `count` messages of a run."""
    return (run[0], run[1], run[2], count, run[4], run[5])


def last_part(run: Run, skipped: int) -> Run:
    """Return a run without its first `skipped` messages."""
    return (run[0], run[1], run[2] + skipped, run[3] - skipped, run[4], run[5])


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
    next_id: int = 1
    unacked: int = 0
    is_in_service: bool = False  # stands in the queue's `service`
    chunks: dict[int, list[Held]] = field(default_factory=dict)  # ascending numbers, each list ascending ids
    dirty_chunks: dict[int, None] = field(default_factory=dict)

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


@dataclass(slots=True)
class Saved:
    """Which rows of a queue the store has: what an incremental checkpoint compares with."""

    ready_low: int = 0  # chunk numbers [ready_low, ready_high)
    ready_high: int = 0
    tail: int = 0  # the position after the last ready run that is saved
    returned: int = 0  # returned runs
    consumers: dict[Key, dict[int, None]] = field(default_factory=dict)  # chunk numbers of each


@dataclass(slots=True, eq=False)
class Queue:
    """One queue. `ready` holds what was never delivered, `returned` what was; returned ones go first."""

    uid: int
    config: QueueConfig
    ready: deque[Run] = field(default_factory=deque)
    head: int = 0  # position of ready[0] among all runs ever put in: rows are keyed by it
    returned: list[Run] = field(default_factory=list)  # newest first, so that the next is popped from the end
    ready_count: int = 0  # messages in ready and returned
    unacked_count: int = 0
    consumers: dict[Key, Consumer] = field(default_factory=dict)  # also detached ones and holders of a get
    attached_count: int = 0
    service: dict[int, deque[Consumer]] = field(default_factory=dict)
    """Attached consumers with credit, by priority, in the order of their turns; no empty ones."""
    is_head_taken: bool = False  # something left `ready` since the last checkpoint
    returned_kept: int = 0  # returned[:returned_kept] is as it was at the last checkpoint
    dirty_consumers: dict[Key, None] = field(default_factory=dict)
    saved: Saved = field(default_factory=Saved)

    def put(self, run: Run) -> None:
        """Add a new run at the end."""
        self.ready.append(run)
        self.ready_count += run[3]

    def first_count(self) -> int:
        """Return the size of the run that is next; the queue must not be empty."""
        return self.returned[-1][3] if self.returned else self.ready[0][3]

    def take(self, limit: int) -> Run:
        """Remove and return the next run, at most `limit` (>= 1) messages of it; there must be one."""
        if self.returned:
            run = self.returned.pop()
            if run[3] > limit:
                self.returned.append(last_part(run, limit))
                run = first_part(run, limit)
                self.returned_kept = min(self.returned_kept, len(self.returned) - 1)
            else:
                self.returned_kept = min(self.returned_kept, len(self.returned))
        else:
            self.is_head_taken = True
            run = self.ready[0]
            if run[3] > limit:
                self.ready[0] = last_part(run, limit)
                run = first_part(run, limit)
            else:
                self.ready.popleft()
                self.head += 1
        self.ready_count -= run[3]
        return run

    def give_back(self, runs: list[Run], *, failed: bool) -> None:
        """Make released runs ready again in their old order, with one more return (and failure)."""
        if not runs:
            return
        batch = _joined(sorted([_attempted(run, failed) for run in runs]))
        for run in batch:
            self.ready_count += run[3]
        place = _place(self.returned, batch[-1])
        if len(batch) == 1:
            place = _insert(self.returned, place, batch[0])
        else:
            tail = self.returned[place:] + batch
            tail.sort(reverse=True)
            self.returned[place:] = tail
        self.returned_kept = min(self.returned_kept, place)

    def drop_ready(self) -> list[Run]:
        """Forget all ready messages; returns their runs."""
        runs = [*self.ready, *self.returned]
        self.is_head_taken = True
        self.head += len(self.ready)
        self.returned_kept = 0
        self.ready.clear()
        self.returned.clear()
        self.ready_count = 0
        return runs

    def serve(self, consumer: Consumer) -> None:
        """Let an attached consumer with credit stand in line, unless it does."""
        if consumer.attached and not consumer.is_in_service and consumer.unacked < consumer.window:
            consumer.is_in_service = True
            self.service.setdefault(consumer.priority, deque()).append(consumer)

    def detach(self, consumer: Consumer) -> None:
        """Give an attached consumer no more messages."""
        consumer.attached = False
        self.attached_count -= 1
        self.dirty_consumers[consumer.key] = None
        self._leave_line(consumer)

    def resize(self, consumer: Consumer, window: int) -> None:
        """Let an attached consumer hold `window` messages from now on."""
        consumer.window = window
        self.dirty_consumers[consumer.key] = None
        if consumer.unacked >= window:
            self._leave_line(consumer)
        else:
            self.serve(consumer)

    def _leave_line(self, consumer: Consumer) -> None:
        if consumer.is_in_service:
            consumer.is_in_service = False
            line = self.service[consumer.priority]
            line.remove(consumer)
            if not line:
                del self.service[consumer.priority]

    def has_exclusive(self) -> bool:
        """Whether an exclusive consumer is attached; it is then the only one."""
        # It is kept alone, so a queue with several attached consumers has none that is exclusive.
        return self.attached_count == 1 and any(
            consumer.exclusive for consumer in self.consumers.values() if consumer.attached
        )


def _attempted(run: Run, failed: bool) -> Run:
    index, offset, first, count, returns, failures = run
    return (index, offset, first, count, min(returns + 1, ATTEMPTS_MAX), min(failures + failed, ATTEMPTS_MAX))


def _follows(run: Run, later: Run) -> bool:
    """Whether `later` begins where `run` ends, with the same history."""
    return run[:2] == later[:2] and run[2] + run[3] == later[2] and run[4:] == later[4:]


def _joined(runs: list[Run]) -> list[Run]:
    """Join neighbours of an ascending list, so that a run returned in pieces costs one run again."""
    joined = [runs[0]]
    for run in runs[1:]:
        last = joined[-1]
        if _follows(last, run):
            joined[-1] = first_part(last, last[3] + run[3])
        else:
            joined.append(run)
    return joined


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
    if place and _follows(run, descending[place - 1]):
        start -= 1
        run = first_part(run, run[3] + descending[start][3])
    if place < len(descending) and _follows(descending[place], run):
        stop += 1
        run = first_part(descending[place], descending[place][3] + run[3])
    descending[start:stop] = [run]
    return start
