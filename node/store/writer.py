"""The thread that makes turns durable: all that wait become one record of the journal, one synced append.

While an append is under way the loop gathers the next turns; so the batch adapts to the speed of the disk,
and no timer ever waits for more. After an error, here or in the folder, nothing is written or reported any more:
the kernel may have dropped the pages that failed, so the process must end and read again what the disk holds.
"""

import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any

from cluster.ports import GroupWrite
from node.store import record
from node.store.delta import Delta
from node.store.errors import described
from node.store.folder import Folder
from node.store.log_store import LmdbStore
from node.store.record import Journaled

RECORD_BYTES_MAX = 1 << 20
"""Turns are merged up to this many bytes of values; a single turn is never cut."""

Turn = tuple[int, Sequence[GroupWrite]]


class Writer:
    """Takes numbered turns, in order, and tells when they are durable.

    Args:
        store: whose journal is written; it learns what is durable before `on_durable` is called.
        call_soon: hands a call over to the loop's thread (`loop.call_soon_threadsafe`).
        on_durable: called in the loop with the number of the newest durable turn.
        on_failure: called in the loop at most once; after it nothing is called any more.
    """

    def __init__(
        self,
        store: LmdbStore,
        call_soon: Callable[..., Any],
        on_durable: Callable[[int], None],
        on_failure: Callable[[Exception], None],
    ) -> None:
        self._store = store
        self._path = store.environment.path
        self._journal = store.environment.journal
        self._call_soon = call_soon
        self._on_durable = on_durable
        self._on_failure = on_failure
        self._waiting: SimpleQueue[Turn | None] = SimpleQueue()
        self._has_failed = False  # told to the threads
        self._is_reported = False  # told to the loop
        self._folder = Folder(store.environment, lambda delta: call_soon(self._folded, delta), self._fail)
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    def submit(self, number: int, writes: Sequence[GroupWrite]) -> None:
        """Hand over a turn, after `store.note(writes)`. Never blocks."""
        self._waiting.put((number, writes))

    def close(self) -> None:
        """Write what was handed over, carry it into LMDB, then end the threads."""
        self._waiting.put(None)
        self._journal.end()
        self._thread.join()
        self._folder.close()

    # -- the thread --------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while turns := self._take():
                writes = [write for _, turn in turns for write in turn]
                body = record.encode(writes)
                self._journal.make_room(body.bytes)
                if self._has_failed:
                    return
                journaled = self._journal.append(body, writes)
                self._call_soon(self._durable, turns[-1][0], journaled)
                self._folder.add(self._journal.segment, self._journal.sequence, journaled)
        except Exception as error:  # noqa: BLE001 - task root: whatever failed, nothing may be promised any more
            self._fail(error)

    def _take(self) -> list[Turn]:
        """Turns for one record, at least one; empty at the end."""
        turns: list[Turn] = []
        size = 0
        turn = self._waiting.get()
        while turn is not None:
            turns.append(turn)
            size += sum(_bytes(write) for write in turn[1])
            if size >= RECORD_BYTES_MAX:
                break
            try:
                turn = self._waiting.get_nowait()
            except Empty:
                break
        if turn is None and turns:
            self._waiting.put(None)  # the end comes after these
        return turns

    def _fail(self, error: Exception) -> None:
        """On either thread."""
        self._has_failed = True
        self._journal.end()
        self._folder.abandon()
        self._call_soon(self._report, described(error, self._path))

    # -- in the loop -------------------------------------------------------------------------------------

    def _durable(self, number: int, journaled: list[Journaled]) -> None:
        if not self._is_reported:
            self._store.settle(journaled)
            self._on_durable(number)

    def _folded(self, delta: Delta) -> None:
        self._store.folded(delta.writes, delta.groups)
        self._journal.release(delta.segment)

    def _report(self, error: Exception) -> None:
        if not self._is_reported:
            self._is_reported = True
            self._on_failure(error)


def _bytes(write: GroupWrite) -> int:
    size = sum(len(entry.data) for entry in write.entries) + sum(len(entry.data) for entry in write.live_rows)
    size += sum(len(value) for _, value in write.install_rows)
    return size + sum(len(value) for _, value in write.checkpoint_rows if value is not None)
