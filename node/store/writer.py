"""Makes turns durable: all that wait become one record of the journal, one synced append, which the kernel carries out.

While an append is under way the loop gathers the next turns; so the batch adapts to the speed of the disk,
and no timer ever waits for more. After an error, here or in the folder, nothing is written or reported any more:
the kernel may have dropped the pages that failed, so the process must end and read again what the disk holds.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from cluster.ports import GroupWrite
from node.store import record
from node.store.delta import Delta
from node.store.errors import described
from node.store.folder import Folder
from node.store.log_store import LmdbStore
from node.store.record import Body

RECORD_BYTES_MAX = 1 << 20
"""Turns are merged up to this many bytes of values; a single turn is never cut."""


class _Prepared(NamedTuple):
    """The next record."""

    number: int
    writes: list[GroupWrite]
    body: Body


class Writer:
    """Takes numbered turns, in order, and tells when they are durable. All in the loop's thread but the folder.

    Args:
        store: whose journal is written; it learns what is durable before `on_durable` is called.
        loop: of the node.
        on_durable: called with the number of the newest durable turn.
        on_failure: called at most once; after it nothing is called any more.
    """

    def __init__(
        self,
        store: LmdbStore,
        loop: asyncio.AbstractEventLoop,
        on_durable: Callable[[int], None],
        on_failure: Callable[[Exception], None],
    ) -> None:
        self._store = store
        self._path = store.environment.path
        self._journal = store.environment.journal
        self._loop = loop
        self._on_durable = on_durable
        self._on_failure = on_failure
        self._waiting: deque[tuple[int, Sequence[GroupWrite]]] = deque()
        self._prepared: _Prepared | None = None
        self._is_planned = False
        self._has_failed = False
        self._folder = Folder(
            store.environment,
            lambda delta: loop.call_soon_threadsafe(self._folded, delta),
            lambda error: loop.call_soon_threadsafe(self._fail, error),
        )
        loop.add_reader(self._journal.fileno(), self._advance)

    def submit(self, number: int, writes: Sequence[GroupWrite]) -> None:
        """Hand over a turn, after `store.note(writes)`. Never blocks."""
        self._waiting.append((number, writes))
        if not self._is_planned:
            # Not at once: what the turn sends to others shall be on its way before.
            self._is_planned = True
            self._loop.call_soon(self._begin)

    def close(self) -> None:
        """Write what was handed over, carry it into LMDB, then end."""
        self._loop.remove_reader(self._journal.fileno())
        self._journal.end()
        self._begin()
        while self._journal.is_appending and not self._has_failed:
            self._journal.wait()
            self._advance()
        self._folder.close()

    # -- one record after the other ----------------------------------------------------------------------

    def _begin(self) -> None:
        """Begin the next record, if there is one, none is under way and there is room for it."""
        self._is_planned = False
        if self._journal.is_appending or self._has_failed or not (self._prepared or self._waiting):
            return
        try:
            next_one = self._prepared = self._prepared or self._prepare()
            if self._journal.make_room(next_one.body.bytes):
                self._journal.append(next_one.body)
        except Exception as error:  # noqa: BLE001 - whatever failed, nothing may be promised any more
            self._fail(error)

    def _prepare(self) -> _Prepared:
        writes: list[GroupWrite] = []
        number = size = 0
        while self._waiting and size < RECORD_BYTES_MAX:
            number, turn = self._waiting.popleft()
            writes += turn
            size += sum(_bytes(write) for write in turn)
        return _Prepared(number, writes, record.encode(writes))

    def _advance(self) -> None:
        """The disk has news of the record under way."""
        done = self._prepared
        if self._has_failed or done is None:
            return
        try:
            journaled = self._journal.advance(done.writes)
            if journaled is None:
                return
            self._prepared = None
            self._store.settle(journaled)
            self._folder.add(self._journal.segment, self._journal.sequence, journaled)
        except Exception as error:  # noqa: BLE001 - as above
            self._fail(error)
            return
        self._on_durable(done.number)
        self._begin()

    def _folded(self, delta: Delta) -> None:
        self._store.folded(delta.writes, delta.groups)
        self._journal.release(delta.segment)
        self._begin()

    def _fail(self, error: Exception) -> None:
        if not self._has_failed:
            self._has_failed = True
            self._loop.remove_reader(self._journal.fileno())
            self._journal.end()
            self._folder.abandon()
            self._on_failure(described(error, self._path))


def _bytes(write: GroupWrite) -> int:
    size = sum(len(entry.data) for entry in write.entries) + sum(len(entry.data) for entry in write.live_rows)
    size += sum(len(value) for _, value in write.install_rows)
    return size + sum(len(value) for _, value in write.checkpoint_rows if value is not None)
