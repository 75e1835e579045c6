"""Moving a group's saved state to a member that lags behind the leader's log.

The sender offers its newest checkpoint, the member says how far it has applied, and parts follow: first the
entries whose rows are stored up to the checkpoint (committed, so they are the same everywhere, and may be kept
as they come), then the rows of the state. Only when all is there does the member hand the position to Raft.
While a transfer runs the sender makes no newer checkpoint and trims no row of the group, so what it reads is
one state without a long read transaction. A transfer that stands still is given up and offered anew.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from cluster.envelope import SnapshotPart
from cluster.ports import LogStore
from cluster.types import Entry, SnapshotMeta

PART_BYTES_MAX = 128 * 1024
"""Passed by one entry at most. Each part is read, sent and written beside what clients wait for."""
PARTS_UNDER_WAY_MAX = 2
STALLED_MS_MAX = 10_000


@dataclass(slots=True)
class SnapshotSender:
    """One transfer under way from here to `peer`."""

    group: int
    peer: int
    term: int
    meta: SnapshotMeta
    transfer: int
    moved_at_ms: int
    sent: int = 0  # parts
    received: int = 0
    finished: bool = False  # the last part is out
    _parts: Iterator[SnapshotPart] | None = None

    def begin(self, store: LogStore, applied: int, live: Mapping[int, int]) -> None:
        """The member wants the state and has applied everything up to `applied`.

        Args:
            live: indexes whose data the machine here needs; read while the parts are made.
        """
        if self._parts is None:
            self._parts = self._make_parts(store, applied, live)

    def next_parts(self) -> list[SnapshotPart]:
        """The parts that may go out now."""
        parts: list[SnapshotPart] = []
        while (
            self._parts is not None and not self.finished and self.sent - self.received < PARTS_UNDER_WAY_MAX
        ):
            part = next(self._parts)
            self.sent += 1
            self.finished = part.last
            parts.append(part)
        return parts

    def _make_parts(self, store: LogStore, applied: int, live: Mapping[int, int]) -> Iterator[SnapshotPart]:
        number = size = 0
        entries: list[Entry] = []
        for index in [i for i in store.stored_below(self.group, self.meta.index) if i > applied]:
            try:
                entry = store.entry(self.group, index)
            except KeyError:
                if index in live:
                    raise
                continue  # dead before the transfer began: its trim was already on its way to the disk
            entries.append(entry)
            size += len(entry.data)
            if size >= PART_BYTES_MAX:
                yield self._part(number, tuple(entries), (), last=False)
                number, size, entries = number + 1, 0, []
        rows: list[tuple[bytes, bytes]] = []
        for key, value in list(store.rows(self.group)):
            rows.append((key, value))
            size += len(key) + len(value)
            if size >= PART_BYTES_MAX:
                yield self._part(number, tuple(entries), tuple(rows), last=False)
                number, size, entries, rows = number + 1, 0, [], []
        yield self._part(number, tuple(entries), tuple(rows), last=True)

    def _part(
        self, number: int, entries: tuple[Entry, ...], rows: tuple[tuple[bytes, bytes], ...], *, last: bool
    ) -> SnapshotPart:
        return SnapshotPart(
            self.group, self.term, self.meta.index, number, entries, rows, last, self.transfer
        )


@dataclass(slots=True)
class SnapshotReceiver:
    """What has come so far of the state that `sender` offered in `term`."""

    sender: int
    term: int
    meta: SnapshotMeta
    transfer: int
    parts: int = 0
    complete: bool = False
    rows: list[tuple[bytes, bytes]] = field(default_factory=list)

    def matches(self, sender: int, part: SnapshotPart) -> bool:
        """Whether a part belongs to this transfer.

        The parts of another one may be cut differently, even of the same state: mixed, they would leave gaps.
        """
        own = (self.sender, self.term, self.meta.index, self.transfer)
        return own == (sender, part.term, part.index, part.transfer)

    def add(self, part: SnapshotPart) -> bool:
        """Take the next part; False if it is not the next one."""
        if self.complete or part.number != self.parts:
            return False
        self.parts += 1
        self.rows.extend(part.rows)
        self.complete = part.last
        return True
