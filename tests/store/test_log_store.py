"""The logs and saved states: what is read is what was written, before and after it is durable."""

import random

import pytest

from cluster.ports import Compacted, GroupWrite, Unavailable
from cluster.types import Configuration, Entry, HardState, SnapshotMeta
from node.store import keys
from node.store.errors import CorruptRow, StoreError
from tests.store.conftest import FIRST, Harness, entries, entry

BIG = 1 << 40


def snapshot(index: int, term: int = 1) -> SnapshotMeta:
    return SnapshotMeta(index, term, 1000 + index, Configuration((1, 2, 4), (3,), (1, 2), (), True), 7)


def test_new_group_is_empty_and_has_the_first_configuration(harness: Harness) -> None:
    """`form` gives Raft its start: no entry, term 0, the configuration of the cluster's formation."""
    view = harness.store.view(1)
    assert view.initial_state() == (HardState(0, 0, 0), FIRST)
    assert (view.first_index(), view.last_index(), view.term(0)) == (1, 0, 0)
    assert view.snapshot_meta() == SnapshotMeta(0, 0, 0, FIRST, 0)
    harness.store.form(1, Configuration((9,)))
    assert view.initial_state()[1] == FIRST


@pytest.mark.parametrize("reopened", [False, True])
def test_everything_written_is_read_back(harness: Harness, reopened: bool) -> None:
    """Entries, terms, hard state, saved rows and live rows survive, byte for byte."""
    log = [*entries(1, 5, b"x" * 100, 1), *entries(5, 9, b"y" * 5000, 3)]
    rows: list[tuple[bytes, bytes | None]] = [(b"b", b"2"), (b"a", b""), (b"c" * 480, b"3" * 200_000)]
    write = GroupWrite(1, entries=log, hard_state=HardState(3, 2, 8), checkpoint=snapshot(4))
    write.checkpoint_rows = rows
    write.live_rows = [entry(100, b"z" * 70_000)]
    harness.write(write)
    if reopened:
        harness = harness.reopen()
    view = harness.store.view(1)
    assert view.entries(1, 9, BIG) == log
    assert [view.term(index) for index in range(9)] == [0, 1, 1, 1, 1, 3, 3, 3, 3]
    assert view.initial_state() == (HardState(3, 2, 8), snapshot(4).configuration)
    assert view.snapshot_meta() == snapshot(4)
    assert list(harness.store.rows(1)) == [(b"a", b""), (b"b", b"2"), (b"c" * 480, b"3" * 200_000)]
    assert harness.store.entry(1, 100) == entry(100, b"z" * 70_000)
    harness.close()


@pytest.mark.parametrize("size", [0, 1, 65_490, 65_491, 65_492, 131_000, 1_000_000])
def test_big_entries_are_cut_into_pieces_and_joined_again(harness: Harness, size: int) -> None:
    """The bounds of a piece are no bounds of an entry."""
    data = random.Random(size).randbytes(size)
    harness.write(GroupWrite(1, entries=[entry(1), entry(2, data), entry(3)], live_rows=[entry(9, data)]))
    again = harness.reopen()
    assert again.store.view(1).entries(1, 4, BIG) == [entry(1), entry(2, data), entry(3)]
    assert again.store.data(1, 9) == data
    assert list(again.store.stored_below(1, 9)) == [1, 2, 3, 9]
    again.write(GroupWrite(1, truncate_from=2, entries=[entry(2, b"new", 2)]))
    third = again.reopen()
    assert third.store.view(1).entries(1, 3, BIG) == [entry(1), entry(2, b"new", 2)]
    third.close()


def test_entries_stop_at_the_bound_but_give_at_least_one(harness: Harness) -> None:
    """Raft asks for as much as fits in a message."""
    harness.write(GroupWrite(1, entries=entries(1, 10, b"x" * 100)))
    view = harness.store.view(1)
    assert [e.index for e in view.entries(3, 10, 1)] == [3]
    assert [e.index for e in view.entries(3, 10, 250)] == [3, 4]
    with pytest.raises(Unavailable):
        view.entries(3, 11, BIG)
    with pytest.raises(Unavailable):
        view.term(10)


