"""Carries what the journal holds into LMDB; runs at the start and on the folder's thread, never in the loop."""

from collections import deque
from typing import Any

from node.store import keys
from node.store.delta import Delta, GroupDelta
from node.store.environment import Environment

TRIMS_MAX = 512
"""Rows deleted per transaction. Freed pages are recorded in the free list, and a record that needs
thousands of contiguous pages is what makes LMDB slow; the rest waits for the next transaction."""
TRANSACTION_BYTES_MAX = 1 << 20
"""A commit flushes what is in it, and an append to the journal waits at the disk until that is done: for 8 MiB it took
5 to 7 ms where the disk takes 1 GiB a second."""


class Carrier:
    """Knows how each part of a delta becomes rows, and which trims are still to be done."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._txn: Any = None
        self._bytes = 0  # in it
        self._is_anew = environment.is_carrying
        self._journal = environment.journal
        self._tables = environment.tables
        self._trims: deque[tuple[bool, int, int]] = deque()  # whether beside the log, group, index

    @property
    def has_trims(self) -> bool:
        """True while rows wait to be deleted."""
        return bool(self._trims)

    def fold(self, delta: Delta | None) -> None:
        """A delta, if there is one, in small transactions, the last with its sequence; and a bounded number of trims.

        If the process ends in between, the journal still has all of it: the next start carries it once more, over
        what came of it before. Rows whose trim is lost with the process are found again when the group starts.
        """
        self._txn = self._environment.lmdb.begin(write=True)
        try:
            if delta is not None:
                for group, changes in delta.groups.items():
                    self._carry_group(group, changes)
                self._environment.put_folded(self._txn, delta.sequence)
            for _ in range(min(TRIMS_MAX, len(self._trims))):
                live, group, index = self._trims.popleft()
                table = self._tables[b"live"] if live else self._environment.log(group)
                self._delete_entry(table, group, index, live=live)
            self._txn.commit()
        except BaseException:
            self._txn.abort()
            raise
        self._bytes = 0
        self._is_anew = self._is_anew and delta is None

    def _weigh(self, size: int) -> None:
        """So many bytes more are in the transaction: is it time for the next one?"""
        self._bytes += size
        if self._bytes >= TRANSACTION_BYTES_MAX:
            self._environment.put_carrying(self._txn)
            self._txn.commit()
            self._txn = self._environment.lmdb.begin(write=True)
            self._bytes = 0

    def _carry_group(self, group: int, changes: GroupDelta) -> None:
        log = self._environment.log(group)
        if changes.cut is not None:
            _delete_from(self._txn, log, changes.cut)
        if self._is_anew and changes.entries:
            _delete_from(self._txn, log, min(changes.entries))
        if changes.replaces_rows:
            self._delete_rows(group)
        for index, spot in changes.entries.items():
            _put_log_entry(self._txn, log, group, index, self._journal.read(spot))
            self._weigh(spot.length)
        if changes.hard_state is not None:
            self._put_group(group, keys.HARD, keys.encode_hard_state(group, changes.hard_state))
        if changes.snapshot is not None:
            self._put_group(group, keys.SNAPSHOT, keys.encode_snapshot(group, changes.snapshot))
        for key, value in changes.rows.items():
            self._delete_row(group, key)
            if value is not None:
                self._put_row(group, key, value)
                self._weigh(len(value))
        if changes.compacted is not None:
            self._put_group(group, keys.COMPACTED, keys.encode_compacted(group, *changes.compacted))
        self._trims.extend((False, group, index) for index in changes.trims)
        if self._txn.stat(self._tables[b"live"])["entries"]:
            self._trims.extend((True, group, index) for index in (*changes.trims, *changes.left_out))
        for index, spot in changes.live_rows.items():
            self._put_live_entry(group, index, self._journal.read(spot))
            self._weigh(spot.length)

    def _put_group(self, group: int, kind: int, row: bytes) -> None:
        self._txn.put(keys.group_key(group, kind), row, db=self._tables[b"groups"])

    def _put_live_entry(self, group: int, index: int, row: bytes) -> None:
        live = self._tables[b"live"]
        self._delete_entry(live, group, index, live=True)
        for number, piece in enumerate(keys.pieces_of_entry(row)):
            self._txn.put(keys.live_key(group, index, number), piece, db=live)

    def _delete_entry(self, table: Any, group: int, index: int, *, live: bool) -> None:
        txn = self._txn
        key = keys.live_key(group, index) if live else keys.log_key(index)
        first = txn.get(key, db=table)
        if first is None:
            return
        txn.delete(key, db=table)
        for number in range(1, keys.entry_pieces(keys.entry_length(group, index, first))):
            piece = keys.live_key(group, index, number) if live else keys.log_key(index, number)
            txn.delete(piece, db=table)

    def _put_row(self, group: int, key: bytes, value: bytes) -> None:
        txn = self._txn
        first, further = keys.encode_row(group, key, value)
        txn.put(keys.row_key(group, key), first, db=self._tables[b"rows"])
        for number, piece in enumerate(further, 1):
            txn.put(keys.row_piece_key(group, key, number), piece, db=self._tables[b"row_pieces"])

    def _delete_row(self, group: int, key: bytes) -> None:
        txn = self._txn
        full = keys.row_key(group, key)
        first = txn.get(full, db=self._tables[b"rows"])
        if first is None:
            return
        txn.delete(full, db=self._tables[b"rows"])
        for number in range(1, keys.row_pieces(keys.row_length(group, first))):
            txn.delete(keys.row_piece_key(group, key, number), db=self._tables[b"row_pieces"])

    def _delete_rows(self, group: int) -> None:
        prefix = keys.group_prefix(group)
        for name in (b"rows", b"row_pieces"):
            with self._txn.cursor(self._tables[name]) as cursor:
                found = cursor.set_range(prefix)
                while found and cursor.key().startswith(prefix):
                    found = cursor.delete()


def _put_log_entry(txn: Any, log: Any, group: int, index: int, row: bytes) -> None:
    # A log only grows at its end: appending fills pages where inserting would split them in half, and it
    # refuses a key that is not the greatest, so an overlap that was not truncated cannot go unnoticed.
    for number, piece in enumerate(keys.pieces_of_entry(row)):
        if not txn.put(keys.log_key(index, number), piece, db=log, append=True):
            raise AssertionError(f"group {group}: entry {index} is not at the end of the log")


def _delete_from(txn: Any, log: Any, index: int) -> None:
    with txn.cursor(log) as cursor:
        found = cursor.set_range(keys.log_key(index))
        while found:
            found = cursor.delete()
