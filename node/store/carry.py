"""Carries a turn's writes into one LMDB transaction; runs on the writer thread only."""

from collections import deque
from collections.abc import Iterable
from typing import Any

from cluster.ports import GroupWrite
from cluster.types import Entry, SnapshotMeta
from node.store import keys
from node.store.environment import Environment

TRIMS_MAX = 512
"""Log rows deleted per transaction. Freed pages are recorded in the free list, and a record that needs
thousands of contiguous pages is what makes LMDB slow; the rest waits for the next transaction."""


class Carrier:
    """Knows how each part of a `GroupWrite` becomes rows, and which trims are still to be done."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._tables = environment.tables
        self._trims: deque[tuple[int, int]] = deque()

    @property
    def has_trims(self) -> bool:
        """True while rows wait to be deleted."""
        return bool(self._trims)

    def carry(self, txn: Any, writes: Iterable[GroupWrite]) -> None:
        """Put all writes, in order, and delete a bounded number of trimmed rows."""
        for write in writes:
            self._carry_one(txn, write)
        for _ in range(min(TRIMS_MAX, len(self._trims))):
            group, index = self._trims.popleft()
            self._delete_entry(txn, self._environment.log(group), group, index, live=False)
            self._delete_entry(txn, self._tables[b"live"], group, index, live=True)

    def _carry_one(self, txn: Any, write: GroupWrite) -> None:
        group = write.group
        log = self._environment.log(group)
        if write.install is not None:
            self._install(txn, write, write.install)
        if write.truncate_from is not None:
            _delete_from(txn, log, write.truncate_from)
        for entry in write.entries:
            _put_log_entry(txn, log, group, entry)
        if write.hard_state is not None:
            self._put_group(txn, group, keys.HARD, keys.encode_hard_state(group, write.hard_state))
        if write.checkpoint is not None:
            for key, changed in write.checkpoint_rows:
                self._delete_row(txn, group, key)
                if changed is not None:
                    self._put_row(txn, group, key, changed)
            self._put_group(txn, group, keys.SNAPSHOT, keys.encode_snapshot(group, write.checkpoint))
        if write.compact_to is not None:
            self._compact(txn, log, group, write.compact_to)
        self._trims.extend((group, index) for index in write.trims)
        for entry in write.live_rows:
            self._put_live_entry(txn, group, entry)

    def _install(self, txn: Any, write: GroupWrite, meta: SnapshotMeta) -> None:
        group = write.group
        # What is applied here is the same everywhere, and messages that live in it were not sent again.
        _delete_from(txn, self._environment.log(group), min(write.install_applied, meta.index) + 1)
        self._delete_rows(txn, group)
        for key, value in write.install_rows:
            self._put_row(txn, group, key, value)
        self._put_group(txn, group, keys.SNAPSHOT, keys.encode_snapshot(group, meta))
        self._put_group(txn, group, keys.COMPACTED, keys.encode_compacted(group, meta.index, meta.term))

    def _compact(self, txn: Any, log: Any, group: int, index: int) -> None:
        first = txn.get(keys.log_key(index), db=log)
        if first is None:  # compacting to where an installed state begins: its term is in the row already
            return
        term = keys.entry_term(group, index, first)
        self._put_group(txn, group, keys.COMPACTED, keys.encode_compacted(group, index, term))

    def _put_group(self, txn: Any, group: int, kind: int, row: bytes) -> None:
        txn.put(keys.group_key(group, kind), row, db=self._tables[b"groups"])

    def _put_live_entry(self, txn: Any, group: int, entry: Entry) -> None:
        live = self._tables[b"live"]
        self._delete_entry(txn, live, group, entry.index, live=True)
        first, further = keys.encode_entry(group, entry)
        txn.put(keys.live_key(group, entry.index), first, db=live)
        for number, piece in enumerate(further, 1):
            txn.put(keys.live_key(group, entry.index, number), piece, db=live)

    def _delete_entry(self, txn: Any, table: Any, group: int, index: int, *, live: bool) -> None:
        key = keys.live_key(group, index) if live else keys.log_key(index)
        first = txn.get(key, db=table)
        if first is None:
            return
        txn.delete(key, db=table)
        for number in range(1, keys.entry_pieces(keys.entry_length(group, index, first))):
            piece = keys.live_key(group, index, number) if live else keys.log_key(index, number)
            txn.delete(piece, db=table)

    def _put_row(self, txn: Any, group: int, key: bytes, value: bytes) -> None:
        first, further = keys.encode_row(group, key, value)
        txn.put(keys.row_key(group, key), first, db=self._tables[b"rows"])
        for number, piece in enumerate(further, 1):
            txn.put(keys.row_piece_key(group, key, number), piece, db=self._tables[b"row_pieces"])

    def _delete_row(self, txn: Any, group: int, key: bytes) -> None:
        full = keys.row_key(group, key)
        first = txn.get(full, db=self._tables[b"rows"])
        if first is None:
            return
        txn.delete(full, db=self._tables[b"rows"])
        for number in range(1, keys.row_pieces(keys.row_length(group, first))):
            txn.delete(keys.row_piece_key(group, key, number), db=self._tables[b"row_pieces"])

    def _delete_rows(self, txn: Any, group: int) -> None:
        prefix = keys.group_prefix(group)
        for name in (b"rows", b"row_pieces"):
            with txn.cursor(self._tables[name]) as cursor:
                found = cursor.set_range(prefix)
                while found and cursor.key().startswith(prefix):
                    found = cursor.delete()


def _put_log_entry(txn: Any, log: Any, group: int, entry: Entry) -> None:
    first, further = keys.encode_entry(group, entry)
    # A log only grows at its end: appending fills pages where inserting would split them in half, and it
    # refuses a key that is not the greatest, so an overlap that was not truncated cannot go unnoticed.
    if not txn.put(keys.log_key(entry.index), first, db=log, append=True):
        raise AssertionError(f"group {group}: entry {entry.index} is not at the end of the log")
    for number, piece in enumerate(further, 1):
        txn.put(keys.log_key(entry.index, number), piece, db=log, append=True)


def _delete_from(txn: Any, log: Any, index: int) -> None:
    with txn.cursor(log) as cursor:
        found = cursor.set_range(keys.log_key(index))
        while found:
            found = cursor.delete()