def test_truncate_replaces_the_suffix(harness: Harness) -> None:
    """Raft 5.3: a follower deletes what conflicts with its leader's log, and all that follows."""
    harness.write(GroupWrite(1, entries=entries(1, 10)))
    new = entries(5, 7, b"other", 2)
    harness.write(GroupWrite(1, truncate_from=5, entries=new))
    current = harness
    for reopened in (False, True):
        current = harness.reopen() if reopened else harness
        view = current.store.view(1)
        assert view.last_index() == 6
        assert view.entries(4, 7, BIG) == [entry(4), *new]
        assert [view.term(4), view.term(5)] == [1, 2]
        with pytest.raises(KeyError):
            current.store.data(1, 7)
    current.close()


def test_overlay_shows_writes_that_are_not_durable(harness: Harness) -> None:
    """A turn's writes are read at once; the newest durable snapshot is what it was."""
    harness.write(GroupWrite(1, entries=entries(1, 6)))
    write = GroupWrite(1, truncate_from=4, entries=entries(4, 6, b"new", 2), hard_state=HardState(2, 1, 3))
    write.checkpoint, write.checkpoint_rows = snapshot(3), [(b"k", b"v")]
    write.live_rows = [entry(50, b"live")]
    number = harness.note(write)
    view = harness.store.view(1)
    assert view.entries(3, 6, BIG) == [entry(3), *entries(4, 6, b"new", 2)]
    assert list(harness.store.rows(1)) == [(b"k", b"v")]
    assert harness.store.data(1, 50) == b"live"
    assert list(harness.store.stored_below(1, 60)) == [1, 2, 3, 4, 5, 50]
    assert view.snapshot_meta().index == 0
    harness.writer.submit(number, [write])
    harness.wait()
    assert view.snapshot_meta() == snapshot(3)
    assert list(harness.store.rows(1)) == [(b"k", b"v")]
    assert harness.store.data(1, 50) == b"live"


def test_overlay_shows_the_newest_while_an_older_write_becomes_durable(harness: Harness) -> None:
    """The place of a row is for reads of what was written with it, not of what came over it since."""
    older = GroupWrite(1, entries=[entry(1, b"old")], live_rows=[entry(50, b"old")])
    newer = GroupWrite(1, truncate_from=1, entries=[entry(1, b"new", 2)], live_rows=[entry(50, b"new")])
    numbers = [harness.note(older), harness.note(newer)]
    for number, write in zip(numbers, (older, newer), strict=True):
        assert (harness.store.data(1, 1), harness.store.data(1, 50)) == (b"new", b"new")
        harness.writer.submit(number, [write])
        harness.wait()
    assert (harness.store.data(1, 1), harness.store.data(1, 50)) == (b"new", b"new")


def test_overlay_hides_truncated_rows_before_they_are_gone(harness: Harness) -> None:
    """What a truncation deletes must not be read back from disk while the deletion is on its way."""
    harness.write(GroupWrite(1, entries=entries(1, 6)))
    again = harness.reopen()
    again.note(GroupWrite(1, truncate_from=4))
    with pytest.raises(KeyError):
        again.store.data(1, 4)
    assert again.store.data(1, 3) == b"data"
    assert list(again.store.stored_below(1, 9)) == [1, 2, 3]
    again.close()


