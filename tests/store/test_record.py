"""A record of the journal says exactly what was submitted, and nothing else is taken for one."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from cluster.ports import GroupWrite
from cluster.types import Configuration, Entry, HardState, SnapshotMeta
from node.store import keys, record
from node.store.record import Journaled

SEED = b"of this directory"

u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
nodes = st.lists(st.integers(1, 99), max_size=3).map(tuple)
configurations = st.builds(Configuration, nodes, nodes, nodes, nodes, st.booleans())
positions = st.builds(SnapshotMeta, u64, u64, u64, configurations, u32)
payload = st.one_of(st.binary(max_size=20), st.just(b"x" * 70_000))
row_keys = st.binary(max_size=keys.ROW_KEY_BYTES_MAX)
live_entries = st.builds(Entry, u64, u64, st.integers(0, 255), u64, payload)


@st.composite
def writes(draw: st.DrawFn) -> GroupWrite:
    """Any write that a group may submit."""
    write = GroupWrite(draw(u32))
    if draw(st.booleans()):
        write.install = draw(positions)
        write.install_rows = draw(st.lists(st.tuples(row_keys, payload), max_size=3))
        write.install_applied = draw(u64)
    if draw(st.booleans()):
        write.checkpoint = draw(positions)
        write.checkpoint_rows = draw(st.lists(st.tuples(row_keys, st.none() | payload), max_size=3))
    if draw(st.booleans()):
        write.compact_to, write.compact_term = draw(u64), draw(u64)
    write.truncate_from = draw(st.none() | u64)
    first = draw(st.integers(0, 2**63))
    data = draw(st.lists(payload, max_size=3))
    write.entries = [Entry(index, draw(u64), 1, draw(u64), one) for index, one in enumerate(data, first)]
    write.hard_state = draw(st.none() | st.builds(HardState, u64, u32, u64))
    write.trims = draw(st.lists(u64, max_size=5))
    write.live_rows = draw(st.lists(live_entries, max_size=3))
    return write


def joined(group_writes: list[GroupWrite], sequence: int = 1) -> bytes:
    body = record.encode(group_writes)
    data = b"".join([record.header(sequence, body, SEED), body.meta, *body.rows])
    assert len(data) == body.bytes
    return data


def decoded(data: memoryview, at: int) -> list[Journaled]:
    lengths = record.lengths_at(data, at, SEED)
    assert lengths is not None
    rows_at = at + record.HEADER_BYTES + lengths[1]
    found = record.decode(data[at + record.HEADER_BYTES : rows_at], 3, rows_at)
    assert record.rows_are_whole(data, found)
    assert rows_at + lengths[2] == len(data)
    return found


@given(st.lists(writes(), max_size=3), u64, st.integers(0, 100))
def test_what_was_written_is_decoded(group_writes: list[GroupWrite], sequence: int, at: int) -> None:
    """All fields of all writes come back, and the rows stand where the writer was told."""
    data = memoryview(bytes(at) + joined(group_writes, sequence))
    lengths = record.lengths_at(data, at, SEED)
    assert lengths is not None and lengths[0] == sequence
    found = decoded(data, at)
    rows_at = at + record.HEADER_BYTES + lengths[1]
    located = record.locate(group_writes, 3, rows_at)
    assert [(one.entries, one.live_rows) for one in found] == [
        (one.entries, one.live_rows) for one in located
    ]

    def entry(group: int, spot: record.Spot) -> Entry:
        row = data[spot.offset : spot.offset + spot.length]
        return keys.decode_entry(group, spot.index, [row])

    restored = [
        replace(
            one.write,
            entries=[entry(one.write.group, spot) for spot in one.entries],
            live_rows=[entry(one.write.group, spot) for spot in one.live_rows],
        )
        for one in found
    ]
    assert restored == group_writes


def is_taken(data: bytes, seed: bytes = SEED) -> bool:
    view = memoryview(data)
    lengths = record.lengths_at(view, 0, seed)
    if lengths is None:
        return False
    rows_at = record.HEADER_BYTES + lengths[1]
    return record.rows_are_whole(view, record.decode(view[record.HEADER_BYTES : rows_at], 0, rows_at))


def test_no_flipped_bit_and_no_cut_goes_unnoticed() -> None:
    """Every byte of a record is covered by a checksum."""
    entries = [Entry(5, 1, 1, 9, b"data"), Entry(6, 1, 1, 9, b"more")]
    write = GroupWrite(1, entries=entries, hard_state=HardState(1, 2, 3), trims=[1], live_rows=entries[:1])
    data = joined([write])
    assert is_taken(data)
    for at in range(len(data)):
        spoiled = bytearray(data)
        spoiled[at] ^= 4
        assert not is_taken(bytes(spoiled)), at
        assert not is_taken(data[:at]), at
        assert not is_taken(data[:at] + bytes(len(data) - at)) or data[at:].strip(b"\0") == b"", at


def test_record_of_another_directory_is_none() -> None:
    """The seed is the directory's own: neither a copied file nor a crafted message counts."""
    data = joined([GroupWrite(1, entries=[Entry(1, 1, 1, 1, joined([GroupWrite(1)]))])])
    assert is_taken(data)
    assert not is_taken(data, b"of another")
