"""The log of one group as its Raft core reads it: what is in LMDB, overlaid by what was handed to the writer.

Positions and terms are kept in memory, entries come from the cache, from the journal or from LMDB. A write is
numbered when it is noted, settled when it is durable in the journal, and folded when LMDB has it. Until then its
effect is found here and not in LMDB; once it is settled, only the places of its entries are kept in memory.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from cluster.ports import Compacted, GroupWrite, Unavailable
from cluster.types import Configuration, Entry, HardState, SnapshotMeta
from node.store import keys
from node.store.cache import EntryCache
from node.store.environment import Environment
from node.store.errors import StoreError
from node.store.record import Journaled, Spot

Key = TypeVar("Key")
Value = TypeVar("Value")
Fresh = dict[int, tuple[int, Entry | Spot]]
"""Entries that LMDB lacks, by index: the number of the write, and the entry, or its place once it is durable."""


class GroupLog:
    """`cluster.ports.LogView` of one group.

    Args:
        environment: where the group was formed.
        group: which group.
        cache: recent entries of all groups.
        warm: entries that were read back from disk lately, of all groups.
    """

    def __init__(self, environment: Environment, group: int, cache: EntryCache, warm: EntryCache) -> None:
        self._environment = environment
        self._group = group
        self._cache = cache
        self._warm = warm
        self._log = environment.log(group)
        self._hard = HardState(0, 0, 0)
        self._snapshot = SnapshotMeta(0, 0, 0, Configuration(()), 0)
        # Terms by run: _terms[i] from _starts[i] on; the first run begins at the last compacted index.
        self._starts: list[int] = [0]
        self._terms: list[int] = [0]
        self._last = 0
        self._hidden: deque[tuple[int, int]] = deque()  # (write, first index whose rows in LMDB are void)
        self._installing = 0  # the write that replaces all rows of the saved state, 0: none under way
        self._rows: dict[bytes, tuple[int, bytes | None]] = {}
        self._fresh: Fresh = {}
        self._live: Fresh = {}  # the same of rows beside the log
        self._load()

    # -- LogView ---------------------------------------------------------------------------------------

    def initial_state(self) -> tuple[HardState, Configuration]:
        """Hard state and the configuration as of the newest durable snapshot."""
        return self._hard, self._snapshot.configuration

    def first_index(self) -> int:
        """Index after the last compacted one."""
        return self._starts[0] + 1

    def last_index(self) -> int:
        """Index of the last entry, or first_index() - 1 if there is none."""
        return self._last

    def term(self, index: int) -> int:
        """Term of an entry or of the last compacted one. Raises Compacted, Unavailable."""
        if index > self._last:
            raise Unavailable(index)
        at = bisect_right(self._starts, index) - 1
        if at < 0:
            raise Compacted(index)
        return self._terms[at]

    def entries(self, lo: int, hi: int, bytes_max: int) -> list[Entry]:
        """Entries lo..hi-1; at least one, then as many as fit in bytes_max.

        Raises:
            Compacted, Unavailable, CorruptRow
        """
        if lo <= self._starts[0]:
            raise Compacted(lo)
        if hi > self._last + 1:
            raise Unavailable(hi - 1)
        found: list[Entry] = []
        size = 0
        for index in range(lo, hi):
            entry = self._cache.get(self._group, index) or self._warm.get(self._group, index)
            if entry is None:
                entry = self._read_fresh(self._fresh, index) or self._read(index)
                if entry is None:
                    raise StoreError(f"group {self._group} index {index}: the log row is missing")
            size += len(entry.data)
            if found and size > bytes_max:
                break
            found.append(entry)
        return found

    def snapshot_meta(self) -> SnapshotMeta:
        """The newest durable snapshot."""
        return self._snapshot

    # -- rows above and below the snapshot, and the saved state ------------------------------------------

    def entry(self, index: int) -> Entry:
        """The entry whose row is stored under this index. Raises KeyError, CorruptRow."""
        group = self._group
        entry = self._cache.get(group, index) or self._warm.get(group, index)
        if entry is not None:
            return entry
        entry = self._read_fresh(self._live, index) or self._read_fresh(self._fresh, index)
        if entry is None and all(index < start for _, start in self._hidden):
            entry = self._read(index)
        if entry is None:
            entry = self._read_live(index)
        if entry is None:
            raise KeyError(f"group {group} index {index}: no row")
        self._warm.put(group, entry, 0)
        return entry

    def stored_below(self, index: int) -> Iterator[int]:
        """Indexes of all rows at or below `index`, ascending; also of rows whose trim is under way."""
        found = {*self._live, *self._fresh}
        hidden = min((start for _, start in self._hidden), default=index + 1)
        with self._environment.lmdb.begin(buffers=True) as txn:
            with txn.cursor(self._log) as cursor:
                for key in cursor.iternext(values=False):
                    stored, piece = keys.split_log_key(key)
                    if stored > index or stored >= hidden:
                        break
                    if piece == 0:
                        found.add(stored)
            with txn.cursor(self._environment.tables[b"live"]) as cursor:
                more = cursor.set_range(keys.live_key(self._group, 0))
                while more:
                    group, stored, piece = keys.split_live_key(cursor.key())
                    if group != self._group or stored > index:
                        break
                    if piece == 0:
                        found.add(stored)
                    more = cursor.next()
        return iter(sorted(stored for stored in found if stored <= index))

    def rows(self) -> Iterator[tuple[bytes, bytes]]:
        """The saved state in key order, as of this call. Raises CorruptRow."""
        found = {} if self._installing else dict(self._read_rows())
        for key, (_, value) in self._rows.items():
            if value is None:
                found.pop(key, None)
            else:
                found[key] = value
        return iter(sorted(found.items()))

    # -- writes ------------------------------------------------------------------------------------------

    def note(self, number: int, write: GroupWrite) -> None:
        """Show a write from now on; `number` rises from write to write."""
        if write.install is not None:
            self._note_install(number, write, write.install)
        if write.truncate_from is not None:
            self._truncate(number, write.truncate_from)
        for entry in write.entries:
            assert entry.index == self._last + 1, f"group {self._group}: {entry.index} after {self._last}"
            if entry.term != self._terms[-1]:
                self._starts.append(entry.index)
                self._terms.append(entry.term)
            self._last = entry.index
            self._fresh[entry.index] = number, entry
            self._cache.put(self._group, entry, number)
        if write.hard_state is not None:
            self._hard = write.hard_state
        for key, changed in write.checkpoint_rows:
            self._rows[key] = (number, changed)
        if write.compact_to is not None:
            self._compact(write.compact_to, write.compact_term)
        for index in write.trims:
            self._cache.drop(self._group, index)
            self._warm.drop(self._group, index)
            self._fresh.pop(index, None)
            self._live.pop(index, None)
        for entry in write.live_rows:
            self._live[entry.index] = number, entry

    def settle(self, number: int, journaled: Journaled) -> None:
        """The noted write of this number is durable, and its entries can be read where they stand."""
        for table, spots in ((self._fresh, journaled.entries), (self._live, journaled.live_rows)):
            for spot in spots:
                # It may have been overwritten or trimmed meanwhile.
                if spot.index in table and table[spot.index][0] == number:
                    table[spot.index] = number, spot
        self._snapshot = journaled.write.checkpoint or journaled.write.install or self._snapshot

    def folded(self, number: int) -> None:
        """LMDB has all writes up to this one: their effect is found there."""
        self._fresh = _later(self._fresh, number)
        self._live = _later(self._live, number)
        self._rows = _later(self._rows, number)
        while self._hidden and self._hidden[0][0] <= number:
            self._hidden.popleft()
        if self._installing <= number:
            self._installing = 0

    def journal_bytes(self) -> int:
        """Bytes of entries that are in the journal and not in LMDB."""
        kept = (*self._fresh.values(), *self._live.values())
        return sum(found.length for _, found in kept if isinstance(found, Spot))

    def _note_install(self, number: int, write: GroupWrite, meta: SnapshotMeta) -> None:
        # Applied rows stay, as the writer leaves them: the same everywhere, so live ones were not sent again.
        self._truncate(number, min(write.install_applied, meta.index) + 1)
        self._starts, self._terms, self._last = [meta.index], [meta.term], meta.index
        self._installing = number
        self._rows = {key: (number, value) for key, value in write.install_rows}

    def _truncate(self, number: int, start: int) -> None:
        for index in range(start, self._last + 1):
            self._cache.drop(self._group, index)
            self._warm.drop(self._group, index)
            self._fresh.pop(index, None)
        self._hidden.append((number, start))
        while len(self._starts) > 1 and self._starts[-1] >= start:
            self._starts.pop()
            self._terms.pop()
        self._last = min(self._last, start - 1)

    def _compact(self, index: int, term: int) -> None:
        if index <= self._starts[0]:
            return
        assert term == self.term(index), (
            f"group {self._group}: {index} has term {self.term(index)}, not {term}"
        )
        above = bisect_right(self._starts, index)
        self._starts = [index, *self._starts[above:]]
        self._terms = [term, *self._terms[above:]]

    # -- the disk ----------------------------------------------------------------------------------------

    def _load(self) -> None:
        group = self._group
        kinds = (keys.HARD, keys.SNAPSHOT, keys.COMPACTED)
        with self._environment.lmdb.begin() as txn:
            rows = [
                txn.get(keys.group_key(group, kind), db=self._environment.tables[b"groups"]) for kind in kinds
            ]
        if None in rows:
            raise StoreError(f"group {group} is not complete in {self._environment.path}")
        self._hard = keys.decode_hard_state(group, rows[0])
        self._snapshot = keys.decode_snapshot(group, rows[1])
        compacted, term = keys.decode_compacted(group, rows[2])
        self._starts, self._terms, self._last = [compacted], [term], compacted
        self._load_terms()
        if self._last < max(self._hard.commit, self._snapshot.index):
            # A replica that lost committed entries must not vote as if it had never had them.
            raise StoreError(f"group {group}: the log ends at {self._last}, before what was committed")

    def _load_terms(self) -> None:
        with self._environment.lmdb.begin(buffers=True) as txn, txn.cursor(self._log) as cursor:
            more = cursor.set_range(keys.log_key(self._last + 1))
            while more:
                index, piece = keys.split_log_key(cursor.key())
                if piece == 0:
                    if index != self._last + 1:
                        raise StoreError(
                            f"group {self._group}: the log has a gap between {self._last} and {index}"
                        )
                    term = keys.entry_term(self._group, index, cursor.value())
                    if term != self._terms[-1]:
                        self._starts.append(index)
                        self._terms.append(term)
                    self._last = index
                more = cursor.next()

    def _read_fresh(self, table: Fresh, index: int) -> Entry | None:
        if index not in table:
            return None
        found = table[index][1]
        if isinstance(found, Entry):
            return found
        row = memoryview(self._environment.journal.read(found))
        return keys.decode_entry(self._group, index, [row])

    def _read(self, index: int) -> Entry | None:
        with self._environment.lmdb.begin(buffers=True) as txn:
            first = txn.get(keys.log_key(index), db=self._log)
            if first is None:
                return None
            count = keys.entry_pieces(keys.entry_length(self._group, index, first))
            rest = [
                txn.get(keys.log_key(index, number), db=self._log, default=b"") for number in range(1, count)
            ]
            return keys.decode_entry(self._group, index, [first, *rest])

    def _read_live(self, index: int) -> Entry | None:
        live: Any = self._environment.tables[b"live"]
        group = self._group
        with self._environment.lmdb.begin(buffers=True) as txn:
            first = txn.get(keys.live_key(group, index), db=live)
            if first is None:
                return None
            count = keys.entry_pieces(keys.entry_length(group, index, first))
            rest = [
                txn.get(keys.live_key(group, index, number), db=live, default=b"")
                for number in range(1, count)
            ]
            return keys.decode_entry(group, index, [first, *rest])

    def _read_rows(self) -> Iterator[tuple[bytes, bytes]]:
        prefix = keys.group_prefix(self._group)
        pieces = self._environment.tables[b"row_pieces"]
        with (
            self._environment.lmdb.begin(buffers=True) as txn,
            txn.cursor(self._environment.tables[b"rows"]) as cursor,
        ):
            more = cursor.set_range(prefix)
            while more and cursor.key()[: len(prefix)] == prefix:
                key = bytes(cursor.key()[len(prefix) :])
                first = cursor.value()
                count = keys.row_pieces(keys.row_length(self._group, first))
                numbers = range(1, count)
                rest = [
                    txn.get(keys.row_piece_key(self._group, key, n), db=pieces, default=b"") for n in numbers
                ]
                yield key, keys.decode_row(self._group, key, [first, *rest])
                more = cursor.next()


def _later(table: Mapping[Key, tuple[int, Value]], number: int) -> dict[Key, tuple[int, Value]]:
    """What later writes put there."""
    return {key: found for key, found in table.items() if found[0] > number}