def test_rows_deleted_and_changed(harness: Harness) -> None:
    """A checkpoint writes what changed: None deletes, a shorter value leaves no piece of the longer."""
    write = GroupWrite(1, checkpoint=SnapshotMeta(0, 0, 0, FIRST, 0))
    write.checkpoint_rows = [(b"a", b"1" * 300_000), (b"b", b"2" * 300_000), (b"c", b"3")]
    harness.write(write)
    write = GroupWrite(1, checkpoint=SnapshotMeta(0, 0, 0, FIRST, 0))
    write.checkpoint_rows = [(b"a", b"short"), (b"b", None), (b"x", None)]
    number = harness.note(write)
    wanted = [(b"a", b"short"), (b"c", b"3")]
    assert list(harness.store.rows(1)) == wanted
    harness.writer.submit(number, [write])
    again = harness.reopen()
    assert list(again.store.rows(1)) == wanted
    with again.environment.lmdb.begin() as txn:
        assert txn.stat(again.environment.tables[b"row_pieces"])["entries"] == 0
    again.close()


def test_compaction_hides_entries_from_raft_but_keeps_their_rows(harness: Harness) -> None:
    """Below the compacted index Raft sees nothing; the data of a live message is still there."""
    harness.write(
        GroupWrite(1, entries=[*entries(1, 5), *entries(5, 9, term=2)], hard_state=HardState(2, 0, 8))
    )
    harness.write(GroupWrite(1, checkpoint=snapshot(8, 2), compact_to=6, compact_term=2))
    current = harness
    for reopened in (False, True):
        current = harness.reopen() if reopened else harness
        view = current.store.view(1)
        assert (view.first_index(), view.last_index(), view.term(6)) == (7, 8, 2)
        with pytest.raises(Compacted):
            view.term(5)
        with pytest.raises(Compacted):
            view.entries(6, 8, BIG)
        assert current.store.data(1, 2) == b"data"
        assert list(current.store.stored_below(1, 6)) == [1, 2, 3, 4, 5, 6]
    current.close()


def test_trims_go_in_bounded_steps_until_all_are_done(harness: Harness) -> None:
    """More trims than one transaction takes: the rest follows without another turn."""
    harness.write(GroupWrite(1, entries=entries(1, 3001), hard_state=HardState(1, 0, 3000)))
    trims = [index for index in range(1, 3000) if index % 3]
    harness.write(GroupWrite(1, checkpoint=snapshot(3000), compact_to=2999, compact_term=1, trims=trims))
    again = harness.reopen()
    assert list(again.store.stored_below(1, 2999)) == [index for index in range(1, 3000) if not index % 3]
    with pytest.raises(KeyError):
        again.store.data(1, 1)
    again.close()


@pytest.mark.parametrize("settled", [False, True])
def test_install_replaces_the_state_and_keeps_applied_rows(harness: Harness, settled: bool) -> None:
    """Raft 7: a snapshot ahead of the log replaces it; what is applied here is the same in it."""
    harness.write(GroupWrite(1, entries=entries(1, 10, b"old"), hard_state=HardState(1, 0, 4)))
    write = GroupWrite(1, checkpoint=SnapshotMeta(0, 0, 0, FIRST, 0), checkpoint_rows=[(b"gone", b"1")])
    harness.write(write)
    harness.write(GroupWrite(1, live_rows=[entry(15, b"live")]))
    rows = [(b"new", b"2" * 100_000)]
    write = GroupWrite(1, install=snapshot(20, 3), install_rows=rows, install_applied=5)
    write.hard_state = HardState(3, 0, 20)
    number = harness.note(write)
    if settled:
        harness.writer.submit(number, [write])
        harness.wait()
        harness = harness.reopen()
    view = harness.store.view(1)
    assert (view.first_index(), view.last_index(), view.term(20)) == (21, 20, 3)
    assert list(harness.store.rows(1)) == rows
    assert list(harness.store.stored_below(1, 20)) == [1, 2, 3, 4, 5, 15]
    assert (harness.store.data(1, 5), harness.store.data(1, 15)) == (b"old", b"live")
    with pytest.raises(KeyError):
        harness.store.data(1, 6)
    if settled:
        assert view.snapshot_meta() == snapshot(20, 3)
        harness.write(GroupWrite(1, entries=entries(21, 23, term=3), trims=[1, 15]))
        harness = harness.reopen()
        assert harness.store.view(1).last_index() == 22
        assert list(harness.store.stored_below(1, 20)) == [2, 3, 4, 5]
    harness.close()


