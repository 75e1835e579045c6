"""Bytes of a record of the journal: the writes of the turns that became durable with one append.

    header   magic 4 s, sequence u64, length of the meta u32, length of the rows u32, checksum u32
    meta     the writes, each with the lengths of its rows in the place of its entries
    rows     the entries, as they stand in the log table but not cut into pieces

The checksum in the header covers the header, the meta and the seed, which is the data directory's own: what a
publisher writes into a message, or another directory's journal, is never taken for a record. Each row carries
the checksum that it has in the log table, so a byte is summed once, and a row can be read back by itself.
"""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from cluster.ports import GroupWrite
from cluster.types import Entry
from node.store import keys
from node.store.checksum import checksum, matches

MAGIC = b"wjr1"

_HEADER = struct.Struct(">4sQII")
_SUM = struct.Struct(">I")
HEADER_BYTES = _HEADER.size + _SUM.size

INSTALL, TRUNCATE, ENTRIES, HARD, CHECKPOINT, COMPACT, TRIMS, LIVE = (1 << bit for bit in range(8))
NO_VALUE = 0xFFFFFFFF
"""Length of the value of a row of saved state that is deleted."""

_WRITE = struct.Struct(">IB")  # group, which fields follow
_INDEX = struct.Struct(">Q")
_TWO = struct.Struct(">QQ")
_ENTRIES = struct.Struct(">QI")  # first index, count
_LIVE_ROW = struct.Struct(">QI")  # index, length
_LENGTH = struct.Struct(">I")

Row = tuple[bytes, bytes | None]


class Spot(NamedTuple):
    """Where the row of an entry stands in the journal."""

    index: int  # type: ignore[assignment]  # the word of the log; tuple.index is not used
    segment: int
    offset: int
    length: int


@dataclass(slots=True)
class Journaled:
    """A write that is in the journal.

    Args:
        write: all but the entries and live rows, which need not be in memory any more.
        entries: where its entries stand.
        live_rows: where its live rows stand.
    """

    write: GroupWrite
    entries: list[Spot]
    live_rows: list[Spot]


class Body(NamedTuple):
    """What a record says, ready to be written behind a header."""

    meta: bytes
    rows: list[bytes]
    rows_bytes: int

    @property
    def bytes(self) -> int:
        """Length of the record."""
        return HEADER_BYTES + len(self.meta) + self.rows_bytes


def encode(writes: Iterable[GroupWrite]) -> Body:
    """The body of a record of these writes."""
    meta: list[bytes] = []
    rows: list[bytes] = []
    for write in writes:
        _encode_write(write, meta, rows)
    return Body(b"".join(meta), rows, sum(map(len, rows)))


def header(sequence: int, body: Body, seed: bytes) -> bytes:
    """What stands before a body."""
    head = _HEADER.pack(MAGIC, sequence, len(body.meta), body.rows_bytes)
    return head + _SUM.pack(checksum(seed, head, body.meta))


def locate(writes: Iterable[GroupWrite], segment: int, offset: int) -> list[Journaled]:
    """The writes of a record whose rows begin at the offset."""
    located = []
    for write in writes:
        spots: list[Spot] = []
        for entry in (*write.entries, *write.live_rows):
            length = keys.ENTRY_HEAD_BYTES + len(entry.data)
            spots.append(Spot(entry.index, segment, offset, length))
            offset += length
        count = len(write.entries)
        located.append(Journaled(write, spots[:count], spots[count:]))
    return located


def lengths_at(data: memoryview, at: int, seed: bytes) -> tuple[int, int, int] | None:
    """(sequence, length of the meta, of the rows) where a header and a meta stand that agree; else None."""
    if len(data) - at < HEADER_BYTES or data[at : at + len(MAGIC)] != MAGIC:
        return None
    _, sequence, meta_bytes, rows_bytes = _HEADER.unpack_from(data, at)
    (found,) = _SUM.unpack_from(data, at + _HEADER.size)
    meta = data[at + HEADER_BYTES : at + HEADER_BYTES + meta_bytes]
    if len(meta) != meta_bytes or not matches(found, seed, data[at : at + _HEADER.size], meta):
        return None
    return sequence, meta_bytes, rows_bytes


def decode(meta: memoryview, segment: int, offset: int) -> list[Journaled]:
    """The writes of a record, from a meta that was checked; its rows begin at the offset."""
    reader = _Reader(meta)
    located = []
    while reader.at < len(meta):
        found = _decode_write(reader, segment, offset)
        offset += sum(spot.length for spot in (*found.entries, *found.live_rows))
        located.append(found)
    return located


def rows_are_whole(data: memoryview, located: Iterable[Journaled]) -> bool:
    """Whether all rows of a record match their checksums; `data` is the segment."""
    return all(
        keys.entry_is_whole(found.write.group, spot.index, data[spot.offset : spot.offset + spot.length])
        for found in located
        for spot in (*found.entries, *found.live_rows)
    )


