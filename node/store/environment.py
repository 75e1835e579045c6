"""A node's data directory, an LMDB environment with a journal before it: opening, locking and identifying it, its
tables, and the room it takes.

`node.store` is the only door to LMDB. Reads are short transactions on any thread; every write goes through
`writer.py` and `folder.py`, except at start (identity, boot epoch, forming groups), before the writer runs.
"""

import fcntl
import os
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lmdb

from cluster.types import Configuration, HardState, SnapshotMeta
from node.store import keys
from node.store.errors import StoreError
from node.store.journal import SEGMENT_BYTES, Journal

FORMAT = 5
OLDER_FORMATS = ("3", "4")
"""Without a journal, which is made when such a directory is opened; and with CRC-32 as checksum, which stays known. It
is marked with the present format then, for an older program cannot read what is written from there on."""
MAP_BYTES = 1 << 40
"""Address space, not disk: the file is sparse and grows as it is used. The real limits are alarms."""
MAP_BYTES_MIN = 1 << 30
TABLES_MAX = 1100
"""A log a group, for 1024 shards, and the shared ones. Each transaction allocates room for all of them."""
SHARED_TABLES = (b"meta", b"groups", b"live", b"rows", b"row_pieces")


class Environment:
    """An open data directory of one node.

    Args:
        path: the directory; created if it is missing.
        cluster: name of the cluster; a directory of another cluster is refused.
        node: name of the node; a directory of another node is refused.
        sync: False only in tests: commits return before they are durable, and power loss may corrupt the
            file. The directory remembers it, see `was_always_synced`.
        map_bytes: address space to reserve; halved until the system grants it.
        segment_bytes: size of a file of the journal.
        now_ms: time of this start, for the boot epoch; the clock's if None.

    Raises:
        StoreError: in use by another process, of another cluster, node or format, or not readable.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        cluster: str,
        node: str,
        sync: bool = True,
        map_bytes: int = MAP_BYTES,
        segment_bytes: int = SEGMENT_BYTES,
        now_ms: int | None = None,
    ) -> None:
        self.path = Path(path)
        self.sync = sync
        self._lock = _locked(self.path)
        try:
            self.lmdb = _opened(self.path, sync, map_bytes)
            try:
                self.tables: dict[bytes, Any] = {}
                self._identify(cluster, node, int(time.time() * 1000) if now_ms is None else now_ms)
                self.journal = self._open_journal(segment_bytes)
            except BaseException:
                self.lmdb.close()
                raise
        except BaseException:
            os.close(self._lock)
            raise

    def close(self) -> None:
        """Close the file and give up the directory. No transaction may be open."""
        if self.is_open:
            self.journal.close()
            self.lmdb.close()
            os.close(self._lock)
            self._lock = -1

    @property
    def is_open(self) -> bool:
        """False after `close`."""
        return self._lock >= 0

    def form(self, group: int, configuration: Configuration) -> None:
        """Create a group that does not exist, empty, with its first configuration; durable on return."""
        self._table(keys.log_table(group))
        first = keys.encode_snapshot(group, SnapshotMeta(0, 0, 0, configuration, 0))
        hard = keys.encode_hard_state(group, HardState(0, 0, 0))
        with self.lmdb.begin(write=True) as txn:
            txn.put(keys.group_key(group, keys.SNAPSHOT), first, db=self.tables[b"groups"])
            txn.put(keys.group_key(group, keys.HARD), hard, db=self.tables[b"groups"])
            compacted = keys.encode_compacted(group, 0, 0)
            txn.put(keys.group_key(group, keys.COMPACTED), compacted, db=self.tables[b"groups"])

    def groups(self) -> list[int]:
        """The groups that exist, ascending."""
        with self.lmdb.begin() as txn, txn.cursor(self.tables[b"groups"]) as cursor:
            split = [keys.split_group_key(key) for key in cursor.iternext(values=False)]
        return [group for group, kind in split if kind == keys.SNAPSHOT]

    def log(self, group: int) -> Any:
        """Handle of the log table of a group that exists."""
        return self.tables[keys.log_table(group)]

    @property
    def was_always_synced(self) -> bool:
        """False once the directory has been opened with sync=False, even if only in an earlier life."""
        return self._meta(b"unsynced") is None

    def judge_peer(self, node: int, store: str, rejoin: bool) -> str:
        """Why a peer's data directory is not accepted; empty if it is, and then it is remembered.

        A voter that lost its disk has forgotten its votes and the entries that it acknowledged: counted again under
        the same id it can help to elect a leader that lacks what was confirmed.
        """
        name = b"peer-%d" % node
        known = self._meta(name)
        if known is None or (rejoin and known != store):
            self._put_meta({name: store})
        elif known != store:
            return (
                "it comes with another data directory than before; if that one is lost and all other nodes are up, "
                "start it once with --rejoin yes"
            )
        return ""

    def put_folded(self, txn: Any, sequence: int) -> None:
        """With this transaction LMDB has all records of the journal up to this one."""
        txn.put(b"journal", str(sequence).encode(), db=self.tables[b"meta"])
        txn.delete(b"carrying", db=self.tables[b"meta"])

    def put_carrying(self, txn: Any) -> None:
        """With this transaction LMDB has a part of what follows that record."""
        txn.put(b"carrying", b"yes", db=self.tables[b"meta"])

    @property
    def is_carrying(self) -> bool:
        """Whether the process ended, or is, between two such parts."""
        return self._meta(b"carrying") is not None

    def used_bytes(self) -> int:
        """Bytes on LMDB's pages that hold data; what its file has beyond that is reused before it grows."""
        with self.lmdb.begin() as txn:
            return sum(_pages(txn.stat(table)) for table in self.tables.values())

    def log_bytes(self, group: int) -> int:
        """Bytes on LMDB's pages of a group's log, rows below the snapshot included."""
        with self.lmdb.begin() as txn:
            return _pages(txn.stat(self.log(group)))

    def file_bytes(self) -> int:
        """Size of LMDB's file; it never shrinks."""
        return (int(self.lmdb.info()["last_pgno"]) + 1) * int(self.lmdb.stat()["psize"])

    def free_bytes(self) -> int:
        """Bytes that can still be written: free pages in the file, and the disk's or the map's rest.

        What is in the journal only is as good as written; the journal's own files are on the disk already.
        """
        disk = os.statvfs(self.path)
        file_bytes = self.file_bytes()
        growth = min(disk.f_bavail * disk.f_frsize, int(self.lmdb.info()["map_size"]) - file_bytes)
        free = max(0, file_bytes - self.used_bytes()) + max(0, growth)
        return max(0, free - self.journal.unfolded_bytes)

    def _identify(self, cluster: str, node: str, now_ms: int) -> None:
        for name in SHARED_TABLES:
            self._table(name)
        stored_format = self._meta(b"format")
        if stored_format is None:
            uid = str(uuid.uuid4())
            self._put_meta({b"format": str(FORMAT), b"cluster": cluster, b"node": node, b"uuid": uid})
        elif stored_format not in (str(FORMAT), *OLDER_FORMATS):
            raise StoreError(
                f"data directory {self.path} has format {stored_format}, this program knows {FORMAT}"
            )
        for what, wanted in ((b"cluster", cluster), (b"node", node)):
            if (found := self._meta(what)) != wanted:
                raise StoreError(
                    f"data directory {self.path} belongs to {what.decode()} {found!r}, not {wanted!r}"
                )
        if stored_format in OLDER_FORMATS:
            self._put_meta({b"format": str(FORMAT)})
        if not self.sync:
            self._put_meta({b"unsynced": "yes"})
        self.boot = max(int(self._meta(b"boot") or 0) + 1, now_ms)
        self._put_meta({b"boot": str(self.boot)})
        self.uuid = str(self._meta(b"uuid"))
        for group in self.groups():
            self._table(keys.log_table(group))

    def _open_journal(self, segment_bytes: int) -> Journal:
        folded = self._meta(b"journal")
        journal = Journal(
            self.path,
            seed=self.uuid.encode(),
            folded=int(folded or 0),
            is_new=folded is None,
            sync=self.sync,
            segment_bytes=segment_bytes,
        )
        if folded is None:  # not before its files are there: from now on each of them must be
            self._put_meta({b"journal": "0"})
        return journal

    def _meta(self, name: bytes) -> str | None:
        with self.lmdb.begin() as txn:
            value = txn.get(name, db=self.tables[b"meta"])
        return None if value is None else value.decode()

    def _put_meta(self, values: Mapping[bytes, str]) -> None:
        with self.lmdb.begin(write=True) as txn:
            for name, value in values.items():
                txn.put(name, value.encode(), db=self.tables[b"meta"])

    def _table(self, name: bytes) -> None:
        if name not in self.tables:
            self.tables[name] = self.lmdb.open_db(name)


def _pages(stat: Mapping[str, int]) -> int:
    return (stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]) * stat["psize"]


def _locked(path: Path) -> int:
    """Descriptor of the directory's lock file, locked. The kernel lets go of it when the process ends."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = os.open(path / "warren.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StoreError(f"data directory {path} cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = os.pread(lock, 20, 0).decode(errors="replace").strip() or "another process"
        os.close(lock)
        raise StoreError(f"data directory {path} is in use by process {owner}") from error
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


def _opened(path: Path, sync: bool, map_bytes: int) -> Any:
    while True:
        try:
            return lmdb.open(
                str(path),
                map_size=map_bytes,
                max_dbs=TABLES_MAX,
                readahead=False,  # bodies are read at random; the kernel would read around each for nothing
                meminit=False,
                sync=sync,
                metasync=sync,
            )
        except (lmdb.MemoryError, MemoryError, OverflowError) as error:
            if map_bytes <= MAP_BYTES_MIN:
                raise StoreError(f"data directory {path}: no address space for {map_bytes} bytes") from error
            map_bytes //= 2
        except lmdb.Error as error:
            raise StoreError(f"data directory {path} cannot be opened: {error}") from error
