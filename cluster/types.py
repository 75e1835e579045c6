"""The words that every module of the cluster shares: identifiers, log entries, configurations.

Nothing here knows AMQP, does IO or keeps state. `Entry` is created once per batch, never per message.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, NewType

NodeId = NewType("NodeId", int)
"""A node of the cluster: 1, 2, 3 ... in the order of the sorted names. Never reused."""
GroupId = NewType("GroupId", int)
"""A Raft group: 0 is the metadata group, 1..N are shards. From `MEMORY_GROUP` on: a node's own memory."""
Term = NewType("Term", int)
Index = NewType("Index", int)

METADATA_GROUP = GroupId(0)
MEMORY_GROUP = 1 << 16
"""`MEMORY_GROUP + node` is the group without a log that lives in the memory of that node."""


class EntryKind(IntEnum):
    """What `Entry.data` holds."""

    NOOP = 0  # empty; the first entry of a leader's term (Raft 8)
    BATCH = 1  # commands of one origin (see cluster.origin)
    MEMBERSHIP = 2  # a membership change (see cluster.raft.membership)
    ORIGIN_GONE = 3  # the origin named in the data has ended (see cluster.origin)


class Entry(NamedTuple):
    """One entry of a group's log.

    Args:
        index: position in the log, from 1, without gaps.
        term: term of the leader that created it.
        kind: an `EntryKind`.
        ts: milliseconds since the epoch by the leader's clock, never falling within a group.
        data: opaque to Raft.
    """

    index: int  # type: ignore[assignment]  # the word of the log; tuple.index is not used
    term: int
    kind: int
    ts: int
    data: bytes


class HardState(NamedTuple):
    """What a replica must find again after a restart (Raft 5.1, figure 2)."""

    term: int
    vote: int  # 0: none in this term
    commit: int


@dataclass(slots=True, frozen=True)
class Configuration:
    """Who belongs to a group. `outgoing` is not empty while a joint change is under way (Raft 6).

    All tuples are sorted. A node is in at most one of `voters | outgoing` and `learners`;
    `learners_next` are outgoing voters that become learners when the joint change ends.
    """

    voters: tuple[int, ...]
    learners: tuple[int, ...] = ()
    outgoing: tuple[int, ...] = ()
    learners_next: tuple[int, ...] = ()
    auto_leave: bool = False


class SnapshotMeta(NamedTuple):
    """The position that a saved state of a group describes: all entries up to `index` are applied in it."""

    index: int  # type: ignore[assignment]  # the word of the log; tuple.index is not used
    term: int
    ts: int
    configuration: Configuration
    machine_version: int
