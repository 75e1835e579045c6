"""The journal: a ring of files in front of LMDB; a turn is durable once its record is here (ADR 13).

Records stand one behind the other, each on whole blocks, so that a write that was torn never touched an earlier
one. Segments are filled with zeros once and then written again and again: an append changes no size and no
extent, so it needs one flush. What a segment held in a former life is told by its sequence, which is not above
the one that LMDB has reached. Records go to the disk from memory of our own, past the page cache (ADR 20).

Which segments may go is not known here. All is for one thread, but `read` and `drop_pages`.
"""

import errno
import os
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from cluster.ports import GroupWrite
from node.store import record
from node.store.aio import AsyncWrite, PageMemory
from node.store.errors import StoreError
from node.store.record import Body, Journaled, Spot

BLOCK_BYTES = 4096
SEGMENTS = 10
SEGMENT_BYTES = 8 << 20
"""80 MiB in all. The folder lags up to 8 segments behind (see folder.py): 56 MiB and more, in which most messages
are published, consumed and trimmed, and which a start replays in well under a second."""
BUFFER_BYTES = 8 << 20
"""Memory that is kept; a record that is larger gets its own. Most are below RECORD_BYTES_MAX (writer.py)."""
SEGMENT_ENTRIES_MAX = 6000
"""A position in memory costs about 400 bytes: with this at most 24 MB, where entries are small."""


class Record(NamedTuple):
    """A record that was found in a segment."""

    sequence: int
    segment: int
    writes: list[Journaled]


class _UnderWay(NamedTuple):
    """A record that is being appended."""

    segment: int
    memory: PageMemory
    length: int
    offset: int
    rows_at: int


