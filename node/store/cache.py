"""Entries kept in memory, bounded in bytes, oldest out first; those that are not durable yet cannot go.

A message that is consumed soon after it was published is read from here and never from the disk. An
entry enters with the number of the write that carries it, and may leave once that write is durable.
"""

from collections import deque

from cluster.types import Entry

ENTRY_OVERHEAD_BYTES = 300
"""What an entry costs beside its data: tuples, keys and slots of the containers (measured, rounded up)."""

Key = tuple[int, int]


class EntryCache:
    """Entries of all groups by (group, index).

    Args:
        bytes_max: bound on data and overhead; exceeded only by entries that are not durable yet.
    """

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.bytes = 0
        self._entries: dict[Key, tuple[int, Entry]] = {}
        self._order: deque[tuple[int, Key]] = deque()
        self._durable = 0

    def put(self, group: int, entry: Entry, write: int) -> None:
        """Keep an entry at least until `settle(write)`; writes come in rising order."""
        key = (group, entry.index)
        self.drop(group, entry.index)
        self._entries[key] = (write, entry)
        self._order.append((write, key))
        self.bytes += len(entry.data) + ENTRY_OVERHEAD_BYTES
        if self.bytes > self.bytes_max:
            self._evict()

    def get(self, group: int, index: int) -> Entry | None:
        """The entry, if it is here."""
        found = self._entries.get((group, index))
        return None if found is None else found[1]

    def drop(self, group: int, index: int) -> None:
        """Forget an entry: it was overwritten, or nobody needs it any more."""
        found = self._entries.pop((group, index), None)
        if found is not None:
            self.bytes -= len(found[1].data)

    def settle(self, write: int) -> None:
        """All writes up to this one are durable."""
        self._durable = write
        if self.bytes > self.bytes_max:
            self._evict()

    def _evict(self) -> None:
        order = self._order
        entries = self._entries
        while order and self.bytes > self.bytes_max:
            write, key = order[0]
            if write > self._durable:
                return
            order.popleft()
            self.bytes -= ENTRY_OVERHEAD_BYTES
            found = entries.get(key)
            # The same index may stand here again from a later write: that one has its own place in the order.
            if found is not None and found[0] == write:
                del entries[key]
                self.bytes -= len(found[1].data)
