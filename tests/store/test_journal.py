"""The ring of files: what was appended is found again, what was torn is not, and nothing is missed in silence."""

import errno
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster.ports import GroupWrite
from node.store import keys, record
from node.store.aio import AsyncWrite, PageMemory
from node.store.errors import StoreError
from node.store.journal import BLOCK_BYTES, BUFFER_BYTES, SEGMENT_ENTRIES_MAX, SEGMENTS, Journal
from node.store.record import Journaled
from tests.store.conftest import entries, entry, finish

SEGMENT = 8 * BLOCK_BYTES


def opened(path: Path, folded: int = 0, *, is_new: bool = False, sync: bool = False) -> Journal:
    return Journal(path, seed=b"5", folded=folded, is_new=is_new, sync=sync, segment_bytes=SEGMENT)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """Empty; the next record has the number 1."""
    made = opened(tmp_path, is_new=True)
    made.begin(0)
    yield made
    made.close()


def append(journal: Journal, *writes: GroupWrite) -> list[Journaled]:
    body = record.encode(writes)
    assert journal.make_room(body.bytes)
    return finish(journal, body, writes)


def write_of(number: int, blocks: int = 1) -> GroupWrite:
    return GroupWrite(1, entries=[entry(number, bytes([number]) * (blocks * BLOCK_BYTES - 100))])


def found(path: Path, folded: int = 0) -> list[int]:
    """Numbers of the records that a new life finds."""
    journal = opened(path, folded)
    try:
        return [item.sequence for item in journal.records()]
    finally:
        journal.close()


def edit(path: Path, segment: int, change: Callable[[bytearray], None]) -> None:
    file = path / f"journal.{segment}"
    data = bytearray(file.read_bytes())
    change(data)
    file.write_bytes(data)


def test_records_are_found_in_order_over_all_segments(journal: Journal, tmp_path: Path) -> None:
    """20 records fill three segments; a start finds those that LMDB lacks."""
    places = [append(journal, write_of(number))[0].entries[0] for number in range(1, 21)]
    assert {spot.segment for spot in places} == {0, 1, 2}
    assert journal.unfolded_bytes == 20 * BLOCK_BYTES
    assert found(tmp_path) == list(range(1, 21))
    assert found(tmp_path, 8) == list(range(9, 21))
    assert found(tmp_path, 20) == []


def test_row_is_read_back_by_its_place(journal: Journal) -> None:
    """A spot is all that is kept of an entry in memory."""
    written = entries(1, 4, b"x" * 3000)
    (journaled,) = append(journal, GroupWrite(1, entries=written, live_rows=[entry(9, b"live")]))
    spots = [*journaled.entries, *journaled.live_rows]
    read = [keys.decode_entry(1, spot.index, [journal.read(spot)]) for spot in spots]
    assert read == [*written, entry(9, b"live")]


@pytest.mark.parametrize("sync", [False, True])
def test_large_record_makes_its_file_larger_for_a_while(tmp_path: Path, sync: bool) -> None:
    """A turn is never cut; the file shrinks when it is released, or at the next start."""
    journal = opened(tmp_path, is_new=True, sync=sync)
    journal.begin(0)
    append(journal, write_of(1))
    (spot,) = append(journal, write_of(2, 30))[0].entries
    append(journal, write_of(3))
    assert (spot.segment, journal.segment) == (1, 2)
    assert (tmp_path / "journal.1").stat().st_size == 30 * BLOCK_BYTES
    assert found(tmp_path) == [1, 2, 3]
    journal.release(1)
    assert (tmp_path / "journal.1").stat().st_size == SEGMENT
    assert journal.unfolded_bytes == 2 * BLOCK_BYTES
    append(journal, write_of(4, 30))
    journal.begin(4)
    assert {(tmp_path / f"journal.{n}").stat().st_size for n in range(SEGMENTS)} == {SEGMENT}
    journal.close()


def test_segment_is_closed_when_it_has_many_entries(journal: Journal) -> None:
    """What is kept of entries in memory is bounded by their number too."""
    append(journal, GroupWrite(1, live_rows=entries(1, SEGMENT_ENTRIES_MAX + 1, b"")))
    append(journal, write_of(1))
    assert journal.segment == 1


def test_writer_waits_for_a_free_segment(journal: Journal) -> None:
    """The ring is bounded: who appends faster than LMDB can take over has to wait."""
    for number in range(1, SEGMENTS + 1):
        append(journal, write_of(number, 6))
    assert not journal.make_room(6 * BLOCK_BYTES)
    journal.release(3)
    assert journal.make_room(6 * BLOCK_BYTES)
    assert journal.segment == 3


def test_at_the_end_nobody_waits(journal: Journal, tmp_path: Path) -> None:
    """Nobody releases segments any more: the last file grows instead."""
    journal.end()
    numbers = range(1, SEGMENTS + 5)
    for number in numbers:
        append(journal, write_of(number, 6))
    assert found(tmp_path) == list(numbers)


def test_former_life_of_a_segment_does_not_count(journal: Journal, tmp_path: Path) -> None:
    """Released segments are written over from their beginning; what stands behind is told by its number."""
    for number in range(1, 18):
        append(journal, write_of(number))
    for segment in (0, 1):
        journal.release(segment)
    last = 8 * SEGMENTS + 3
    for number in range(18, last + 1):
        append(journal, write_of(number))
    assert journal.segment == 0
    assert found(tmp_path, 16) == list(range(17, last + 1))


