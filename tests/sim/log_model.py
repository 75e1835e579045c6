"""What each group has agreed on, read from the nodes' logs as entries become committed.

An independent reading: which batches of the origin streams count, which messages they hold. A node's replica
must have come to the same, and a client may be told of nothing that is not here.
"""

import re
import struct
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from cluster.types import Entry, EntryKind
from tests.sim.history import Message, Violation
from tests.sim.world import World

_HEADER = struct.Struct(">HQQ")
_GONE = struct.Struct(">HQ")
_COMMAND = struct.Struct(">BI")
_ENQUEUE, _ENQUEUE_WITH = 13, 14
_QUEUES = struct.Struct(">8x4xH")  # after ticket and count of messages
_OPTIONS = struct.Struct(
    ">BqqqQQQH"
)  # priority, three times, of letters: queue, low, number; count of dedup ids
_LENGTH = struct.Struct(">I")
_BODY = re.compile(rb"<(\d+):(\d+)>")

Streams = tuple[tuple[int, int, int], ...]
"""(node, epoch, next seq) of each origin; seq 0: the epoch has ended."""


class Arrival(NamedTuple):
    """When a message first came to a group from a publisher.

    Args:
        ts: time of its entry.
        place: counts the messages of the group.
    """

    ts: int
    place: int


class Options(NamedTuple):
    """What an enqueue asks for, as far as it matters here."""

    priority: int = 0
    is_letter: bool = False
    has_dedup_ids: bool = False


@dataclass(slots=True)
class GroupModel:
    """A group's committed log."""

    terms: list[int] = field(default_factory=lambda: [0])  # by index
    known_in: list[int] = field(
        default_factory=lambda: [0]
    )  # by index: a term in which it was committed already
    origins: dict[int, tuple[int, int]] = field(default_factory=dict)
    streams: list[Streams] = field(default_factory=lambda: [()])  # by index: after that entry
    ts: int = 0  # of the newest entry
    messages: dict[Message, int] = field(default_factory=dict)  # index of the newest entry that holds it
    arrivals: dict[Message, Arrival] = field(default_factory=dict)
    last: dict[tuple[int, int, int], int] = field(
        default_factory=dict
    )  # (channel, uid, priority): number of the newest message

    @property
    def commit(self) -> int:
        """Highest index known to be committed."""
        return len(self.terms) - 1

    def committed_before(self, term: int) -> int:
        """The highest index known to have been committed in an earlier term."""
        return bisect_left(self.known_in, term) - 1

    def learn(self, group: int, entry: Entry, term: int) -> None:
        """The next entry is committed, as a node in `term` knows."""
        self.terms.append(entry.term)
        self.known_in.append(max(term, self.known_in[-1]))
        self.ts = entry.ts
        if entry.kind == EntryKind.BATCH:
            node, epoch, seq = _HEADER.unpack_from(entry.data)
            known, expected = self.origins.get(node, (0, 0))
            if (epoch == known and seq == expected) or (epoch > known and seq == 1):
                self.origins[node] = (epoch, seq + 1)
                if group:  # group 0 has commands of its own, and no messages
                    self._hold(group, entry)
        elif entry.kind == EntryKind.ORIGIN_GONE:
            node, epoch = _GONE.unpack(entry.data)
            if self.origins.get(node, (0, 0))[0] == epoch:
                self.origins[node] = (epoch, 0)
        self.streams.append(tuple(sorted((node, *stream) for node, stream in self.origins.items())))

    def _hold(self, group: int, entry: Entry) -> None:
        for uids, options, records in _enqueued(entry.data):
            for found in _BODY.findall(records):
                message = channel, number = int(found[0]), int(found[1])
                self.messages[message] = entry.index
                if options.is_letter:
                    continue
                self.arrivals.setdefault(message, Arrival(entry.ts, len(self.arrivals)))
                if options.has_dedup_ids:
                    continue
                for uid in uids:
                    # What priorities keep apart need not stay in order.
                    before = self.last.get((channel, uid, options.priority), 0)
                    where = f"({channel}, {number}) of queue {uid} in group {group}"
                    if number == before:
                        raise Violation("message twice in the log", where)
                    if number < before:
                        raise Violation("out of order", f"{where} comes after {before}")
                    self.last[channel, uid, options.priority] = number


def _enqueued(data: bytes) -> Iterator[tuple[tuple[int, ...], Options, bytes]]:
    """The queues, the options and the records of each enqueue command of a batch."""
    offset = _HEADER.size
    while offset < len(data):
        kind, size = _COMMAND.unpack_from(data, offset)
        offset += _COMMAND.size
        if kind in (_ENQUEUE, _ENQUEUE_WITH):
            body = data[offset : offset + size]
            (count,) = _QUEUES.unpack_from(body)
            at = end = _QUEUES.size + 8 * count
            options = Options()
            if kind == _ENQUEUE_WITH:
                (length,) = _LENGTH.unpack_from(body, end)
                found = _OPTIONS.unpack_from(body, end + _LENGTH.size)
                options = Options(found[0], found[4] != 0, found[7] != 0)
                at += _LENGTH.size + length
            yield struct.unpack(f">{count}Q", body[_QUEUES.size : end]), options, body[at:]
        offset += size


class LogModel:
    """All groups of a cluster."""

    def __init__(self, world: World, groups: int) -> None:
        self.world = world
        self.groups = {group: GroupModel() for group in range(groups)}
        formed = next(iter(world.nodes.values())).disk.durable
        self._voters = {group: set(formed[group].snapshot.configuration.voters) for group in self.groups}

    def holders(self, group: int, index: int) -> list[int]:
        """Nodes whose disk durably holds the committed entry at `index`, as itself or in a saved state."""
        term = self.groups[group].terms[index]
        found = []
        for node, sim in self.world.nodes.items():
            image = sim.disk.durable[group]
            if image.snapshot.index >= index or (index <= image.last and image.log[index].term == term):
                found.append(node)
        return found

    def is_durable(self, group: int, index: int) -> bool:
        """Whether a majority of the group's voters holds it durably."""
        voters = self._voters[group]
        return 2 * len(voters.intersection(self.holders(group, index))) > len(voters)

    def has_message(self, group: int, message: Message) -> bool:
        """Whether a committed entry, durable on a majority, holds the message."""
        index = self.groups[group].messages.get(message)
        return index is not None and self.is_durable(group, index)

    def is_current(self, group: int, node: int, epoch: int) -> bool:
        """Whether the node's stream into the group is in this epoch and has not ended."""
        known, seq = self.groups[group].origins.get(node, (0, 0))
        return known == epoch and seq != 0
