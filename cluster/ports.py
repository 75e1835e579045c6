"""What the cluster needs of the world: a log store to read from, and the writes handed to it.

`LogView` is what one Raft core sees of its own log. `LogStore` serves all groups of a node. Both are
synchronous: reads come from memory or from a memory map. Writes are data: the driver hands a turn's
writes to the writer, and tells the host when they are durable.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from cluster.types import Configuration, Entry, HardState, SnapshotMeta


class Compacted(Exception):
    """The index lies below the snapshot: Raft no longer has it."""


class Unavailable(Exception):
    """The index lies above the end of the log."""


class LogView(Protocol):
    """The log of one group as its Raft core reads it, with every write that was handed over, durable or not."""

    def initial_state(self) -> tuple[HardState, Configuration]:
        """Hard state and the configuration as of the newest snapshot."""

    def first_index(self) -> int:
        """Index after the last compacted one. At most snapshot index + 1: some stay for slow members."""

    def last_index(self) -> int:
        """Index of the last entry, or first_index() - 1 if there is none."""

    def term(self, index: int) -> int:
        """Term of the entry; known from first_index() - 1 on. Raises Compacted below, Unavailable above the last."""

    def entries(self, lo: int, hi: int, bytes_max: int) -> list[Entry]:
        """Entries lo..hi-1, ascending; at least one, then as many as fit in bytes_max of data."""

    def snapshot_meta(self) -> SnapshotMeta:
        """The newest durable snapshot."""


@dataclass(slots=True)
class GroupWrite:
    """What one group wants written in one turn, carried out in the order of the fields, in one transaction.

    Args:
        group: which group.
        install: replace the whole state by `install_rows` and set the snapshot; the log begins after it.
        install_applied: with `install`: log rows up to this index stay, being committed: their
            messages may live on; log rows above it go.
        truncate_from: delete every log row at or above this index.
        entries: ascending, contiguous, may be empty.
        hard_state: None if unchanged.
        checkpoint: rows changed in the saved state, which now describes this position. `entries` up to it stay
            until they are trimmed.
        compact_to: Raft forgets all entries up to this index, at or below the checkpoint's: `first_index` becomes
            compact_to + 1 and `term(compact_to)` stays known. Rows stay until they are trimmed.
        compact_term: with `compact_to`: the term of the entry there, whose row the store may not have any more.
        trims: indexes at or below compact_to whose rows may go. Ascending.
        live_rows: committed entries of a sender's snapshot that this node lacks; kept beside the log.
    """

    group: int
    install: SnapshotMeta | None = None
    install_rows: list[tuple[bytes, bytes]] = field(default_factory=list)
    install_applied: int = 0
    truncate_from: int | None = None
    entries: list[Entry] = field(default_factory=list)
    hard_state: HardState | None = None
    checkpoint: SnapshotMeta | None = None
    checkpoint_rows: list[tuple[bytes, bytes | None]] = field(default_factory=list)
    compact_to: int | None = None
    compact_term: int = 0
    trims: list[int] = field(default_factory=list)
    live_rows: list[Entry] = field(default_factory=list)


class LogStore(Protocol):
    """The stored logs and states of all groups of a node: the read side."""

    def view(self, group: int) -> LogView:
        """The log of one group; the group is created empty, with the given first configuration, by `form`."""

    def note(self, writes: Iterable[GroupWrite]) -> None:
        """From now on reads show these writes; called when they are handed to the writer."""

    def data(self, group: int, index: int) -> bytes:
        """Data of an entry at any index whose row exists, above or below the snapshot. KeyError if there is none."""

    def entry(self, group: int, index: int) -> Entry:
        """The whole entry of a row that `data` would find."""

    def stored_below(self, group: int, index: int) -> Iterator[int]:
        """Indexes of all rows at or below `index`, ascending: what a restart must compare with the live set."""

    def rows(self, group: int) -> Iterator[tuple[bytes, bytes]]:
        """The saved state of a group, in key order."""
