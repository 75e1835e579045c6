"""The log of one member: what storage holds, and the tail that is not there yet (Raft 5.3).

Indexes, always in this order: snapshot <= applied <= handed <= min(commit, persisted) and
persisted <= written <= last_index; only while a snapshot is being installed, `persisted` lies below it.

- `written`: the highest index given to the writer in a Ready; `persisted`: the highest one known durable.
- `handed`: the highest index given out to be applied; `applied`: the highest one that has been.

`persisted` is the number that leaders count, so it must never vouch for an entry that was overwritten in
memory after its write began. Hence `_writes`: for each Ready under way its number and the last index of it
that is *still the same entry*. Truncation cuts these marks at once; an entry written again, even with the
same index and term, belongs to its new write.

Everything above `persisted` is read from `_tail`, never from storage, so it does not matter to this module
when storage begins to show a write.
"""

from collections import deque

from cluster.ports import Compacted, LogView, Unavailable
from cluster.types import Entry, SnapshotMeta

TAIL_BYTES_MAX = 4 << 20
"""Durable entries stay in memory until they were handed out to be applied, but never more than this."""


class RaftLog:
    """The stored log, its unstable tail, and the marks between them.

    Args:
        view: the stored log; everything in it at this moment is durable.
        commit: the commit index found in the hard state.
        applied: index that the state machine has been restored to.
    """

    __slots__ = (
        "_offset",
        "_tail",
        "_tail_bytes",
        "_term_start",
        "_truncate_from",
        "_writes",
        "applied",
        "commit",
        "first_index",
        "handed",
        "installing",
        "last_index",
        "last_term",
        "pending_snapshot",
        "persisted",
        "view",
        "written",
    )

    def __init__(self, view: LogView, commit: int, applied: int) -> None:
        self.view = view
        self.first_index = view.first_index()
        self.last_index = self.persisted = self.written = view.last_index()
        self.last_term = view.term(self.last_index)
        self.commit = max(commit, applied)
        self.applied = self.handed = applied
        assert self.first_index - 1 <= applied <= self.commit <= self.last_index, "stored log does not add up"
        self.pending_snapshot: SnapshotMeta | None = None
        self.installing: tuple[int, SnapshotMeta] | None = None
        self._tail: list[Entry] = []
        self._tail_bytes = 0
        self._offset = self.last_index + 1
        self._term_start = self.last_index
        self._truncate_from: int | None = None
        self._writes: deque[tuple[int, int]] = deque()

    def term(self, index: int) -> int:
        """Return the term of an entry, or of the snapshot's last one.

        Raises:
            Compacted: below the snapshot. Never answered with a 0 that could match another 0.
            Unavailable: above the last index.
        """
        if self._term_start <= index <= self.last_index:
            return self.last_term
        if index > self.last_index:
            raise Unavailable(index)
        if index >= self._offset:
            return self._tail[index - self._offset].term
        if index < self.first_index - 1:
            raise Compacted(index)
        if self.installing is not None and index == self.installing[1].index:
            return self.installing[1].term
        if self.pending_snapshot is not None and index == self.pending_snapshot.index:
            return self.pending_snapshot.term
        return self.view.term(index)

    def matches(self, index: int, term: int) -> bool:
        """Whether the log holds an entry (or ends its snapshot) at `index` with this term."""
        if index > self.last_index or index < self.first_index - 1:
            return False
        return self.term(index) == term

    def is_up_to_date(self, last_index: int, last_term: int) -> bool:
        """Whether a log that ends there is at least as up to date as this one (Raft 5.4.1)."""
        return last_term > self.last_term or (last_term == self.last_term and last_index >= self.last_index)

    def conflict_hint(self, index: int, term: int) -> tuple[int, int]:
        """Return the highest (index, term) at or below `index` whose term is at most `term`.

        Terms never fall along a log, so the logs cannot match above it, and whole terms are skipped in one
        round. Term 0: unknown, because it is compacted.
        """
        low, high = self.first_index - 1, min(index, self.last_index)
        if high < low:
            return high, 0
        while low < high:
            middle = (low + high + 1) >> 1
            if self.term(middle) <= term:
                low = middle
            else:
                high = middle - 1
        return low, self.term(low)

    def append(self, entries: list[Entry] | tuple[Entry, ...]) -> None:
        """Put entries at the end; they continue the log and are not empty."""
        last = entries[-1]
        assert entries[0].index == self.last_index + 1 and last.index == self.last_index + len(entries)
        if last.term != self.last_term:
            self._term_start = next(entry.index for entry in entries if entry.term == last.term)
            self.last_term = last.term
        self._tail += entries
        self._tail_bytes += size_bytes(entries)
        self.last_index = last.index

    def accept(self, prev_index: int, entries: tuple[Entry, ...]) -> None:
        """Store a leader's entries after `prev_index`, which matches and is not below the commit index.

        Only a conflict of terms truncates: an append that arrives late holds entries the log has already, and
        what follows them stays.
        """
        if prev_index != self.last_index:
            entries = self._without_known(entries)
        if entries:
            self.append(entries)

    def _without_known(self, entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
        for position, entry in enumerate(entries):
            if entry.index > self.last_index:
                return entries[position:]
            if self.term(entry.index) != entry.term:
                self._truncate(entry.index)
                return entries[position:]
        return ()

    def _truncate(self, index: int) -> None:
        assert index > self.commit, f"would truncate committed entries from {index}, commit is {self.commit}"
        last_term = self.term(index - 1)
        if index <= self.written:
            before = self._truncate_from
            self._truncate_from = index if before is None else min(before, index)
            self.written = index - 1
        self.persisted = min(self.persisted, index - 1)
        self._writes = deque((number, min(last, index - 1)) for number, last in self._writes)
        if index <= self._offset:
            self._tail, self._tail_bytes, self._offset = [], 0, index
        else:
            self._tail_bytes -= size_bytes(self._tail[index - self._offset :])
            del self._tail[index - self._offset :]
        self.last_index, self.last_term = index - 1, last_term
        self._term_start = min(self._term_start, index - 1)

    def entries(self, lo: int, hi: int, bytes_max: int) -> list[Entry]:
        """Return entries from `lo` to at most `hi` - 1: at least one, then as many as fit in bytes_max.

        May be fewer where storage ends and memory begins. Raises Compacted if `lo` is below the log.
        """
        if lo < self.first_index:
            raise Compacted(lo)
        if lo < self._offset:
            return self.view.entries(lo, min(hi, self._offset), bytes_max)
        start = lo - self._offset
        found = self._tail[start : hi - self._offset]
        total = 0
        for position, entry in enumerate(found):
            total += len(entry.data)
            if total > bytes_max and position:
                return found[:position]
        return found

    def log_compacted(self) -> None:
        """Storage moved its snapshot on; entries up to it are gone for Raft, even where their rows stay."""
        self.first_index = max(self.first_index, self.view.first_index())
        self._term_start = max(self._term_start, self.first_index - 1)

    def commit_to(self, index: int) -> bool:
        """Raise the commit index, never past the end of the log; whether it rose."""
        if index <= self.commit:
            return False
        assert index <= self.last_index, f"commit {index} lies past the end {self.last_index}"
        self.commit = index
        return True

    def restore(self, meta: SnapshotMeta) -> None:
        """Replace the whole log by a snapshot above the commit index; durable when its Ready is."""
        assert meta.index > self.commit
        self.pending_snapshot, self.installing = meta, None
        self._tail, self._tail_bytes, self._offset = [], 0, meta.index + 1
        self._truncate_from = None
        self._writes.clear()
        self.first_index = meta.index + 1
        self.last_index = self._term_start = self.written = meta.index
        self.last_term = meta.term
        self.persisted = min(self.persisted, self.commit)
        self.commit = self.applied = self.handed = meta.index

    def has_unwritten(self) -> bool:
        """Whether the next Ready has something of the log to store."""
        return (
            self.written < self.last_index
            or self.pending_snapshot is not None
            or self._truncate_from is not None
        )

    def take_unwritten(self, number: int) -> tuple[SnapshotMeta | None, int | None, list[Entry]]:
        """Hand over what Ready `number` stores: snapshot, truncate_from, entries."""
        entries = self._tail[self.written + 1 - self._offset :]
        snapshot, truncate_from = self.pending_snapshot, self._truncate_from
        if snapshot is not None:
            self.installing = (number, snapshot)
        self.pending_snapshot = self._truncate_from = None
        self.written = self.last_index
        if entries or snapshot is not None:
            self._writes.append((number, self.last_index))
        return snapshot, truncate_from, entries

    def on_persisted(self, number: int) -> bool:
        """All Readys up to `number` are durable; whether `persisted` rose."""
        before = self.persisted
        writes = self._writes
        while writes and writes[0][0] <= number:
            # A mark may be lower than the one before, if a truncation lay between; each is true by itself.
            self.persisted = max(self.persisted, writes.popleft()[1])
        if self.installing is not None and self.installing[0] <= number:
            self.installing = None
        self._drop_tail()
        return self.persisted > before

    def has_committed(self) -> bool:
        """Whether there are entries to apply: committed, durable here, not handed out yet."""
        return self.handed < self.commit and self.handed < self.persisted

    def take_committed(self, bytes_max: int) -> list[Entry]:
        """Hand out entries to apply, at least one."""
        entries = self.entries(self.handed + 1, min(self.commit, self.persisted) + 1, bytes_max)
        self.handed = entries[-1].index
        self._drop_tail()
        return entries

    def _drop_tail(self) -> None:
        keep_from = self.persisted if self._tail_bytes > TAIL_BYTES_MAX else min(self.persisted, self.handed)
        count = keep_from + 1 - self._offset
        if count > 0:
            self._tail_bytes -= size_bytes(self._tail[:count])
            del self._tail[:count]
            self._offset += count


def size_bytes(entries: list[Entry] | tuple[Entry, ...]) -> int:
    """Return the bytes of data in the entries."""
    if len(entries) == 1:
        return len(entries[0].data)
    return sum([len(entry.data) for entry in entries])