class Journal:
    """The files `journal.N` of a data directory.

    Args:
        folder: where they are.
        seed: of all checksums; the data directory's own.
        folded: the sequence that LMDB has reached: records above it count.
        is_new: the directory never had a journal; otherwise each file must be there.
        sync: False only in tests.
        segment_bytes: usual size of a file; a record that is larger makes its file larger for a while.

    Raises:
        StoreError
    """

    def __init__(
        self,
        folder: Path,
        *,
        seed: bytes,
        folded: int,
        is_new: bool,
        sync: bool = True,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        self._folder = folder
        self._seed = seed
        self._folded = folded
        self._sync = sync
        self._segment_bytes = segment_bytes
        self._fds: list[int] = []  # to append
        self._readable: list[int] = []
        self._buffer = PageMemory(BUFFER_BYTES)
        self._under_way: _UnderWay | None = None
        self._written = 0  # bytes of what is under way
        self._disk = AsyncWrite()
        try:
            flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if is_new else 0)
            for segment in range(SEGMENTS):
                self._fds.append(_open(self._path(segment), flags, sync=sync))
                self._readable.append(os.open(self._path(segment), os.O_RDONLY | os.O_CLOEXEC))
            if is_new:
                self._size_all()
                _sync_folder(folder)
        except OSError as error:
            self.close()
            raise StoreError(f"journal of data directory {folder} cannot be used: {error}") from error
        self._sequence = folded
        self._segment = 0
        self._entries = 0  # in the current segment
        self._filled = [0] * SEGMENTS  # bytes, 0: free
        self._free: deque[int] = deque()
        self._is_ending = False

    def close(self) -> None:
        """Close the files."""
        fds, self._fds, self._readable = self._fds + self._readable, [], []
        for fd in fds:
            os.close(fd)
        if fds:
            self._disk.close()

    @property
    def unfolded_bytes(self) -> int:
        """Bytes of records that LMDB has not taken over."""
        return sum(self._filled)

    # -- appending ---------------------------------------------------------------------------------------

    def make_room(self, length: int) -> bool:
        """Find a place for a record of so many bytes; False: all segments are full, until one is released."""
        filled = self._filled[self._segment]
        is_full = filled + length > self._segment_bytes or self._entries >= SEGMENT_ENTRIES_MAX
        if filled == 0 or not is_full:
            return True
        if not self._free:
            return self._is_ending  # then the file grows: nobody releases segments any more
        self._segment = self._free.popleft()
        self._entries = 0
        return True

    def append(self, body: Body) -> None:
        """Begin to make a record durable, after `make_room`; nothing else may be under way.

        Raises:
            OSError: nothing may be promised any more.
        """
        segment = self._segment
        self._sequence += 1
        head = record.header(self._sequence, body, self._seed)
        # Whole blocks: the kernel need not read what stood in the rest of the last one.
        length = body.bytes + -body.bytes % BLOCK_BYTES
        memory = self._buffer if length <= BUFFER_BYTES else PageMemory(length)
        at = 0
        for part in (head, body.meta, *body.rows, bytes(length - body.bytes)):
            memory.view[at : at + len(part)] = part
            at += len(part)
        offset = self._filled[segment]
        rows_at = offset + record.HEADER_BYTES + len(body.meta)
        self._under_way = _UnderWay(segment, memory, length, offset, rows_at)
        self._filled[segment] = offset + length
        self._disk.begin(self._fds[segment], memory, 0, length, offset)

    @property
    def is_appending(self) -> bool:
        """Whether a record is under way."""
        return self._under_way is not None

    def fileno(self) -> int:
        """Readable when there is news of the record that is under way."""
        return self._disk.fileno()

    def wait(self) -> None:
        """Until there is."""
        self._disk.wait()

    def advance(self, writes: Sequence[GroupWrite]) -> list[Journaled] | None:
        """When `fileno` is readable: where the rows of the record stand if it is durable; None: a part is not yet.

        Raises:
            OSError: nothing may be promised any more.
        """
        under_way = self._under_way
        assert under_way is not None
        segment, memory, length, offset, rows_at = under_way
        done = self._written + self._disk.end()
        if done < length:  # if the disk is full, the next call says so
            self._written = done
            self._disk.begin(self._fds[segment], memory, done, length, offset + done)
            return None
        self._under_way, self._written = None, 0
        located = record.locate(writes, segment, rows_at)
        self._entries += sum(len(found.entries) + len(found.live_rows) for found in located)
        return located

    @property
    def sequence(self) -> int:
        """Of the last record."""
        return self._sequence

    @property
    def segment(self) -> int:
        """Where the last record stands."""
        return self._segment

    def release(self, segment: int) -> None:
        """A segment may be written again: LMDB has what is in it, and nobody knows a position in it any more."""
        if not self._fds:
            return
        if self._filled[segment] > self._segment_bytes:
            os.ftruncate(self._fds[segment], self._segment_bytes)
        self._filled[segment] = 0
        self._free.append(segment)

    def end(self) -> None:
        """Do without room from now on."""
        self._is_ending = True

    # -- reading -----------------------------------------------------------------------------------------

    def read(self, spot: Spot) -> bytes:
        """The row that stands there, not checked."""
        return os.pread(self._readable[spot.segment], spot.length, spot.offset)

    def drop_pages(self, segment: int) -> None:
        """Have the kernel forget what a segment held.

        Its pages are as large as the reads that made them, and the writes where O_DIRECT is not to be had: up to
        megabytes. Who then writes a part of one through the page cache makes all of it dirty, and is charged for it.
        """
        os.posix_fadvise(self._fds[segment], 0, 0, os.POSIX_FADV_DONTNEED)

    # -- the start ---------------------------------------------------------------------------------------

    def records(self) -> list[Record]:
        """All records that LMDB lacks, in order. One that was torn, and so never promised, is left out.

        Raises:
            StoreError: a record is missing or damaged, and a later one is not.
        """
        try:
            found = sorted(item for segment in range(SEGMENTS) for item in self._scan(segment))
        except OSError as error:
            raise StoreError(f"journal of data directory {self._folder} cannot be read: {error}") from error
        for expected, item in enumerate(found, self._folded + 1):
            if item.sequence != expected:
                raise StoreError(
                    f"journal of data directory {self._folder} is damaged: record {expected} is missing or does not "
                    f"match its checksum, but record {found[-1].sequence} is there"
                )
        return found

    def begin(self, sequence: int) -> None:
        """Empty, after all records were folded; the next one has the number after this."""
        try:
            self._size_all()
        except OSError as error:
            raise StoreError(
                f"journal of data directory {self._folder} cannot be written: {error}"
            ) from error
        for segment in range(SEGMENTS):
            self.drop_pages(segment)
        self._sequence = self._folded = sequence
        self._filled = [0] * SEGMENTS
        self._segment, self._entries = 0, 0
        self._free = deque(range(1, SEGMENTS))

    def _scan(self, segment: int) -> Iterator[Record]:
        with open(self._readable[segment], "rb", buffering=0, closefd=False) as file:
            file.seek(0)
            data = memoryview(file.readall())
        at = 0
        while at < len(data):
            lengths = record.lengths_at(data, at, self._seed)
            step = BLOCK_BYTES
            if lengths is not None:
                sequence, meta_bytes, rows_bytes = lengths
                rows_at = at + record.HEADER_BYTES + meta_bytes
                whole = True
                if sequence > self._folded:
                    meta = data[at + record.HEADER_BYTES : rows_at]
                    writes = record.decode(meta, segment, rows_at)
                    whole = record.rows_are_whole(data, writes)
                    if whole:
                        yield Record(sequence, segment, writes)
                if whole:
                    step = -(-(rows_at + rows_bytes - at) // BLOCK_BYTES) * BLOCK_BYTES
            at += step

    def _path(self, segment: int) -> Path:
        return self._folder / f"journal.{segment}"

    def _size_all(self) -> None:
        """Give every file its usual size; where there was nothing there are zeros, written and not only promised."""
        for fd in self._fds:
            size = os.fstat(fd).st_size
            if size > self._segment_bytes or not self._sync:
                os.ftruncate(fd, self._segment_bytes)
            elif size < self._segment_bytes:
                self._fill(fd, size - size % BLOCK_BYTES)

    def _fill(self, fd: int, offset: int) -> None:
        """Write zeros up to the usual size."""
        while offset < self._segment_bytes:  # if the disk is full, this call says so
            rest = min(self._segment_bytes - offset, BUFFER_BYTES)
            offset += os.pwrite(fd, self._buffer.view[:rest], offset)


def _open(path: Path, flags: int, *, sync: bool) -> int:
    """A segment to append to: past the page cache, but on file systems that cannot (tmpfs, some of FUSE)."""
    if not sync:
        return os.open(path, flags, 0o644)
    try:
        return os.open(path, flags | os.O_DSYNC | os.O_DIRECT, 0o644)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    return os.open(path, flags | os.O_DSYNC, 0o644)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
