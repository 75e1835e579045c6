"""`cluster.ports.LogStore` over LMDB and the journal before it: the logs and saved states of all groups, the read side.

Used in the loop's thread only. Who writes: `writer.py`. The order of a turn is `note(writes)`, then
`Writer.submit(number, writes)` with the same writes; the writer calls `settle` when they are durable in the
journal, and `folded` when they are in LMDB.
"""

from collections.abc import Iterable, Iterator

from cluster.ports import GroupWrite
from cluster.types import Configuration, Entry
from node.store.cache import EntryCache
from node.store.environment import Environment
from node.store.folder import recover
from node.store.group_log import GroupLog
from node.store.record import Journaled

CACHE_BYTES_MAX = 16 << 20
"""Recent entries in memory: at 100 MB/s what was published in the last 0.16 s, twenty times what a consumer that
keeps up needs. What is older comes from the kernel's page cache."""
WARM_BYTES_MAX = 4 << 20
"""Entries read back for delivery: a run goes out in several slices, but is read and checked once."""


class LmdbStore:
    """The stored logs and states of all groups of a node.

    Args:
        environment: an open data directory; what its journal holds is carried into LMDB first.
        cache_bytes_max: bound of the cache of recent entries.

    Raises:
        StoreError
    """

    def __init__(self, environment: Environment, cache_bytes_max: int = CACHE_BYTES_MAX) -> None:
        self.environment = environment
        recover(environment)
        self._cache = EntryCache(cache_bytes_max)
        self._warm = EntryCache(min(WARM_BYTES_MAX, cache_bytes_max))
        self._number = 0  # of the newest noted write
        self._settled = 0
        self._folded = 0
        self._logs: dict[int, GroupLog] = {}
        for group in environment.groups():
            self._open(group)

    def form(self, group: int, configuration: Configuration) -> None:
        """Create a group with its first configuration, durably; nothing happens if it exists."""
        if group not in self._logs:
            self.environment.form(group, configuration)
            self._open(group)

    def groups(self) -> list[int]:
        """The groups that exist, ascending."""
        return sorted(self._logs)

    def view(self, group: int) -> GroupLog:
        """The log of one group. Raises KeyError if it was never formed."""
        return self._logs[group]

    def note(self, writes: Iterable[GroupWrite]) -> None:
        """From now on reads show these writes; called when they are handed to the writer."""
        for write in writes:
            self._number += 1
            self._logs[write.group].note(self._number, write)

    def settle(self, journaled: Iterable[Journaled]) -> None:
        """The oldest noted writes that were not yet are durable, in the journal."""
        for write in journaled:
            self._settled += 1
            self._logs[write.write.group].settle(self._settled, write)
        self._cache.settle(self._settled)

    def folded(self, count: int, groups: Iterable[int]) -> None:
        """The oldest `count` settled writes that were not yet are in LMDB; they belonged to these groups."""
        self._folded += count
        for group in groups:
            self._logs[group].folded(self._folded)

    def log_bytes(self, group: int) -> int:
        """Bytes that the entries of a group take, in LMDB and in the journal, those below the snapshot included."""
        return self.environment.log_bytes(group) + self._logs[group].journal_bytes()

    def data(self, group: int, index: int) -> bytes:
        """Data of an entry at any index whose row exists. Raises KeyError if there is none, CorruptRow."""
        return self._logs[group].entry(index).data

    def entry(self, group: int, index: int) -> Entry:
        """The whole entry of a row that `data` would find."""
        return self._logs[group].entry(index)

    def stored_below(self, group: int, index: int) -> Iterator[int]:
        """Indexes of all rows at or below `index`, ascending: a restart compares them with the live set."""
        return self._logs[group].stored_below(index)

    def rows(self, group: int) -> Iterator[tuple[bytes, bytes]]:
        """The saved state of a group, in key order."""
        return self._logs[group].rows()

    def _open(self, group: int) -> None:
        self._logs[group] = GroupLog(self.environment, group, self._cache, self._warm)
