"""The simulated disk and the real store do the same: else what the simulator proves says nothing of a node."""

import random
from pathlib import Path

import pytest

from cluster.ports import GroupWrite
from cluster.types import Entry, HardState, SnapshotMeta
from tests.sim.disk import Disk
from tests.store.conftest import FIRST, Harness

GROUP = 1


class Twins:
    """A store and a simulated disk that are told the same; this is what a correct group would tell them."""

    def __init__(self, path: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.path = path
        self.harness = Harness(path, cache_bytes_max=2000)
        self.harness.store.form(GROUP, FIRST)
        self.disk = Disk()
        self.disk.form(GROUP, FIRST)
        self.disk.durable[GROUP].snapshot = self.disk.images[GROUP].snapshot = SnapshotMeta(0, 0, 0, FIRST, 0)
        self.term = 1
        self.applied = 0
        self.commit = 0
        self.live: set[int] = set()
        self.turn = 0

    def entries(self, start: int, count: int) -> list[Entry]:
        size = self.random.choice([0, 10, 500, 70_000])
        return [Entry(i, self.term, 1, i, self.random.randbytes(size)) for i in range(start, start + count)]

    def step(self) -> None:
        """One write of a random kind, durable or only noted."""
        view = self.disk.view(GROUP)
        last = view.last_index()
        write = GroupWrite(GROUP)
        kind = self.random.choice(["append", "append", "append", "cut", "apply", "save", "trim", "install"])
        if kind == "append":
            write.entries = self.entries(last + 1, self.random.randint(1, 5))
        elif kind == "cut" and last > self.commit:
            self.term += 1
            write.truncate_from = self.random.randint(self.commit + 1, last)
            write.entries = self.entries(write.truncate_from, self.random.randint(0, 3))
        elif kind == "apply":
            self.commit = self.random.randint(self.commit, last)
            for index in range(self.applied + 1, self.commit + 1):
                self.live.add(index)
            self.applied = self.commit
            self.live = {index for index in self.live if self.random.random() < 0.8}
            return
        elif kind == "save" and self.applied > view.snapshot_meta().index:
            previous = view.snapshot_meta().index
            write.checkpoint = SnapshotMeta(self.applied, view.term(self.applied), self.applied, FIRST, 1)
            rows = [(b"k%d" % self.random.randrange(9), b"%d" % self.applied) for _ in range(3)]
            write.checkpoint_rows = [
                (k, v if self.random.random() < 0.7 else None) for k, v in dict(rows).items()
            ]
            write.compact_to = previous if previous >= view.first_index() else None
        elif kind == "trim":
            compacted = view.first_index() - 1
            write.trims = [i for i in self.disk.stored_below(GROUP, compacted) if i not in self.live]
        elif kind == "install":
            self.install(write, last)
        if write.entries or write.install is not None:
            write.hard_state = HardState(self.term, 0, self.commit)
        self.tell(write)

    def install(self, write: GroupWrite, last: int) -> None:
        """A leader's state at a higher index, with the rows that this member lacks, in two writes."""
        self.term += 1
        index = max(last, self.commit) + self.random.randint(-2, 5)
        if index <= self.commit:
            return
        fresh = [
            e for e in self.entries(self.applied + 1, index - self.applied) if self.random.random() < 0.5
        ]
        self.tell(GroupWrite(GROUP, live_rows=fresh))
        write.install = SnapshotMeta(index, self.term, index, FIRST, 1)
        write.install_rows = [(b"k%d" % i, b"new") for i in range(self.random.randrange(9))]
        write.install_applied = self.applied
        self.live |= {entry.index for entry in fresh}
        self.applied = self.commit = index

    def tell(self, write: GroupWrite) -> None:
        self.turn += 1
        self.disk.note([write])
        self.disk.submit(self.turn, [write])
        number = self.harness.note(write)
        self.compare()
        self.harness.writer.submit(number, [write])
        if self.random.random() < 0.5 or write.install is not None or write.checkpoint is not None:
            self.sync()
            self.compare()
        if self.random.random() < 0.1:
            self.sync()
            self.harness.close()
            self.harness = Harness(self.path, cache_bytes_max=2000)
            self.disk.crash(0)
            self.compare()

    def sync(self) -> None:
        while not self.harness.durable or self.harness.durable[-1] < self.harness._number:
            self.harness.run_calls(timeout_s=5)
            assert not self.harness.failures
        self.disk.sync()

    def compare(self) -> None:
        store, disk = self.harness.store, self.disk
        one, two = store.view(GROUP), disk.view(GROUP)
        first, last = two.first_index(), two.last_index()
        assert (one.first_index(), one.last_index()) == (first, last)
        assert one.initial_state()[0] == two.initial_state()[0]
        assert [one.term(i) for i in range(first - 1, last + 1)] == [
            two.term(i) for i in range(first - 1, last + 1)
        ]
        if first <= last:
            assert one.entries(first, last + 1, 1 << 40) == two.entries(first, last + 1, 1 << 40)
        for index in self.live:
            assert store.data(GROUP, index) == disk.data(GROUP, index), index
        assert list(store.rows(GROUP)) == list(disk.rows(GROUP))
        assert set(disk.stored_below(GROUP, last)) <= set(store.stored_below(GROUP, last))


@pytest.mark.parametrize("seed", range(12))
def test_store_and_simulated_disk_do_the_same(tmp_path: Path, seed: int) -> None:
    """Reads of both agree after each write, before and after it is durable, and after a restart."""
    twins = Twins(tmp_path / "data", seed)
    for _ in range(80):
        twins.step()
    twins.sync()
    twins.compare()
    assert twins.disk.view(GROUP).snapshot_meta() == twins.harness.store.view(GROUP).snapshot_meta()
    twins.harness.close()
