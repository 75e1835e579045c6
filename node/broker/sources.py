"""Which dead letters of another queue a queue has taken: each comes once, however often it is sent.

A letter carries the uid of its queue, its number there, and `low`: every number below it is settled at the source.
Numbers from `low` on that came are remembered; their sender keeps fewer than a window's worth of them open.
"""

from dataclasses import dataclass, field

Range = tuple[int, int]
"""First and last number, both inclusive."""


@dataclass(slots=True, eq=False)
class Source:
    """The letters of one queue: all below `low` and those in `taken` (ascending ranges) came or never will."""

    low: int = 0
    taken: list[Range] = field(default_factory=list)

    def accept(self, low: int, first: int, count: int) -> list[Range]:
        """Note the letters `first .. first + count - 1`; returns those that had not come, as ranges."""
        if low > self.low:
            self.low = low
            self.taken = [(max(start, low), end) for start, end in self.taken if end >= low]
        new: list[Range] = []
        at, last = max(first, self.low), first + count - 1
        for start, end in self.taken:
            if end < at:
                continue
            if start > last:
                break
            if at < start:
                new.append((at, start - 1))
            at = end + 1
        if at <= last:
            new.append((at, last))
        if new:
            self.taken = _merged([*self.taken, *new])
        return new

    def refuse(self, first: int, last: int) -> None:
        """Letters that were accepted could not be kept: they may come again."""
        left: list[Range] = []
        for start, end in self.taken:
            left += [(start, min(end, first - 1))] if start < first else []
            left += [(max(start, last + 1), end)] if end > last else []
        self.taken = left


def _merged(ranges: list[Range]) -> list[Range]:
    merged: list[Range] = []
    for start, end in sorted(ranges):
        if merged and merged[-1][1] + 1 >= start:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged
