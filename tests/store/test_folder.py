"""What reaches LMDB, and what a start makes of any state in which power loss may leave a directory."""

import random
import shutil
import threading
import zlib
from pathlib import Path

import lmdb
import pytest

from cluster.ports import GroupWrite
from cluster.types import HardState, SnapshotMeta
from node.store import carry, keys, record
from node.store.carry import Carrier
from node.store.delta import Unfolded
from node.store.environment import Environment
from node.store.errors import StoreError
from node.store.folder import UNFOLDED_MAX
from node.store.journal import BLOCK_BYTES, SEGMENTS
from node.store.log_store import LmdbStore
from tests.sim.disk import Disk
from tests.store.conftest import FIRST, MAP_BYTES, SEGMENT_BYTES, Harness, entries, entry, finish
from tests.store.group_life import GROUP, GroupLife, assert_alike, new_disk


def stored(environment: Environment, group: int = 1) -> list[int]:
    """Indexes of the log rows in LMDB."""
    with environment.lmdb.begin() as txn, txn.cursor(environment.log(group)) as cursor:
        split = [keys.split_log_key(key) for key in cursor.iternext(values=False)]
    return [index for index, piece in split if piece == 0]


def snapshot(index: int) -> SnapshotMeta:
    return SnapshotMeta(index, 1, 1000 + index, FIRST, 1)


def test_trimmed_entries_never_reach_lmdb(harness: Harness) -> None:
    """A message that is consumed soon is written once: its row is left out when the journal is folded."""
    data = b"x" * 10_000
    last = 0
    for turn in range(200):
        fresh = entries(last + 1, last + 4, data)
        last += 3
        write = GroupWrite(1, entries=fresh, hard_state=HardState(1, 1, last))
        if turn % 4 == 3:
            write.checkpoint = snapshot(last)
            write.compact_to, write.compact_term = last - 1, 1
            write.trims = [index for index in range(last - 12, last) if index > 0 and index != 5]
        harness.write(write)
    assert harness.environment.file_bytes() < 40 * len(data)
    assert harness.store.data(1, 5) == data
    again = harness.reopen()
    assert stored(again.environment) == [5, last]
    assert list(again.store.stored_below(1, last)) == [5, last]
    assert (again.store.view(1).first_index(), again.store.view(1).last_index()) == (last, last)
    again.close()


def test_entries_are_read_from_the_journal_and_not_kept_in_memory(tmp_path: Path) -> None:
    """Once they are durable, the cache may forget them although LMDB lacks them."""
    large = Harness(tmp_path, cache_bytes_max=100_000, segment_bytes=8 << 20)
    large.store.form(1, FIRST)
    written = [entry(index, b"%d" % index * 20_000) for index in range(1, 101)]
    for one in written:
        large.write(GroupWrite(1, entries=[one], live_rows=[one._replace(index=one.index + 1000)]))
    assert stored(large.environment) == []
    assert large.store._cache.bytes <= 100_000
    view = large.store.view(1)
    assert all(isinstance(found, record.Spot) for _, found in view._fresh.values())
    assert view.entries(1, 101, 1 << 40) == written
    assert [large.store.data(1, index + 1000) for index in range(1, 101)] == [one.data for one in written]
    assert large.store.log_bytes(1) > 2 * sum(len(one.data) for one in written)
    again = large.reopen()
    assert stored(again.environment) == list(range(1, 101))
    assert again.store.view(1).entries(1, 101, 1 << 40) == written
    again.close()


def test_row_that_changed_in_the_journal_is_found_out(harness: Harness) -> None:
    """A spot is only a place: the checksum says whether the entry still stands there."""
    environment = harness.environment
    harness.write(GroupWrite(1, entries=[entry(1, b"secret data")]))
    harness.store._cache.drop(1, 1)
    for segment in range(SEGMENTS):
        file = environment.path / f"journal.{segment}"
        file.write_bytes(file.read_bytes().replace(b"secret", b"forged"))
    with pytest.raises(StoreError, match="group 1 index 1"):
        harness.store.data(1, 1)


def test_memory_of_what_is_not_folded_is_bounded(harness: Harness) -> None:
    """Neither the folder nor the overlay keeps more than the ring holds."""
    for turn in range(1, 300):
        harness.write(GroupWrite(1, entries=[entry(turn, b"x" * 20_000)], hard_state=HardState(1, 1, turn)))
        assert len(harness.writer._folder._unfolded) <= SEGMENTS
        assert len(harness.store.view(1)._fresh) <= SEGMENTS * 3 + 1
        assert harness.environment.journal.unfolded_bytes <= SEGMENTS * SEGMENT_BYTES


def test_what_finds_no_room_is_written_when_there_is_some(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk on which LMDB is slower than the journal holds the writer up, and loses nothing."""
    may_fold = threading.Event()
    fold = Carrier.fold
    monkeypatch.setattr(Carrier, "fold", lambda *args: (may_fold.wait(), fold(*args)))
    turns = 2 * SEGMENTS
    for turn in range(1, turns + 1):
        write = GroupWrite(1, entries=[entry(turn, b"x" * (SEGMENT_BYTES - 8192))])
        harness.writer.submit(harness.note(write), [write])
        for _ in range(20):
            harness.run()
    journal = harness.environment.journal
    while harness.durable[-1] < SEGMENTS or journal.is_appending:
        harness.run()
    assert harness.durable[-1] < turns
    assert harness.writer._prepared is not None and not journal.make_room(SEGMENT_BYTES)
    may_fold.set()
    while harness.durable[-1] < turns:
        harness.wait()
    assert harness.store.view(1).last_index() == turns


def test_directory_without_journal_gets_one(harness: Harness) -> None:
    """A directory of a version before the journal opens, and that version does not open it afterwards."""
    harness.write(GroupWrite(1, entries=entries(1, 4)))
    harness.close()
    for segment in range(SEGMENTS):
        (harness.path / f"journal.{segment}").unlink()
    with pytest.raises(StoreError, match=r"journal\.0"):
        Harness(harness.path)
    with lmdb.open(str(harness.path), max_dbs=9, map_size=MAP_BYTES) as older:
        meta = older.open_db(b"meta")
        with older.begin(write=True) as txn:
            assert txn.get(b"format", db=meta) == b"5"
            txn.put(b"format", b"3", db=meta)
            txn.delete(b"journal", db=meta)
    again = Harness(harness.path)
    assert again.store.view(1).entries(1, 4, 1 << 40) == entries(1, 4)
    again.write(GroupWrite(1, entries=entries(4, 6)))
    again = again.reopen()
    assert again.store.view(1).last_index() == 5
    again.close()


def test_directory_with_crc32_is_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a version before format 5 wrote is read, from LMDB and from the journal; it does not open it then."""
    with monkeypatch.context() as before:
        for module in (keys, record):
            before.setattr(module, "checksum", crc32)
        older = Harness(tmp_path)
        older.store.form(1, FIRST)
        for first in range(1, 61, 3):
            older.write(GroupWrite(1, entries=entries(first, first + 3, b"x" * 10_000)))
        while not (folded := stored(older.environment)):
            older.run()
        older.crash()
    assert folded and len(folded) < 60
    mark(tmp_path, b"4")
    again = Harness(tmp_path)
    assert again.store.view(1).entries(1, 61, 1 << 40) == entries(1, 61, b"x" * 10_000)
    again.write(GroupWrite(1, entries=entries(61, 63)))
    again = again.reopen()
    assert again.store.view(1).entries(60, 63, 1 << 40)[1:] == entries(61, 63)
    again.close()
    assert mark(tmp_path, b"6") == b"5"
    with pytest.raises(StoreError, match="has format 6, this program knows 5"):
        Harness(tmp_path)


def mark(path: Path, number: bytes) -> bytes:
    """Give a directory another format; returns the one it had."""
    with lmdb.open(str(path), max_dbs=9, map_size=MAP_BYTES) as environment:
        meta = environment.open_db(b"meta")
        with environment.begin(write=True) as txn:
            had = bytes(txn.get(b"format", db=meta))
            txn.put(b"format", number, db=meta)
    return had


def crc32(*parts: bytes) -> int:
    """The checksum of formats 3 and 4."""
    return zlib.crc32(b"".join(parts))


def test_idle_start_passes_over_a_number(tmp_path: Path) -> None:
    """A torn record must not become valid by what a later life writes before it."""
    sequences = []
    for _ in range(3):
        harness = Harness(tmp_path)
        sequences.append(harness.environment.journal.sequence)
        harness.close()
    assert sequences == [1, 2, 3]


class Steps:
    """Append, fold and release one by one, in one thread, and a model of what must be found after a crash."""

    def __init__(self, path: Path, seed: int) -> None:
        self.path = path
        self.random = random.Random(seed)
        self.crashes = 0
        self.disk = new_disk()
        self.life = GroupLife(self.random, self.disk)
        self.environment = open_environment(path / "data")
        LmdbStore(self.environment).form(GROUP, FIRST)
        self.carrier = Carrier(self.environment)
        self.unfolded = Unfolded()
        self.folded: list[int] = []

    def step(self) -> None:
        """A write, and some of the work behind it; the power may go at any point."""
        for write in self.life.next_writes():
            body = record.encode([write])
            while self.full(body.bytes):
                self.fold_or_release()
            self.disk.note([write])
            self.disk.submit(1, [write])
            before = self.journal_files() if self.random.random() < 0.1 else None
            journal = self.environment.journal
            assert journal.make_room(body.bytes)
            journaled = finish(journal, body, [write])
            if before is not None:
                self.crash_while_appending(before, body.bytes)
            self.disk.sync()
            self.unfolded.add(journal.segment, journal.sequence, journaled)
            self.crash_now_and_then()
            if self.random.random() < 0.1:
                self.fold_or_release()

    def full(self, length: int) -> bool:
        journal = self.environment.journal
        filled = journal._filled[journal.segment]
        return not journal._free and filled > 0 and filled + length > SEGMENT_BYTES

    def fold_or_release(self) -> None:
        if self.folded and self.random.random() < 0.5:
            self.environment.journal.release(self.folded.pop(0))
        elif len(self.unfolded) > 1 and (len(self.unfolded) > UNFOLDED_MAX or self.random.random() < 0.5):
            delta = self.unfolded.take()
            self.carrier.fold(delta)
            self.folded.append(delta.segment)
        elif self.carrier.has_trims:
            self.carrier.fold(None)
        self.crash_now_and_then()

    def journal_files(self) -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in (self.path / "data").glob("journal.*")}

    def crash_now_and_then(self) -> None:
        if self.random.random() < 0.1:
            self.compare(self.copy(), self.disk)

    def copy(self) -> Path:
        self.crashes += 1
        copy = self.path / f"crash-{self.crashes}"
        shutil.copytree(self.path / "data", copy)
        return copy

    def crash_while_appending(self, before: dict[Path, bytes], length: int) -> None:
        """Of the sectors of the append, this many bytes and zeros behind them, some are not on the disk."""
        copy = self.copy()
        journal = self.environment.journal
        path = self.path / "data" / f"journal.{journal.segment}"
        start = journal._filled[journal.segment] - length - -length % BLOCK_BYTES
        data, old = bytearray(path.read_bytes()), before[path]
        torn = False
        for at in range(start, start + length + -length % BLOCK_BYTES, 512):
            former = old[at : at + 512].ljust(512, b"\0")
            if self.random.random() < 0.3 and data[at : at + 512] != former:
                end = min(at + 512, start + length)
                torn = torn or data[at:end] != former[: max(0, end - at)]
                data[at : at + 512] = former
        (copy / path.name).write_bytes(data)
        lost = Disk()
        lost.durable = lost.images = self.disk.durable
        self.compare(copy, lost if torn else self.disk)

    def compare(self, path: Path, disk: Disk) -> None:
        """A start from this copy finds what is durable, and the next one too."""
        for _ in range(2):
            environment = open_environment(path)
            assert_alike(LmdbStore(environment), disk)
            environment.close()
        shutil.rmtree(path)


