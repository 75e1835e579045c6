"""Byte shapes of every key and value in the environment; numbers are big-endian, so that byte order is order.

    table         key                                    value
    meta          name                                   bytes, see environment.py
    groups        group u32, kind u8                     checksum u32, then by kind
    log.<group>   index u64, piece u16                   piece 0: checksum u32, term u64, kind u8, ts u64,
                                                         length u64, data; pieces 1..: data
    live          group u32, index u64, piece u16        as in log
    rows          group u32, key                         checksum u32, length u32, first piece of the value
    row_pieces    group u32, key length u16, key,        further pieces
                  piece u16

A value is cut into pieces of at most `PIECE_BYTES_MAX`: LMDB puts a large value on contiguous pages, and
16 pages are easily found where thousands are not. The checksum covers key, head and all pieces, so a row
that stands in the wrong place is found out as well. (ADR-0005)
"""

import struct
from collections.abc import Iterator

from cluster.types import Configuration, Entry, HardState, SnapshotMeta
from node.store.checksum import Buffer, checksum, matches
from node.store.errors import CorruptRow

PIECE_BYTES_MAX = 16 * 4096 - 16
"""Fills 16 pages of 4 KiB exactly: the page header of an overflow run takes 16 bytes."""
ROW_KEY_BYTES_MAX = 480
"""LMDB allows 511; group, length and piece number stand around a key of the saved state."""

HARD = 0
SNAPSHOT = 1
COMPACTED = 2

_LOG_KEY = struct.Struct(">QH")
_LIVE_KEY = struct.Struct(">IQH")
_GROUP_KEY = struct.Struct(">IB")
_GROUP = struct.Struct(">I")
_SUM = struct.Struct(">I")
_ENTRY_HEAD = struct.Struct(">QBQQ")  # term, kind, ts, length of the data
ENTRY_HEAD_BYTES = _SUM.size + _ENTRY_HEAD.size
"""Of a row of an entry, before its data."""
_ROW_HEAD = struct.Struct(">II")  # checksum, length of the value
_HARD = struct.Struct(">QIQ")
_SNAPSHOT = struct.Struct(">QQQI")
_COMPACTED = struct.Struct(">QQ")
_SEED = struct.Struct(">IQ")

Piece = tuple[bytes, Buffer]


def log_table(group: int) -> bytes:
    """Name of the table that holds the log of a group."""
    return b"log.%d" % group


def log_key(index: int, piece: int = 0) -> bytes:
    """Key in a group's log table."""
    return _LOG_KEY.pack(index, piece)


def live_key(group: int, index: int, piece: int = 0) -> bytes:
    """Key in the table of live rows."""
    return _LIVE_KEY.pack(group, index, piece)


def split_log_key(key: Buffer) -> tuple[int, int]:
    """(index, piece) of a log key."""
    index, piece = _LOG_KEY.unpack(key)
    return index, piece


def split_live_key(key: Buffer) -> tuple[int, int, int]:
    """(group, index, piece) of a key in the table of live rows."""
    group, index, piece = _LIVE_KEY.unpack(key)
    return group, index, piece


def group_key(group: int, kind: int) -> bytes:
    """Key in the table of groups; kind is HARD, SNAPSHOT or COMPACTED."""
    return _GROUP_KEY.pack(group, kind)


def split_group_key(key: Buffer) -> tuple[int, int]:
    """(group, kind) of a key in the table of groups."""
    group, kind = _GROUP_KEY.unpack(key)
    return group, kind


def group_prefix(group: int) -> bytes:
    """What every key of a group starts with in the shared tables."""
    return _GROUP.pack(group)


def row_key(group: int, key: bytes) -> bytes:
    """Key of a row of saved state. Raises ValueError if the machine's key is too long."""
    if len(key) > ROW_KEY_BYTES_MAX:
        raise ValueError(f"a row key of {len(key)} bytes; at most {ROW_KEY_BYTES_MAX} fit")
    return _GROUP.pack(group) + key


