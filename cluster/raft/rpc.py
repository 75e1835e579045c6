"""What the members of one Raft group say to each other (Raft 5.1, 6, 7; names of the paper).

Plain values: the host stamps group, group uid and boot epochs on the envelope that carries them, and the
transport turns them into bytes. They are not frozen because several are built for each committed batch.
Every message has `source` and `target` (node ids) and `term`: the sender's term, except where noted.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar

from cluster.types import Entry, SnapshotMeta


class Kind(IntEnum):
    """Number of a message class on the wire; never reused."""

    APPEND_ENTRIES = 1
    APPEND_REPLY = 2
    HEARTBEAT = 3
    HEARTBEAT_REPLY = 4
    REQUEST_VOTE = 5
    VOTE_REPLY = 6
    INSTALL_SNAPSHOT = 7
    TIMEOUT_NOW = 8
    READ_INDEX = 9
    READ_INDEX_REPLY = 10


@dataclass(slots=True)
class AppendEntries:
    """Leader to member: entries to store after `prev_log_index`, and how far the log is committed.

    Args:
        entries: ascending, contiguous from prev_log_index + 1; empty where only the commit index is news or
            where the leader asks how far the member's log matches.
        quiet: the leader does not need to hear that it was accepted (a rejection is always answered).
    """

    KIND: ClassVar[Kind] = Kind.APPEND_ENTRIES
    source: int
    target: int
    term: int
    prev_log_index: int
    prev_log_term: int
    leader_commit: int
    entries: tuple[Entry, ...] = ()
    quiet: bool = False


@dataclass(slots=True)
class AppendReply:
    """Member to leader: the log matches up to `index`, durably, or it does not match at `index`.

    Args:
        index: accepted: the last index known to match. Rejected: the prev_log_index that did not match.
        rejected: see above. One of a newer term, with index 0, tells a stale leader to step down.
        hint_index: rejected: the highest index at which the logs can still match.
        hint_term: term of the member's entry at hint_index, 0 if unknown.
        lazy: nobody waits at this member for what is committed: the next append or heartbeat is soon enough.
    """

    KIND: ClassVar[Kind] = Kind.APPEND_REPLY
    source: int
    target: int
    term: int
    index: int
    rejected: bool = False
    hint_index: int = 0
    hint_term: int = 0
    lazy: bool = False


@dataclass(slots=True)
class Heartbeat:
    """Leader to member: I lead; `leader_commit` never passes what this member is known to hold.

    Args:
        token: number of the newest read round of this leader and term; comes back in the reply.
    """

    KIND: ClassVar[Kind] = Kind.HEARTBEAT
    source: int
    target: int
    term: int
    leader_commit: int
    token: int = 0


@dataclass(slots=True)
class HeartbeatReply:
    """Member to leader: I follow you in this term. `token` is the heartbeat's."""

    KIND: ClassVar[Kind] = Kind.HEARTBEAT_REPLY
    source: int
    target: int
    term: int
    token: int = 0


@dataclass(slots=True)
class RequestVote:
    """Candidate to voter (Raft 5.2; pre-vote: Ongaro's dissertation 9.6).

    Args:
        term: the term campaigned for; with `pre` the sender has not entered it yet.
        pre: asks whether a vote would be granted, and changes nothing at the voter.
        transfer: the leader asked for this campaign, so a voter that hears the leader answers all the same.
        commit: the sender's commit index, with commit_term the term of that entry: whoever has this entry
            knows that it is committed. Without it a voter and a candidate can be stuck in different
            configurations when the leader that made the change is gone.
    """

    KIND: ClassVar[Kind] = Kind.REQUEST_VOTE
    source: int
    target: int
    term: int
    last_log_index: int
    last_log_term: int
    pre: bool = False
    transfer: bool = False
    commit: int = 0
    commit_term: int = 0


@dataclass(slots=True)
class VoteReply:
    """Voter to candidate. A granted pre-vote carries the term asked for.

    A refusal carries the voter's term; that of a pre-vote the candidate's, if that is later.
    `commit` and `commit_term` are as in RequestVote.
    """

    KIND: ClassVar[Kind] = Kind.VOTE_REPLY
    source: int
    target: int
    term: int
    granted: bool
    pre: bool = False
    commit: int = 0
    commit_term: int = 0


@dataclass(slots=True)
class InstallSnapshot:
    """Leader to member: its saved state at `meta`.

    The host moves and stages the rows, and steps this message at the receiver when they are complete.
    """

    KIND: ClassVar[Kind] = Kind.INSTALL_SNAPSHOT
    source: int
    target: int
    term: int
    meta: SnapshotMeta


@dataclass(slots=True)
class TimeoutNow:
    """Leader to the member that is to lead: campaign at once (dissertation 3.10)."""

    KIND: ClassVar[Kind] = Kind.TIMEOUT_NOW
    source: int
    target: int
    term: int


@dataclass(slots=True)
class ReadIndex:
    """Follower to leader: what must I have applied to read what is current (dissertation 6.4)?"""

    KIND: ClassVar[Kind] = Kind.READ_INDEX
    source: int
    target: int
    term: int
    token: int


@dataclass(slots=True)
class ReadIndexReply:
    """Leader to follower: apply up to `index`, then answer the read named by the follower's `token`."""

    KIND: ClassVar[Kind] = Kind.READ_INDEX_REPLY
    source: int
    target: int
    term: int
    token: int
    index: int


Message = (
    AppendEntries
    | AppendReply
    | Heartbeat
    | HeartbeatReply
    | RequestVote
    | VoteReply
    | InstallSnapshot
    | TimeoutNow
    | ReadIndex
    | ReadIndexReply
)
