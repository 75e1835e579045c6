"""The simulated disk and the real store do the same: else what the simulator proves says nothing of a node."""

import random
from pathlib import Path

import pytest

from cluster.ports import GroupWrite
from tests.store.conftest import FIRST, Harness
from tests.store.group_life import GROUP, GroupLife, assert_alike, new_disk


class Twins:
    """A store and a simulated disk that are told the same; this is what a correct group would tell them."""

    def __init__(self, path: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.path = path
        self.harness = Harness(path, cache_bytes_max=2000)
        self.harness.store.form(GROUP, FIRST)
        self.disk = new_disk()
        self.life = GroupLife(self.random, self.disk)
        self.turn = 0

    def step(self) -> None:
        """One write of a random kind, durable or only noted."""
        for write in self.life.next_writes():
            self.tell(write)

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
            if self.random.random() < 0.5:
                self.harness.crash()
            else:
                self.harness.close()
            self.harness = Harness(self.path, cache_bytes_max=2000)
            self.disk.crash(0)
            self.compare()

    def sync(self) -> None:
        while not self.harness.durable or self.harness.durable[-1] < self.harness._number:
            self.harness.wait()
            assert not self.harness.failures
        self.disk.sync()

    def compare(self) -> None:
        assert_alike(self.harness.store, self.disk)


@pytest.mark.parametrize("seed", range(12))
def test_store_and_simulated_disk_do_the_same(tmp_path: Path, seed: int) -> None:
    """Reads of both agree after each write, before and after it is durable, and after a restart.

    The journal is folded all the time, and a restart finds all of it, some of it or nothing of it in LMDB.
    """
    twins = Twins(tmp_path / "data", seed)
    for _ in range(80):
        twins.step()
    twins.sync()
    twins.compare()
    assert twins.disk.view(GROUP).snapshot_meta() == twins.harness.store.view(GROUP).snapshot_meta()
    twins.harness.close()