def test_cache_gives_fresh_entries_and_stays_bounded(harness: Harness) -> None:
    """A message consumed soon after it was published never touches the disk."""
    for index in range(1, 41):
        harness.write(GroupWrite(1, entries=[entry(index, b"%d" % index * 50_000)]))
    newest = harness.store.entry(1, 40)
    assert newest is harness.store.entry(1, 40)
    assert harness.store.data(1, 1) == b"1" * 50_000
    assert harness.store.view(1).entries(1, 41, BIG) == [entry(i, b"%d" % i * 50_000) for i in range(1, 41)]


@pytest.mark.parametrize("spoil", ["data", "index", "short"])
def test_corrupt_entry_is_found_and_named(harness: Harness, spoil: str) -> None:
    """LMDB checks nothing: a flipped bit or a row in the wrong place must not become a message."""
    harness.write(GroupWrite(1, entries=entries(1, 4, b"x" * 100)))
    harness = harness.reopen()
    log = harness.environment.log(1)
    with harness.environment.lmdb.begin(write=True) as txn:
        row = bytearray(txn.get(keys.log_key(2), db=log))
        if spoil == "data":
            row[-1] ^= 1
        elif spoil == "short":
            del row[20:]
        else:
            row = bytearray(txn.get(keys.log_key(3), db=log))
        txn.put(keys.log_key(2), bytes(row), db=log)
    with pytest.raises(CorruptRow, match="group 1 index 2"):
        harness.reopen().store.entry(1, 2)


def test_lost_committed_entries_stop_the_group(harness: Harness) -> None:
    """A replica that lost its log must not vote: better not to start."""
    harness.write(GroupWrite(1, entries=entries(1, 4), hard_state=HardState(1, 0, 3)))
    harness = harness.reopen()
    with harness.environment.lmdb.begin(write=True) as txn:
        txn.delete(keys.log_key(3), db=harness.environment.log(1))
    with pytest.raises(StoreError, match="group 1: the log ends at 2"):
        harness.reopen()


def test_random_turns_read_like_a_list(harness: Harness) -> None:
    """Any order of appends, truncations, compactions and settling reads as a plain list would."""
    draw = random.Random(4)
    model: list[Entry] = []
    compacted = 0
    waiting: list[tuple[int, GroupWrite]] = []
    for term in range(1, 200):
        write = GroupWrite(1)
        last = compacted + len(model)
        if draw.random() < 0.3 and model:
            write.truncate_from = draw.randint(compacted + 1, last)
            last = write.truncate_from - 1
            del model[last - compacted :]
        write.entries = [
            entry(last + 1 + i, draw.randbytes(draw.randint(0, 90_000)), term)
            for i in range(draw.randint(0, 3))
        ]
        model += write.entries
        if draw.random() < 0.1 and len(model) > 1:
            write.compact_to, write.compact_term = compacted + 1, model[0].term
            del model[0]
            compacted += 1
        waiting.append((harness.note(write), write))
        while waiting and draw.random() < 0.5:
            number, ready = waiting.pop(0)
            harness.writer.submit(number, [ready])
        harness.run()
        view = harness.store.view(1)
        assert (view.first_index(), view.last_index()) == (compacted + 1, compacted + len(model))
        assert view.entries(compacted + 1, compacted + len(model) + 1, BIG) == model
        assert [view.term(e.index) for e in model] == [e.term for e in model]
    for number, ready in waiting:
        harness.writer.submit(number, [ready])
    again = harness.reopen()
    assert again.store.view(1).entries(compacted + 1, compacted + len(model) + 1, BIG) == model
    again.close()
