"""What one node says to another in one turn: everything for all groups, in one envelope.

Envelopes are values. A link may lose, delay, double or reorder them; nothing here relies on more than
that what arrives was sent. `boot` tells the processes of a node apart: a message for an earlier process of
the receiver is dropped unread.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from cluster.raft.rpc import Message
from cluster.types import Entry, SnapshotMeta


class Batch(NamedTuple):
    """A batch of an origin stream on its way to the group's leader; `data` is the log entry to be (origin.py)."""

    group: int
    data: bytes


class Expect(NamedTuple):
    """The leader of `group` in `term` is ready and wants the receiver's stream from (epoch, seq) on.

    For a memory group the owner says it, in term 0. `applied` is then the last seq it has carried out.
    """

    group: int
    term: int
    epoch: int
    seq: int


class SnapshotOffer(NamedTuple):
    """A leader offers the saved state at `meta` to a member whose log ends before the leader's begins.

    `transfer` tells the transfers of a sender's process apart, for one that is begun again offers the same.
    """

    group: int
    term: int
    meta: SnapshotMeta
    transfer: int


class SnapshotAccept(NamedTuple):
    """The member wants it, and has applied all entries up to `applied`."""

    group: int
    term: int
    index: int  # type: ignore[assignment]  # the word of the log; tuple.index is not used
    applied: int


class SnapshotPart(NamedTuple):
    """Part `number` (from 0) of the state at `index`: entries whose data is live, then rows; `last` ends it."""

    group: int
    term: int
    index: int  # type: ignore[assignment]  # the word of the log; tuple.index is not used
    number: int
    entries: tuple[Entry, ...]
    rows: tuple[tuple[bytes, bytes], ...]
    last: bool
    transfer: int


class SnapshotPartReply(NamedTuple):
    """The member has part `number`; `ok` False: it wants no more of this snapshot."""

    group: int
    term: int
    index: int  # type: ignore[assignment]  # the word of the log; tuple.index is not used
    number: int
    ok: bool
    transfer: int


@dataclass(slots=True)
class Envelope:
    """All for one peer of one turn.

    Args:
        sender: node that sent it.
        boot: boot epoch of the sender's process.
        to_boot: boot epoch of the receiver's process as far as the sender knows, 0 if it does not.
        messages: (group, Raft message) in the order they were made.
        batches, expects, offers, accepts, parts, part_replies: see their classes. May be empty, as may all:
            an empty envelope says "I am here".
    """

    sender: int
    boot: int
    to_boot: int
    messages: list[tuple[int, Message]] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    expects: list[Expect] = field(default_factory=list)
    offers: list[SnapshotOffer] = field(default_factory=list)
    accepts: list[SnapshotAccept] = field(default_factory=list)
    parts: list[SnapshotPart] = field(default_factory=list)
    part_replies: list[SnapshotPartReply] = field(default_factory=list)