# -- one write -----------------------------------------------------------------------------------------


def _encode_write(write: GroupWrite, meta: list[bytes], rows: list[bytes]) -> None:
    group, fields = write.group, 0
    begin = len(meta)
    meta.append(b"")  # group and fields, once they are known
    if write.install is not None:
        fields |= INSTALL
        meta += (_blob(keys.encode_snapshot(group, write.install)), _INDEX.pack(write.install_applied))
        _encode_rows(write.install_rows, meta)
    if write.truncate_from is not None:
        fields |= TRUNCATE
        meta.append(_INDEX.pack(write.truncate_from))
    if write.entries:
        fields |= ENTRIES
        meta.append(_ENTRIES.pack(write.entries[0].index, len(write.entries)))
        meta.append(_packed("I", [_add_row(group, entry, rows) for entry in write.entries]))
    if write.hard_state is not None:
        fields |= HARD
        meta.append(_blob(keys.encode_hard_state(group, write.hard_state)))
    if write.checkpoint is not None:
        fields |= CHECKPOINT
        meta.append(_blob(keys.encode_snapshot(group, write.checkpoint)))
        _encode_rows(write.checkpoint_rows, meta)
    if write.compact_to is not None:
        fields |= COMPACT
        meta.append(_TWO.pack(write.compact_to, write.compact_term))
    if write.trims:
        fields |= TRIMS
        meta.append(_LENGTH.pack(len(write.trims)))
        meta.append(_packed("Q", write.trims))
    if write.live_rows:
        fields |= LIVE
        meta.append(_LENGTH.pack(len(write.live_rows)))
        meta += [_LIVE_ROW.pack(entry.index, _add_row(group, entry, rows)) for entry in write.live_rows]
    meta[begin] = _WRITE.pack(group, fields)


def _packed(kind: str, numbers: Sequence[int]) -> bytes:
    return struct.pack(f">{len(numbers)}{kind}", *numbers)


def _add_row(group: int, entry: Entry, rows: list[bytes]) -> int:
    head, data = keys.encode_entry(group, entry)
    rows += (head, data)
    return len(head) + len(data)


def _encode_rows(rows: Iterable[Row], meta: list[bytes]) -> None:
    rows = list(rows)
    meta.append(_LENGTH.pack(len(rows)))
    for key, value in rows:
        meta += (_blob(key), _LENGTH.pack(NO_VALUE)) if value is None else (_blob(key), _blob(value))


def _blob(data: bytes) -> bytes:
    return _LENGTH.pack(len(data)) + data


class _Reader:
    """Takes what stands next in a meta."""

    def __init__(self, meta: memoryview) -> None:
        self.at = 0
        self._meta = meta

    def numbers(self, shape: struct.Struct) -> tuple[Any, ...]:
        self.at += shape.size
        return shape.unpack_from(self._meta, self.at - shape.size)

    def number(self, shape: struct.Struct) -> int:
        return int(self.numbers(shape)[0])

    def blob(self) -> bytes | None:
        length = self.number(_LENGTH)
        if length == NO_VALUE:
            return None
        self.at += length
        return bytes(self._meta[self.at - length : self.at])

    def rows(self) -> list[Row]:
        return [(self.blob() or b"", self.blob()) for _ in range(self.number(_LENGTH))]


def _decode_write(reader: _Reader, segment: int, offset: int) -> Journaled:
    group, fields = reader.numbers(_WRITE)
    write = GroupWrite(group)
    entries: list[Spot] = []
    live_rows: list[Spot] = []
    if fields & INSTALL:
        write.install = keys.decode_snapshot(group, reader.blob() or b"")
        write.install_applied = reader.number(_INDEX)
        write.install_rows = [(key, value or b"") for key, value in reader.rows()]
    if fields & TRUNCATE:
        write.truncate_from = reader.number(_INDEX)
    if fields & ENTRIES:
        first, count = reader.numbers(_ENTRIES)
        for index, length in enumerate(reader.numbers(struct.Struct(f">{count}I")), first):
            entries.append(Spot(index, segment, offset, length))
            offset += length
    if fields & HARD:
        write.hard_state = keys.decode_hard_state(group, reader.blob() or b"")
    if fields & CHECKPOINT:
        write.checkpoint = keys.decode_snapshot(group, reader.blob() or b"")
        write.checkpoint_rows = reader.rows()
    if fields & COMPACT:
        write.compact_to, write.compact_term = reader.numbers(_TWO)
    if fields & TRIMS:
        write.trims = list(reader.numbers(struct.Struct(f">{reader.number(_LENGTH)}Q")))
    if fields & LIVE:
        for _ in range(reader.number(_LENGTH)):
            index, length = reader.numbers(_LIVE_ROW)
            live_rows.append(Spot(index, segment, offset, length))
            offset += length
    return Journaled(write, entries, live_rows)
