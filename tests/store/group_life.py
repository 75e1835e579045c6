"""What a correct group would have written, at random, and the comparison of a store with a simulated disk."""

import random

from cluster.ports import GroupWrite
from cluster.types import Entry, HardState, SnapshotMeta
from node.store.log_store import LmdbStore
from tests.sim.disk import Disk
from tests.store.conftest import FIRST

GROUP = 1


def new_disk() -> Disk:
    """With the group as a store forms it."""
    disk = Disk()
    disk.form(GROUP, FIRST)
    disk.durable[GROUP].snapshot = disk.images[GROUP].snapshot = SnapshotMeta(0, 0, 0, FIRST, 0)
    return disk


class GroupLife:
    """The writes of one group; reads the simulated disk that is told of them.

    Args:
        draw: decides everything.
        disk: must be told each write before the next is asked for.
    """

    def __init__(self, draw: random.Random, disk: Disk) -> None:
        self.random = draw
        self.disk = disk
        self.term = 1
        self.applied = 0
        self.commit = 0
        self.live: set[int] = set()

    def next_writes(self) -> list[GroupWrite]:
        """Writes of one random kind."""
        view = self.disk.view(GROUP)
        last = view.last_index()
        write = GroupWrite(GROUP)
        kind = self.random.choice(["append", "append", "append", "cut", "apply", "save", "trim", "install"])
        if kind == "append":
            write.entries = self._entries(last + 1, self.random.randint(1, 5))
        elif kind == "cut" and last > self.commit:
            self.term += 1
            write.truncate_from = self.random.randint(self.commit + 1, last)
            write.entries = self._entries(write.truncate_from, self.random.randint(0, 3))
        elif kind == "apply":
            self._apply(last)
            return []
        elif kind == "save" and self.applied > view.snapshot_meta().index:
            previous = view.snapshot_meta().index
            write.checkpoint = SnapshotMeta(self.applied, view.term(self.applied), self.applied, FIRST, 1)
            rows = [(b"k%d" % self.random.randrange(9), b"%d" % self.applied) for _ in range(3)]
            write.checkpoint_rows = [
                (k, v if self.random.random() < 0.7 else None) for k, v in dict(rows).items()
            ]
            if previous >= view.first_index():
                write.compact_to, write.compact_term = previous, view.term(previous)
        elif kind == "trim":
            compacted = view.first_index() - 1
            write.trims = [i for i in self.disk.stored_below(GROUP, compacted) if i not in self.live]
        elif kind == "install":
            return self._install(last)
        if write.entries:
            write.hard_state = HardState(self.term, 0, self.commit)
        return [write]

    def _entries(self, start: int, count: int) -> list[Entry]:
        size = self.random.choice([0, 10, 500, 70_000])
        return [Entry(i, self.term, 1, i, self.random.randbytes(size)) for i in range(start, start + count)]

    def _apply(self, last: int) -> None:
        self.commit = self.random.randint(self.commit, last)
        self.live.update(range(self.applied + 1, self.commit + 1))
        self.applied = self.commit
        self.live = {index for index in self.live if self.random.random() < 0.8}

    def _install(self, last: int) -> list[GroupWrite]:
        """A leader's state at a higher index, with the rows that this member lacks, in two writes."""
        self.term += 1
        index = max(last, self.commit) + self.random.randint(-2, 5)
        if index <= self.commit:
            return []
        fresh = [
            e for e in self._entries(self.applied + 1, index - self.applied) if self.random.random() < 0.5
        ]
        write = GroupWrite(GROUP, install=SnapshotMeta(index, self.term, index, FIRST, 1))
        write.install_rows = [(b"k%d" % i, b"new") for i in range(self.random.randrange(9))]
        write.install_applied = self.applied
        write.hard_state = HardState(self.term, 0, index)
        self.live |= {entry.index for entry in fresh}
        self.applied = self.commit = index
        return [GroupWrite(GROUP, live_rows=fresh), write]


def assert_alike(store: LmdbStore, disk: Disk) -> None:
    """All reads of the store find what the simulated disk has; of rows it may have more."""
    one, two = store.view(GROUP), disk.view(GROUP)
    first, last = two.first_index(), two.last_index()
    assert (one.first_index(), one.last_index()) == (first, last)
    assert one.initial_state()[0] == two.initial_state()[0]
    assert [one.term(i) for i in range(first - 1, last + 1)] == [
        two.term(i) for i in range(first - 1, last + 1)
    ]
    if first <= last:
        assert one.entries(first, last + 1, 1 << 40) == two.entries(first, last + 1, 1 << 40)
    rows = list(disk.stored_below(GROUP, last))
    assert set(rows) <= set(store.stored_below(GROUP, last))
    image = disk.images[GROUP]
    # A live row that came for an entry which is not applied here: until the install, nobody asks for either.
    for index in set(rows) - (image.log.keys() & image.live.keys()):
        assert store.data(GROUP, index) == disk.data(GROUP, index), index
    assert list(store.rows(GROUP)) == list(disk.rows(GROUP))
