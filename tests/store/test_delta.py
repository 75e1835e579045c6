"""Writes are merged to what LMDB must become; what was trimmed meanwhile is not part of it."""

from cluster.ports import GroupWrite
from cluster.types import HardState, SnapshotMeta
from node.store.delta import Delta, Unfolded
from node.store.record import Journaled, locate
from tests.store.conftest import FIRST, entries

OTHER = 2


def snapshot(index: int) -> SnapshotMeta:
    return SnapshotMeta(index, 1, 1000 + index, FIRST, 1)


class Journal:
    """Hands records over as a writer does; each has a segment of its own unless one is named."""

    def __init__(self) -> None:
        self.unfolded = Unfolded()
        self.sequence = 0

    def add(self, *writes: GroupWrite, segment: int | None = None) -> list[Journaled]:
        self.sequence += 1
        segment = self.sequence if segment is None else segment
        journaled = locate(writes, segment, 0)
        self.unfolded.add(segment, self.sequence, journaled)
        return journaled

    def taken(self) -> list[Delta]:
        return [self.unfolded.take() for _ in range(len(self.unfolded))]


def test_records_of_a_segment_are_merged_to_their_last_state() -> None:
    """Of a hundred hard states and of rows that were saved again only the last is written."""
    journal = Journal()
    for turn in range(1, 101):
        write = GroupWrite(1, entries=entries(turn, turn + 1), hard_state=HardState(1, 1, turn))
        write.checkpoint, write.checkpoint_rows = snapshot(turn), [(b"a", b"%d" % turn), (b"b", None)]
        journal.add(write, segment=0)
    (delta,) = journal.taken()
    assert (delta.segment, delta.sequence, delta.writes) == (0, 100, 100)
    group = delta.groups[1]
    assert list(group.entries) == list(range(1, 101))
    assert (group.hard_state, group.snapshot) == (HardState(1, 1, 100), snapshot(100))
    assert group.rows == {b"a": b"100", b"b": None}


def test_trimmed_rows_are_left_out_of_all_that_waits() -> None:
    """A trim reaches every segment that is not folded, of its own group, and need not look for the row in LMDB."""
    journal = Journal()
    for group in (1, OTHER):
        journal.add(GroupWrite(group, entries=entries(1, 5), live_rows=entries(8, 10)))
    journal.add(GroupWrite(1, entries=entries(5, 7)))
    journal.add(GroupWrite(1, entries=entries(7, 8), compact_to=6, compact_term=1, trims=[1, 3, 5, 8, 99]))
    first, other, second, third = journal.taken()
    assert list(first.groups[1].entries) == [2, 4]
    assert list(first.groups[1].live_rows) == [9]
    assert list(other.groups[OTHER].entries) == [1, 2, 3, 4]
    assert list(second.groups[1].entries) == [6]
    assert list(third.groups[1].entries) == [7]
    assert third.groups[1].compacted == (6, 1)
    assert third.groups[1].left_out == [1, 3, 5]
    assert third.groups[1].trims == [8, 99]


def test_what_was_taken_changes_no_more() -> None:
    """Its rows may be in LMDB already, so a later trim has to delete them there."""
    journal = Journal()
    journal.add(GroupWrite(1, entries=entries(1, 4)))
    taken = journal.unfolded.take()
    journal.add(GroupWrite(1, trims=[1, 2]))
    assert list(taken.groups[1].entries) == [1, 2, 3]
    (delta,) = journal.taken()
    assert (delta.groups[1].trims, delta.groups[1].left_out) == ([1, 2], [])


def test_truncation_leaves_what_it_replaced_out_of_its_own_segment() -> None:
    """Older segments may hold more: the cut deletes that when they are folded."""
    journal = Journal()
    journal.add(GroupWrite(1, entries=entries(1, 4)))
    journal.add(GroupWrite(1, entries=entries(4, 9)), segment=9)
    journal.add(GroupWrite(1, truncate_from=6, entries=entries(6, 8)), segment=9)
    newest = journal.add(GroupWrite(1, truncate_from=3, entries=entries(3, 5)), segment=9)
    older, newer = journal.taken()
    assert list(older.groups[1].entries) == [1, 2, 3]
    assert newer.groups[1].cut == 3
    assert list(newer.groups[1].entries.values()) == newest[0].entries


def test_install_replaces_rows_and_keeps_what_is_applied() -> None:
    """Rows of the saved state begin anew; log rows above what is applied go."""
    journal = Journal()
    write = GroupWrite(1, entries=entries(1, 10), checkpoint=snapshot(4), checkpoint_rows=[(b"old", b"1")])
    journal.add(write, segment=0)
    write = GroupWrite(1, install=snapshot(20), install_rows=[(b"new", b"2")], install_applied=5)
    journal.add(write, segment=0)
    (delta,) = journal.taken()
    group = delta.groups[1]
    assert (group.cut, group.replaces_rows, group.rows) == (6, True, {b"new": b"2"})
    assert list(group.entries) == [1, 2, 3, 4, 5]
    assert (group.snapshot, group.compacted) == (snapshot(20), (20, 1))