def open_environment(path: Path) -> Environment:
    return Environment(
        path, cluster="c", node="n1", sync=False, map_bytes=MAP_BYTES, segment_bytes=SEGMENT_BYTES
    )


@pytest.mark.parametrize("seed", range(6))
def test_every_crash_leaves_what_was_durable(tmp_path: Path, seed: int) -> None:
    """Power may go between or within append, fold and release: the start finds each promised write, and no half one."""
    steps = Steps(tmp_path, seed)
    for _ in range(100):
        steps.step()
    assert steps.crashes > 10
    steps.environment.close()


@pytest.mark.parametrize("seed", range(6))
def test_crash_between_the_transactions_of_a_fold_leaves_what_was_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """The next start carries all of it once more, over what had come to LMDB; so does the one after an early end."""
    steps = Steps(tmp_path, seed)
    broken_off = 0
    monkeypatch.setattr(carry, "TRANSACTION_BYTES_MAX", 1)
    weigh = Carrier._weigh

    def crash_behind(carrier: Carrier, size: int) -> None:
        nonlocal broken_off
        weigh(carrier, size)
        if carrier is steps.carrier and steps.random.random() < 0.3:
            broken_off += 1
            copy = steps.copy()
            with monkeypatch.context() as early:
                early.setattr(Environment, "put_folded", end)
                environment = open_environment(copy)
                with pytest.raises(StoreError, match="the process ends"):
                    LmdbStore(environment)
                environment.close()
            steps.compare(copy, steps.disk)

    def end(*_: object) -> None:
        raise lmdb.Error("the process ends")

    monkeypatch.setattr(Carrier, "_weigh", crash_behind)
    for _ in range(100):
        steps.step()
    assert broken_off > 5
    steps.environment.close()