TORN_AT = [0, 1, 4, 11, 24, 25, 60, 100, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES - 101]


@pytest.mark.parametrize("kept", TORN_AT)
@pytest.mark.parametrize("behind", [b"\0", b"old"])
def test_torn_tail_is_dropped(journal: Journal, tmp_path: Path, kept: int, behind: bytes) -> None:
    """An append that did not end was never promised, wherever it was cut and whatever stood there before."""
    append(journal, write_of(1))
    append(journal, write_of(2, 3))

    def tear(data: bytearray) -> None:
        start = BLOCK_BYTES + kept
        rest = 4 * BLOCK_BYTES - start
        data[start : start + rest] = (behind * rest)[:rest]

    edit(tmp_path, 0, tear)
    assert found(tmp_path) == [1]


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_torn_tail_is_dropped_whichever_block_is_lost(journal: Journal, tmp_path: Path, lost: int) -> None:
    """A disk may write the blocks of one append in any order."""
    append(journal, write_of(1))
    append(journal, write_of(2, 3))
    start = (1 + lost) * BLOCK_BYTES
    edit(tmp_path, 0, lambda data: data.__setitem__(slice(start, start + BLOCK_BYTES), bytes(BLOCK_BYTES)))
    assert found(tmp_path) == [1]


@pytest.mark.parametrize(("segment", "at"), [(0, 3), (0, 200), (0, 5 * BLOCK_BYTES + 50), (1, 30)])
def test_damage_before_a_good_record_is_refused(
    journal: Journal, tmp_path: Path, segment: int, at: int
) -> None:
    """What was promised is missing: one line that says so, never a gap."""
    for number in range(1, 11):
        append(journal, write_of(number))
    lost = 8 * segment + at // BLOCK_BYTES + 1
    edit(tmp_path, segment, lambda data: data.__setitem__(at, data[at] ^ 1))
    with pytest.raises(StoreError) as caught:
        found(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert f"record {lost} is missing" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_is_refused(journal: Journal, tmp_path: Path) -> None:
    """Whoever deletes a file of the journal deletes confirmed messages."""
    append(journal, write_of(1))
    (tmp_path / "journal.4").unlink()
    with pytest.raises(StoreError, match=r"cannot be used: .*journal\.4"):
        opened(tmp_path)


def test_creation_that_was_interrupted_is_done_again(tmp_path: Path) -> None:
    """Files that are shorter than usual are filled up, with zeros that are on the disk."""
    (tmp_path / "journal.0").write_bytes(bytes(5000))
    journal = opened(tmp_path, is_new=True, sync=True)
    journal.begin(0)
    sizes = [(tmp_path / f"journal.{n}").stat() for n in range(SEGMENTS)]
    assert {size.st_size for size in sizes} == {SEGMENT}
    assert all(size.st_blocks * 512 >= SEGMENT for size in sizes)
    journal.close()


@pytest.mark.parametrize(
    "sizes", [(5 * BUFFER_BYTES // 2,), (BUFFER_BYTES - 5000, 9000, 3, 70_000, BUFFER_BYTES)]
)
@pytest.mark.parametrize("sync", [True, False])
def test_a_record_larger_than_the_buffer_is_written_whole(
    tmp_path: Path, sizes: tuple[int, ...], sync: bool
) -> None:
    """Its rows lie across the ends of several writes; the next record is found behind it."""
    journal = opened(tmp_path, is_new=True, sync=sync)
    journal.begin(0)
    rows = [entry(number, random.Random(number).randbytes(size)) for number, size in enumerate(sizes, 1)]
    places = append(journal, GroupWrite(1, entries=rows))[0].entries
    read = [
        keys.decode_entry(1, spot.index, list(keys.pieces_of_entry(journal.read(spot)))) for spot in places
    ]
    assert read == rows
    append(journal, write_of(9))
    journal.close()
    assert found(tmp_path) == [1, 2]


def test_a_record_that_the_disk_takes_in_parts_is_written_whole(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was left out is written next; nothing is durable before the end."""
    begin, ends = AsyncWrite.begin, []

    def part(disk: AsyncWrite, fd: int, memory: PageMemory, *place: int) -> None:
        start, end, offset = place
        ends.append(min(end, start + BLOCK_BYTES))
        begin(disk, fd, memory, start, ends[-1], offset)

    monkeypatch.setattr(AsyncWrite, "begin", part)
    rows = [entry(1, random.Random(1).randbytes(3 * BLOCK_BYTES - 100))]
    spot = append(journal, GroupWrite(1, entries=rows))[0].entries[0]
    assert ends == [BLOCK_BYTES, 2 * BLOCK_BYTES, 3 * BLOCK_BYTES]
    assert keys.decode_entry(1, 1, list(keys.pieces_of_entry(journal.read(spot)))) == rows[0]
    assert found(tmp_path) == [1]


def test_a_file_system_without_direct_io_is_written_through_its_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Still with a flush for each append."""
    flags: list[int] = []
    real = os.open

    def refuse(path: Path, wanted: int, mode: int = 0o777) -> int:
        if wanted & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        flags.append(wanted)
        return real(path, wanted, mode)

    monkeypatch.setattr(os, "open", refuse)
    journal = opened(tmp_path, is_new=True, sync=True)
    journal.begin(0)
    append(journal, write_of(1))
    journal.close()
    assert all(wanted & os.O_DSYNC for wanted in flags if wanted & os.O_RDWR)
    assert found(tmp_path) == [1]
