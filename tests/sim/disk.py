"""A simulated disk: LogStore over dictionaries, with a durable image and writes that are not durable yet.

`note` changes what is read at once, as the real store does. `sync` makes turns durable in order; `crash` keeps
some prefix of what was under way, as an atomic commit may have happened just before the power went.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from cluster.ports import Compacted, GroupWrite, Unavailable
from cluster.types import Configuration, Entry, HardState, SnapshotMeta

FRESH = HardState(0, 0, 0)


@dataclass(slots=True)
class GroupImage:
    """What is stored of one group."""

    snapshot: SnapshotMeta
    hard_state: HardState = FRESH
    compacted: int = 0
    compacted_term: int = 0
    last: int = 0
    log: dict[int, Entry] = field(default_factory=dict)
    live: dict[int, Entry] = field(default_factory=dict)
    rows: dict[bytes, bytes] = field(default_factory=dict)

    def copy(self) -> "GroupImage":
        """An independent image; entries are shared, they never change."""
        return GroupImage(
            self.snapshot,
            self.hard_state,
            self.compacted,
            self.compacted_term,
            self.last,
            dict(self.log),
            dict(self.live),
            dict(self.rows),
        )

    def write(self, write: GroupWrite) -> None:
        """Carry out one group's writes of a turn, in the order that GroupWrite documents."""
        if write.install is not None:
            self._install(write.install, write)
        if write.truncate_from is not None:
            assert write.truncate_from > self.compacted
            for index in range(write.truncate_from, self.last + 1):
                del self.log[index]
            self.last = min(self.last, write.truncate_from - 1)
        for entry in write.entries:
            assert entry.index == self.last + 1, (entry.index, self.last)
            self.log[entry.index] = entry
            self.last = entry.index
        if write.hard_state is not None:
            assert write.hard_state.term >= self.hard_state.term
            assert write.hard_state.commit <= self.last, (write.hard_state, self.last)
            self.hard_state = write.hard_state
        if write.checkpoint is not None:
            self._save(write.checkpoint, write.checkpoint_rows)
        if write.compact_to is not None:
            assert self.compacted <= write.compact_to <= self.snapshot.index
            assert write.compact_term == self.term(write.compact_to)
            self.compacted_term = write.compact_term
            self.compacted = write.compact_to
        for index in write.trims:
            assert index <= self.compacted
            self.log.pop(index, None)
            self.live.pop(index, None)
        for entry in write.live_rows:
            self.live[entry.index] = entry

    def _install(self, meta: SnapshotMeta, write: GroupWrite) -> None:
        kept = {index: entry for index, entry in self.log.items() if index <= write.install_applied}
        self.live.update(kept)
        self.log.clear()
        self.rows = dict(write.install_rows)
        self.snapshot = meta
        self.compacted = self.last = meta.index
        self.compacted_term = meta.term

    def _save(self, meta: SnapshotMeta, rows: list[tuple[bytes, bytes | None]]) -> None:
        assert self.snapshot.index <= meta.index <= self.last
        self.snapshot = meta
        for key, value in rows:
            if value is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = value

    def term(self, index: int) -> int:
        """See LogView."""
        if index == self.compacted:
            return self.compacted_term
        if index < self.compacted:
            raise Compacted
        if index > self.last:
            raise Unavailable
        return self.log[index].term


class DiskView:
    """One group's log; implements cluster.ports.LogView."""

    def __init__(self, disk: "Disk", group: int) -> None:
        self._disk = disk
        self._group = group

    @property
    def _image(self) -> GroupImage:
        return self._disk.images[self._group]

    def initial_state(self) -> tuple[HardState, Configuration]:
        return self._image.hard_state, self._image.snapshot.configuration

    def first_index(self) -> int:
        return self._image.compacted + 1

    def last_index(self) -> int:
        return self._image.last

    def term(self, index: int) -> int:
        return self._image.term(index)

    def entries(self, lo: int, hi: int, bytes_max: int) -> list[Entry]:
        image = self._image
        if lo <= image.compacted:
            raise Compacted
        if hi > image.last + 1:
            raise Unavailable
        found: list[Entry] = []
        size = 0
        for index in range(lo, hi):
            entry = image.log[index]
            size += len(entry.data)
            if found and size > bytes_max:
                break
            found.append(entry)
        return found

    def snapshot_meta(self) -> SnapshotMeta:
        return self._image.snapshot


class Disk:
    """All groups of a node; implements cluster.ports.LogStore."""

    def __init__(self) -> None:
        self.durable: dict[int, GroupImage] = {}
        self.images: dict[int, GroupImage] = {}
        self.under_way: list[tuple[int, list[GroupWrite]]] = []  # (turn, writes), handed over, not durable

    def form(self, group: int, configuration: Configuration) -> None:
        """Create a group as it is when the cluster is formed."""
        image = GroupImage(SnapshotMeta(0, 0, 0, configuration, 1))
        self.durable[group] = image
        self.images[group] = image.copy()

    def view(self, group: int) -> DiskView:
        return DiskView(self, group)

    def note(self, writes: Iterable[GroupWrite]) -> None:
        for write in writes:
            self.images[write.group].write(write)

    def submit(self, turn: int, writes: list[GroupWrite]) -> None:
        """The writer has these; they become durable with `sync`."""
        self.under_way.append((turn, writes))

    def sync(self, turns: int | None = None) -> int:
        """Make the oldest turns under way (all if None) durable; returns the newest durable turn, 0 if none was."""
        newest = 0
        count = len(self.under_way) if turns is None else turns
        for turn, writes in self.under_way[:count]:
            for write in writes:
                self.durable[write.group].write(write)
            newest = turn
        del self.under_way[:count]
        return newest

    def crash(self, kept: int) -> None:
        """The power goes: of the turns under way the oldest `kept` had made it."""
        self.sync(kept)
        self.under_way.clear()
        self.images = {group: image.copy() for group, image in self.durable.items()}

    def data(self, group: int, index: int) -> bytes:
        return self.entry(group, index).data

    def entry(self, group: int, index: int) -> Entry:
        image = self.images[group]
        found = image.log.get(index)
        return image.live[index] if found is None else found

    def stored_below(self, group: int, index: int) -> Iterator[int]:
        image = self.images[group]
        return iter(sorted({i for i in (*image.log, *image.live) if i <= index}))

    def rows(self, group: int) -> Iterator[tuple[bytes, bytes]]:
        return iter(sorted(self.images[group].rows.items()))