def row_piece_key(group: int, key: bytes, piece: int) -> bytes:
    """Key of a further piece of a row of saved state."""
    return b"%b%b%b%b" % (
        _GROUP.pack(group),
        len(key).to_bytes(2, "big"),
        key,
        piece.to_bytes(2, "big"),
    )


def pieces_of(length: int, head: int) -> int:
    """Number of pieces of a value of `length` bytes whose first piece also carries `head` bytes."""
    rest = length - (PIECE_BYTES_MAX - head)
    return 1 if rest <= 0 else 1 + -(-rest // PIECE_BYTES_MAX)


def entry_pieces(length: int) -> int:
    """Number of pieces of an entry with `length` bytes of data."""
    return pieces_of(length, ENTRY_HEAD_BYTES)


def row_pieces(length: int) -> int:
    """Number of pieces of a row of saved state with `length` bytes of value."""
    return pieces_of(length, _ROW_HEAD.size)


def _split(data: bytes, head: int) -> Iterator[Buffer]:
    """Pieces after the first; views, so that nothing is copied."""
    view = memoryview(data)
    for start in range(PIECE_BYTES_MAX - head, len(data), PIECE_BYTES_MAX):
        yield view[start : start + PIECE_BYTES_MAX]


def encode_entry(group: int, entry: Entry) -> tuple[bytes, bytes]:
    """Row of an entry, in two parts that stand one behind the other: checksum and head, and the data."""
    data = entry.data
    head = _ENTRY_HEAD.pack(entry.term, entry.kind, entry.ts, len(data))
    return _SUM.pack(checksum(_SEED.pack(group, entry.index), head, data)) + head, data


def pieces_of_entry(row: bytes) -> Iterator[Buffer]:
    """What of a whole row stands under each of its keys; views, so that nothing is copied."""
    view = memoryview(row)
    for start in range(0, len(row), PIECE_BYTES_MAX):
        yield view[start : start + PIECE_BYTES_MAX]


def entry_length(group: int, index: int, first: Buffer) -> int:
    """Bytes of data that the first piece of an entry announces. Raises CorruptRow."""
    if len(first) < ENTRY_HEAD_BYTES:
        raise CorruptRow(group, index, "log row")
    length: int = _ENTRY_HEAD.unpack_from(first, _SUM.size)[3]
    return length


def entry_term(group: int, index: int, first: Buffer) -> int:
    """Term that the first piece of an entry announces; the checksum is not looked at. Raises CorruptRow."""
    if len(first) < ENTRY_HEAD_BYTES:
        raise CorruptRow(group, index, "log row")
    term: int = _ENTRY_HEAD.unpack_from(first, _SUM.size)[0]
    return term


def decode_entry(group: int, index: int, pieces: list[Buffer]) -> Entry:
    """An entry from all its pieces. Raises CorruptRow where the checksum does not hold."""
    first = pieces[0]
    length = entry_length(group, index, first)
    (found,) = _SUM.unpack_from(first, 0)
    term, kind, ts, _ = _ENTRY_HEAD.unpack_from(first, _SUM.size)
    data = b"".join([first[ENTRY_HEAD_BYTES:], *pieces[1:]])
    head = first[_SUM.size : ENTRY_HEAD_BYTES]
    if len(data) != length or not matches(found, _SEED.pack(group, index), head, data):
        raise CorruptRow(group, index, "log row")
    return Entry(index, term, kind, ts, data)


def entry_is_whole(group: int, index: int, row: Buffer) -> bool:
    """Whether the checksum of a row in one piece holds."""
    if len(row) < ENTRY_HEAD_BYTES:
        return False
    (found,) = _SUM.unpack_from(row, 0)
    head, data = row[_SUM.size : ENTRY_HEAD_BYTES], row[ENTRY_HEAD_BYTES:]
    return matches(found, _SEED.pack(group, index), head, data)


def encode_row(group: int, key: bytes, value: bytes) -> tuple[bytes, Iterator[Buffer]]:
    """First piece of a row of saved state, and the further ones."""
    found = checksum(row_key(group, key), value)
    first = value[: PIECE_BYTES_MAX - _ROW_HEAD.size]
    return _ROW_HEAD.pack(found, len(value)) + first, _split(value, _ROW_HEAD.size)


def row_length(group: int, first: Buffer) -> int:
    """Bytes of value that the first piece of a row announces. Raises CorruptRow."""
    if len(first) < _ROW_HEAD.size:
        raise CorruptRow(group, None, "row of the saved state")
    length: int = _ROW_HEAD.unpack_from(first, 0)[1]
    return length


def decode_row(group: int, key: bytes, pieces: list[Buffer]) -> bytes:
    """Value of a row of saved state from all its pieces. Raises CorruptRow."""
    length = row_length(group, pieces[0])
    (found, _) = _ROW_HEAD.unpack_from(pieces[0], 0)
    value = b"".join([pieces[0][_ROW_HEAD.size :], *pieces[1:]])
    if len(value) != length or not matches(found, row_key(group, key), value):
        raise CorruptRow(group, None, f"row {key.hex()} of the saved state")
    return value


def encode_hard_state(group: int, state: HardState) -> bytes:
    """Row of a group's hard state."""
    return _sealed(group, HARD, _HARD.pack(state.term, state.vote, state.commit))


def decode_hard_state(group: int, row: bytes) -> HardState:
    """Hard state from its row. Raises CorruptRow."""
    return HardState(*_HARD.unpack(_opened(group, HARD, row, "hard state")))


def encode_snapshot(group: int, meta: SnapshotMeta) -> bytes:
    """Row of the position and the configuration of a group's saved state."""
    c = meta.configuration
    parts = [_SNAPSHOT.pack(meta.index, meta.term, meta.ts, meta.machine_version), bytes([c.auto_leave])]
    sets = (c.voters, c.learners, c.outgoing, c.learners_next)
    parts += [struct.pack(f">H{len(nodes)}I", len(nodes), *nodes) for nodes in sets]
    return _sealed(group, SNAPSHOT, b"".join(parts))


def decode_snapshot(group: int, row: bytes) -> SnapshotMeta:
    """Position and configuration from their row. Raises CorruptRow."""
    body = _opened(group, SNAPSHOT, row, "snapshot row")
    index, term, ts, machine_version = _SNAPSHOT.unpack_from(body, 0)
    at = _SNAPSHOT.size
    auto_leave = bool(body[at])
    at += 1
    sets: list[tuple[int, ...]] = []
    for _ in range(4):
        (count,) = struct.unpack_from(">H", body, at)
        sets.append(struct.unpack_from(f">{count}I", body, at + 2))
        at += 2 + 4 * count
    configuration = Configuration(sets[0], sets[1], sets[2], sets[3], auto_leave)
    return SnapshotMeta(index, term, ts, configuration, machine_version)


def encode_compacted(group: int, index: int, term: int) -> bytes:
    """Row of the last index that Raft has forgotten, and its term."""
    return _sealed(group, COMPACTED, _COMPACTED.pack(index, term))


def decode_compacted(group: int, row: bytes) -> tuple[int, int]:
    """(index, term) from their row. Raises CorruptRow."""
    index, term = _COMPACTED.unpack(_opened(group, COMPACTED, row, "compaction row"))
    return index, term


def _sealed(group: int, kind: int, body: bytes) -> bytes:
    return _SUM.pack(checksum(group_key(group, kind), body)) + body


def _opened(group: int, kind: int, row: bytes, what: str) -> bytes:
    body = row[_SUM.size :]
    if len(row) <= _SUM.size or not matches(_SUM.unpack_from(row, 0)[0], group_key(group, kind), body):
        raise CorruptRow(group, None, what)
    return body
