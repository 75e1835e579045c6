"""A log store in memory that can lose power: what was written but not synced is lost from some point on."""

from collections import deque
from dataclasses import dataclass, field

from cluster.ports import Compacted, Unavailable
from cluster.raft.ready import Ready
from cluster.types import Configuration, Entry, HardState, SnapshotMeta


@dataclass(slots=True)
class Saved:
    """A saved state: its position and the state machine's one number."""

    meta: SnapshotMeta
    state: int


@dataclass(slots=True)
class Image:
    """What a disk holds."""

    hard_state: HardState
    saved: Saved
    entries: dict[int, Entry] = field(default_factory=dict)
    last_index: int = 0

    def copy(self) -> "Image":
        """Return an image that changes on its own."""
        return Image(self.hard_state, self.saved, dict(self.entries), self.last_index)

    def term(self, index: int) -> int:
        """Term at an index, -1 where there is none."""
        if index == self.saved.meta.index:
            return self.saved.meta.term
        entry = self.entries.get(index) if index > self.saved.meta.index else None
        return entry.term if entry is not None else -1

    def carry_out(self, write: "Ready | Saved", staged: Saved | None) -> None:
        """Do one write: all of it or none."""
        if isinstance(write, Saved):
            if write.meta.index > self.saved.meta.index:
                self.saved = write
                self.entries = {i: entry for i, entry in self.entries.items() if i > write.meta.index}
            return
        if write.snapshot is not None:
            assert staged is not None and staged.meta == write.snapshot
            self.saved, self.entries, self.last_index = staged, {}, staged.meta.index
        if write.truncate_from is not None:
            assert write.truncate_from > self.saved.meta.index
            for index in range(write.truncate_from, self.last_index + 1):
                del self.entries[index]
            self.last_index = write.truncate_from - 1
        for entry in write.entries:
            assert entry.index == self.last_index + 1, "stored log has a gap or an overlap"
            self.entries[entry.index] = entry
            self.last_index = entry.index
        if write.hard_state is not None:
            assert write.hard_state.term >= self.hard_state.term, "stored term falls"
            self.hard_state = write.hard_state


class Disk:
    """The LogView of one member, and its power switch."""

    def __init__(self, configuration: Configuration) -> None:
        saved = Saved(SnapshotMeta(0, 0, 0, configuration, 0), 0)
        self.shown = Image(HardState(0, 0, 0), saved)
        self.durable = self.shown.copy()
        self.pending: deque[tuple[int, Ready | Saved, Saved | None]] = deque()

    def write(self, number: int, write: Ready | Saved, staged: Saved | None = None) -> None:
        """Show a write at once; it is durable when `sync` has reached its number."""
        self.shown.carry_out(write, staged)
        self.pending.append((number, write, staged))

    def sync(self, number: int) -> None:
        """Make all writes up to this number durable."""
        while self.pending and self.pending[0][0] <= number:
            _, write, staged = self.pending.popleft()
            self.durable.carry_out(write, staged)

    def crash(self, kept: int) -> None:
        """Lose power: the first `kept` writes under way reached the disk, the others did not."""
        for _, write, staged in list(self.pending)[:kept]:
            self.durable.carry_out(write, staged)
        self.pending.clear()
        self.shown = self.durable.copy()

    def initial_state(self) -> tuple[HardState, Configuration]:
        return self.shown.hard_state, self.shown.saved.meta.configuration

    def first_index(self) -> int:
        return self.shown.saved.meta.index + 1

    def last_index(self) -> int:
        return self.shown.last_index

    def term(self, index: int) -> int:
        if index < self.shown.saved.meta.index:
            raise Compacted(index)
        term = self.shown.term(index)
        if term < 0:
            raise Unavailable(index)
        return term

    def entries(self, lo: int, hi: int, bytes_max: int) -> list[Entry]:
        if lo <= self.shown.saved.meta.index:
            raise Compacted(lo)
        found = [self.shown.entries[lo]]
        size = len(found[0].data)
        for index in range(lo + 1, hi):
            entry = self.shown.entries[index]
            size += len(entry.data)
            if size > bytes_max:
                break
            found.append(entry)
        return found

    def snapshot_meta(self) -> SnapshotMeta:
        return self.durable.saved.meta
