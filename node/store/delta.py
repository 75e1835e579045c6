"""What LMDB lacks, merged: the state that a segment of the journal leads to, not the steps to it.

Of hard states, positions and rows of saved state only the last counts, and what was trimmed meanwhile need not be
written at all. No IO here: entries are positions in the journal.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from cluster.ports import GroupWrite
from cluster.types import HardState, SnapshotMeta
from node.store.record import Journaled, Spot


@dataclass(slots=True)
class GroupDelta:
    """Changes of one group, to be carried out in the order of the fields.

    Args:
        cut: log rows from this index on go.
        replaces_rows: all rows of the saved state go.
        entries: log rows that come, by index; there may be gaps where trimmed ones stood.
        trims: rows that go from the log and from beside it, if they are there.
        left_out: the same, but a row that never came to the log in LMDB.
        live_rows: entries that are kept beside the log.
    """

    cut: int | None = None
    replaces_rows: bool = False
    entries: dict[int, Spot] = field(default_factory=dict)
    hard_state: HardState | None = None
    snapshot: SnapshotMeta | None = None
    rows: dict[bytes, bytes | None] = field(default_factory=dict)
    compacted: tuple[int, int] | None = None  # index, term
    trims: list[int] = field(default_factory=list)
    left_out: list[int] = field(default_factory=list)
    live_rows: dict[int, Spot] = field(default_factory=dict)

    def add(self, journaled: Journaled) -> None:
        """A later write of the group."""
        write = journaled.write
        if write.install is not None:
            self._install(write, write.install)
        if write.truncate_from is not None:
            self._cut(write.truncate_from)
        for spot in journaled.entries:
            self.entries[spot.index] = spot
        if write.hard_state is not None:
            self.hard_state = write.hard_state
        if write.checkpoint is not None:
            self.snapshot = write.checkpoint
            self.rows.update(write.checkpoint_rows)
        if write.compact_to is not None:
            self.compacted = write.compact_to, write.compact_term
        for spot in journaled.live_rows:
            self.live_rows[spot.index] = spot

    def leave_out(self, trims: Iterable[int]) -> set[int]:
        """These rows would be deleted again. Returns those that were to come to the log."""
        for index in trims:
            self.live_rows.pop(index, None)
        return {index for index in trims if self.entries.pop(index, None)}

    def _install(self, write: GroupWrite, meta: SnapshotMeta) -> None:
        # What is applied here is the same everywhere, and messages that live in it were not sent again.
        self._cut(min(write.install_applied, meta.index) + 1)
        self.replaces_rows, self.rows = True, dict(write.install_rows)
        self.snapshot = meta
        self.compacted = meta.index, meta.term

    def _cut(self, start: int) -> None:
        self.cut = start if self.cut is None else min(self.cut, start)
        for index in [index for index in self.entries if index >= start]:
            del self.entries[index]


@dataclass(slots=True)
class Delta:
    """Changes in one segment of the journal.

    Args:
        segment: which.
        sequence: of the last record in it.
        writes: how many writes of groups are in it.
        groups: changes by group.
    """

    segment: int
    sequence: int = 0
    writes: int = 0
    groups: dict[int, GroupDelta] = field(default_factory=dict)


class Unfolded:
    """Deltas of the segments that LMDB lacks, oldest first."""

    def __init__(self) -> None:
        self._deltas: deque[Delta] = deque()

    def __len__(self) -> int:
        return len(self._deltas)

    def add(self, segment: int, sequence: int, writes: Iterable[Journaled]) -> None:
        """A record was appended."""
        deltas = self._deltas
        if not deltas or deltas[-1].segment != segment:
            deltas.append(Delta(segment))
        newest = deltas[-1]
        newest.sequence = sequence
        for journaled in writes:
            group = journaled.write.group
            if group not in newest.groups:
                newest.groups[group] = GroupDelta()
            newest.groups[group].add(journaled)
            newest.writes += 1
            if journaled.write.trims:
                self._trim(newest.groups[group], group, journaled.write.trims)

    def take(self) -> Delta:
        """The oldest, which is then no longer here: what comes later changes it no more."""
        return self._deltas.popleft()

    def _trim(self, newest: GroupDelta, group: int, trims: Sequence[int]) -> None:
        left_out: set[int] = set()
        for delta in self._deltas:
            if group in delta.groups:
                left_out |= delta.groups[group].leave_out(trims)
        # An older version of such a row may be in LMDB: then a cut that is not folded yet deletes it.
        newest.left_out += sorted(left_out)
        newest.trims += [index for index in trims if index not in left_out]
