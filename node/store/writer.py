"""The one thread that writes the environment: everything that waits becomes one synced transaction.

While a commit is under way the loop gathers the next turns; so the batch adapts to the speed of the disk,
and no timer ever waits for more. After an error nothing is written or reported any more: the kernel may
have dropped the pages that failed, so the process must end and read again what the disk holds.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import lmdb

from cluster.ports import GroupWrite
from node.store.carry import Carrier
from node.store.errors import StoreError
from node.store.log_store import LmdbStore

TRANSACTION_BYTES_MAX = 8 << 20
"""Turns are merged up to this many bytes of values; a single turn is never cut. LMDB keeps at most 512 MiB of
dirty pages and gets slow long before that."""

Turn = tuple[int, Sequence[GroupWrite]]


class Writer:
    """Takes numbered turns, in order, and tells when they are durable.

    Args:
        store: whose environment is written; its overlay is settled before `on_durable` is called.
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
        self._environment = store.environment
        self._carrier = Carrier(store.environment)
        self._call_soon = call_soon
        self._on_durable = on_durable
        self._on_failure = on_failure
        self._waiting: deque[Turn] = deque()
        self._wake = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    def submit(self, number: int, writes: Sequence[GroupWrite]) -> None:
        """Hand over a turn, after `store.note(writes)`. Never blocks."""
        with self._wake:
            self._waiting.append((number, writes))
            self._wake.notify()

    def close(self) -> None:
        """Write what was handed over, then end the thread."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join()

    def _run(self) -> None:
        try:
            while True:
                turns = self._take()
                if not turns and not self._carrier.has_trims:
                    return
                writes = [write for _, turn in turns for write in turn]
                with self._environment.lmdb.begin(write=True) as txn:
                    self._carrier.carry(txn, writes)
                if turns:
                    self._call_soon(self._durable, turns[-1][0], len(writes))
        except Exception as error:  # noqa: BLE001 - task root: whatever failed, nothing may be promised any more
            self._call_soon(self._on_failure, _described(error, str(self._environment.path)))

    def _take(self) -> list[Turn]:
        """Turns for one transaction; empty when only trims are left to do, or at the end."""
        with self._wake:
            while not self._waiting and not self._stopping and not self._carrier.has_trims:
                self._wake.wait()
            turns: list[Turn] = []
            size = 0
            while self._waiting and (not turns or size < TRANSACTION_BYTES_MAX):
                turn = self._waiting.popleft()
                turns.append(turn)
                size += sum(_bytes(write) for write in turn[1])
            return turns

    def _durable(self, number: int, count: int) -> None:
        self._store.settle(count)
        self._on_durable(number)


def _bytes(write: GroupWrite) -> int:
    size = sum(len(entry.data) for entry in write.entries) + sum(len(entry.data) for entry in write.live_rows)
    size += sum(len(value) for _, value in write.install_rows)
    return size + sum(len(value) for _, value in write.checkpoint_rows if value is not None)


def _described(error: Exception, path: str) -> Exception:
    if isinstance(error, lmdb.MapFullError):
        described = f"data directory {path} has reached its map size (MDB_MAP_FULL): {error}"
    elif isinstance(error, lmdb.DiskError) or "No space left" in str(error):
        described = f"disk of data directory {path} is full (ENOSPC): {error}"
    elif isinstance(error, StoreError):
        return error
    else:
        described = f"data directory {path} could not be written: {type(error).__name__}: {error}"
    failure = StoreError(described)
    failure.__cause__ = error
    return failure
