"""The x-dedup-ids that a queue has seen last: a publisher that sends a message again has it stored once.

The window moves: an id is known until `IDS_MAX` newer ones have come, and a little longer, since whole chunks go.
"""

from collections import deque
from dataclasses import dataclass, field
from itertools import islice

IDS_MAX = 8192
CHUNK_SHIFT = 8
"""A row holds 2 ** CHUNK_SHIFT ids, at most 64 KiB."""


@dataclass(slots=True, eq=False)
class Window:
    """Ids by their position among all that the queue has seen."""

    head: int = 0  # position of ids[0]; always where a chunk begins
    ids: deque[bytes] = field(default_factory=deque)
    known: set[bytes] = field(default_factory=set)  # asked, never iterated
    saved_low: int = 0  # chunk numbers [saved_low, saved_high) are in the store
    saved_high: int = 0
    saved_tail: int = 0  # the position after the last id that is saved

    def add(self, name: bytes) -> bool:
        """Note an id; returns whether it is new."""
        if name in self.known:
            return False
        self.known.add(name)
        self.ids.append(name)
        if len(self.ids) >= IDS_MAX + (1 << CHUNK_SHIFT):
            for _ in range(1 << CHUNK_SHIFT):
                self.known.discard(self.ids.popleft())
            self.head += 1 << CHUNK_SHIFT
        return True

    @property
    def tail(self) -> int:
        """The position after the last id."""
        return self.head + len(self.ids)

    def chunk_range(self) -> tuple[int, int]:
        """Return the numbers of the first chunk and of the one after the last."""
        if not self.ids:
            return 0, 0
        return self.head >> CHUNK_SHIFT, ((self.tail - 1) >> CHUNK_SHIFT) + 1

    def chunk(self, number: int) -> bytes:
        """Return the ids of a chunk, each after its length."""
        low = (number << CHUNK_SHIFT) - self.head
        names = islice(self.ids, low, low + (1 << CHUNK_SHIFT))
        return b"".join([bytes((len(name),)) + name for name in names])

    def read_chunk(self, number: int, value: bytes) -> None:
        """Take in what `chunk` returned; chunks come in order."""
        if not self.ids:
            self.head = number << CHUNK_SHIFT
        names = split_names(value)
        self.ids.extend(names)
        self.known.update(names)

    def mark_saved(self) -> None:
        """The store has all chunks from now on."""
        self.saved_low, self.saved_high = self.chunk_range()
        self.saved_tail = self.tail


def split_names(value: bytes) -> list[bytes]:
    """Return names that stand one after the other, each after its length in one octet."""
    names = []
    at = 0
    while at < len(value):
        end = at + 1 + value[at]
        names.append(value[at + 1 : end])
        at = end
    return names
