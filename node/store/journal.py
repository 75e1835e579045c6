"""The journal: a ring of files in front of LMDB; a turn is durable once its record is here (ADR 13).

Records stand one behind the other, each on whole blocks, so that a write that was torn never touched an earlier
one. Segments are filled with zeros once and then written again and again: an append changes no size and no
extent, so it needs one flush. What a segment held in a former life is told by its sequence, which is not above
the one that LMDB has reached. Records go to the disk from memory of our own, past the page cache (ADR 20).

The writer's thread appends, the loop's thread reads and releases segments. Which of them may go is not known here.
"""

import errno
import mmap
import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from cluster.ports import GroupWrite
from node.store import record
from node.store.errors import StoreError
from node.store.record import Body, Journaled, Spot

BLOCK_BYTES = 4096
SEGMENTS = 10
SEGMENT_BYTES = 8 << 20
"""80 MiB in all. The folder lags up to 8 segments behind (see folder.py): 56 MiB and more, in which most messages
are published, consumed and trimmed, and which a start replays in well under a second."""
BUFFER_BYTES = 2 << 20
"""Written at once; a record that is larger takes several writes. Most are below RECORD_BYTES_MAX (writer.py)."""
SEGMENT_ENTRIES_MAX = 6000
"""A position in memory costs about 400 bytes: with this at most 24 MB, where entries are small."""


class Record(NamedTuple):
    """A record that was found in a segment."""

    sequence: int
    segment: int
    writes: list[Journaled]


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
        self._buffer = memoryview(
            mmap.mmap(-1, BUFFER_BYTES)
        )  # at the beginning of a page, as O_DIRECT wants it
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
        self._freed = threading.Condition()
        self._is_ending = False

    def close(self) -> None:
        """Close the files."""
        fds, self._fds, self._readable = self._fds + self._readable, [], []
        for fd in fds:
            os.close(fd)

    @property
    def unfolded_bytes(self) -> int:
        """Bytes of records that LMDB has not taken over."""
        return sum(self._filled)

    # -- appending ---------------------------------------------------------------------------------------

    def make_room(self, length: int) -> None:
        """Find a place for a record of so many bytes. Waits while all segments are full."""
        filled = self._filled[self._segment]
        is_full = filled + length > self._segment_bytes or self._entries >= SEGMENT_ENTRIES_MAX
        if filled == 0 or not is_full:
            return
        with self._freed:
            while not self._free and not self._is_ending:
                self._freed.wait()
            if self._free:  # otherwise the file grows: at the end nobody releases segments any more
                self._segment = self._free.popleft()
                self._entries = 0
                self._drop_pages(self._segment)

    def append(self, body: Body, writes: Sequence[GroupWrite]) -> list[Journaled]:
        """Make a record durable, after `make_room`; returns where its rows stand.

        Raises:
            OSError: nothing may be promised any more.
        """
        segment, offset = self._segment, self._filled[self._segment]
        self._sequence += 1
        head = record.header(self._sequence, body, self._seed)
        # Whole blocks: the kernel need not read what stood in the rest of the last one.
        rest = bytes(-body.bytes % BLOCK_BYTES)
        self._write(self._fds[segment], [head, body.meta, *body.rows, rest], offset)
        self._filled[segment] = offset + body.bytes + len(rest)
        rows_at = offset + record.HEADER_BYTES + len(body.meta)
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
        with self._freed:
            self._filled[segment] = 0
            self._free.append(segment)
            self._freed.notify()

    def end(self) -> None:
        """Do not wait for room any more."""
        with self._freed:
            self._is_ending = True
            self._freed.notify()

    def _write(self, fd: int, parts: Iterable[bytes], offset: int) -> None:
        """Write parts, which together are whole blocks."""
        filled = 0
        for part in parts:
            rest = memoryview(part)
            while len(rest) > BUFFER_BYTES - filled:
                count = BUFFER_BYTES - filled
                self._buffer[filled:] = rest[:count]
                self._write_buffer(fd, BUFFER_BYTES, offset)
                offset += BUFFER_BYTES
                filled, rest = 0, rest[count:]
            self._buffer[filled : filled + len(rest)] = rest
            filled += len(rest)
        self._write_buffer(fd, filled, offset)

    def _write_buffer(self, fd: int, count: int, offset: int) -> None:
        written = 0
        while written < count:  # if the disk is full, this call says so
            written += os.pwrite(fd, self._buffer[written:count], offset + written)

    # -- reading -----------------------------------------------------------------------------------------

    def read(self, spot: Spot) -> bytes:
        """The row that stands there, not checked."""
        return os.pread(self._readable[spot.segment], spot.length, spot.offset)

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
            self._drop_pages(segment)
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

    def _drop_pages(self, segment: int) -> None:
        """Have the kernel forget what a segment held.

        Its pages are as large as the reads that made them, and the writes where O_DIRECT is not to be had: up to
        megabytes. Who then writes a part of one through the page cache makes all of it dirty, and is charged for it.
        """
        os.posix_fadvise(self._fds[segment], 0, 0, os.POSIX_FADV_DONTNEED)

    def _path(self, segment: int) -> Path:
        return self._folder / f"journal.{segment}"

    def _size_all(self) -> None:
        """Give every file its usual size; where there was nothing there are zeros, written and not only promised."""
        for fd in self._fds:
            size = os.fstat(fd).st_size
            if size > self._segment_bytes or not self._sync:
                os.ftruncate(fd, self._segment_bytes)
            elif size < self._segment_bytes:
                whole = size - size % BLOCK_BYTES
                self._write(fd, [bytes(self._segment_bytes - whole)], whole)


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
