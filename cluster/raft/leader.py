"""What a leader does: append, replicate, commit, hand over, answer reads.

Raft 5.3, 5.4.2 and 6; hand-over and reads: dissertation 3.10 and 6.4.


Sending is done once per Ready, in `broadcast`: whatever was proposed, acknowledged and committed in one turn
leaves as one append per peer. A commit index that rose leaves at once, to learners too, where clients wait for
it, because each node answers its own clients from what it has applied; a peer that said in its replies that
nobody waits there (`AppendReply.lazy`) learns of it with the next append or heartbeat, and one from which something
came that is not committed yet learns of it with that. `spares` says who may wait for entries too.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cluster.ports import Compacted
from cluster.raft import membership
from cluster.raft.log import size_bytes
from cluster.raft.membership import LEAVE_JOINT, MembershipChange, MembershipRefused
from cluster.raft.progress import Flow, Progress
from cluster.raft.quorum import Outcome, joint_value, vote_outcome
from cluster.raft.reads import ReadRounds
from cluster.raft.ready import ReadState, Role
from cluster.raft.rpc import (
    AppendEntries,
    AppendReply,
    Heartbeat,
    HeartbeatReply,
    ReadIndex,
    ReadIndexReply,
    TimeoutNow,
)
from cluster.raft.spares import is_stuck, spares, window_bytes
from cluster.types import Entry, EntryKind

if TYPE_CHECKING:
    from cluster.raft.core import Raft

Slices = dict[int, tuple[tuple[Entry, ...], int]]
"""Entries cut for this broadcast, by first index, with their bytes: peers mostly want the same."""


@dataclass(slots=True)
class Leadership:
    """What a leader knows, for one term.

    Args:
        term_start: index of its first entry, the no-op; only from there does counting commit (Raft 5.4.2).
        pending_change: no membership change is accepted until this index is applied.
        last_ts: time stamp of the last entry.
        uncommitted_bytes: data of its entries that were not handed out to be applied yet.
        appended_bytes: data of all entries that it made.
        moved_ts: when the commit index rose last, or there began to be something to commit.
        transferee: the member that is to lead next, 0 if none.
    """

    term_start: int
    pending_change: int
    last_ts: int
    progress: dict[int, Progress] = field(default_factory=dict)
    peers: list[Progress] = field(default_factory=list)  # the same, by ascending id
    reads: ReadRounds = field(default_factory=ReadRounds)
    uncommitted_bytes: int = 0
    appended_bytes: int = 0
    moved_ts: int = 0
    transferee: int = 0
    transfer_elapsed: int = 0
    wants_broadcast: bool = True


def become_leader(raft: "Raft") -> None:
    """Lead the term just won, beginning with an empty entry of it (Raft 8)."""
    raft.enter(Role.LEADER, leader=raft.id)
    raft.reset_election_timer()
    log = raft.log
    # An older leader's change may be in the log and not applied: wait until all of that log is.
    raft.leadership = Leadership(
        term_start=log.last_index + 1, pending_change=log.last_index, last_ts=_last_ts(raft)
    )
    _meet_members(raft, is_active=False)
    _append(raft, EntryKind.NOOP, [b""])


def _last_ts(raft: "Raft") -> int:
    log = raft.log
    if log.last_index >= log.first_index:
        return log.entries(log.last_index, log.last_index + 1, 0)[0].ts
    return log.view.snapshot_meta().ts


def _meet_members(raft: "Raft", *, is_active: bool) -> None:
    lead = raft.leadership
    assert lead is not None
    known, next_index = lead.progress, raft.log.last_index + 1
    peers = [member for member in membership.members(raft.configuration) if member != raft.id]
    lead.peers = [known.get(peer) or Progress(peer, next_index, is_active=is_active) for peer in peers]
    lead.progress = {progress.id: progress for progress in lead.peers}


def _append(raft: "Raft", kind: int, payloads: list[bytes]) -> int:
    lead, log = raft.leadership, raft.log
    assert lead is not None
    lead.last_ts = ts = max(lead.last_ts, raft.clock.ts)
    first, term = log.last_index + 1, raft.term
    if log.commit == log.last_index:
        lead.moved_ts = raft.clock.ts
    log.append([Entry(first + i, term, kind, ts, data) for i, data in enumerate(payloads)])
    lead.wants_broadcast = True
    return first


def propose(raft: "Raft", kind: int, payloads: list[bytes]) -> int | None:
    """Append one entry per payload; None while handing over, or above the limit of uncommitted bytes."""
    lead = raft.leadership
    if lead is None or lead.transferee:
        return None
    size = len(payloads[0]) if len(payloads) == 1 else sum([len(payload) for payload in payloads])
    # One that is too large by itself passes when nothing else is waiting, or it never could.
    if lead.uncommitted_bytes and lead.uncommitted_bytes + size > raft.options.uncommitted_bytes_max:
        return None
    lead.uncommitted_bytes += size
    lead.appended_bytes += size
    return _append(raft, kind, payloads)


def propose_membership(raft: "Raft", change: MembershipChange) -> int | None:
    """Append a change if none is unapplied and it is possible from the configuration in force."""
    lead = raft.leadership
    if lead is None or lead.transferee or lead.pending_change > raft.log.applied:
        return None
    try:
        membership.changed(raft.configuration, change)
    except MembershipRefused:
        return None
    lead.pending_change = _append(raft, EntryKind.MEMBERSHIP, [membership.encode_change(change)])
    return lead.pending_change


def leave_joint(raft: "Raft") -> None:
    """Propose the end of an applied joint change; tried again each tick until it is in the log."""
    lead = raft.leadership
    if lead is not None and raft.configuration.auto_leave and lead.pending_change <= raft.log.applied:
        # Not through propose_membership: a leader that is about to hand over must not forget it.
        lead.pending_change = _append(raft, EntryKind.MEMBERSHIP, [membership.encode_change(LEAVE_JOINT)])


def configuration_changed(raft: "Raft") -> None:
    """Quorum and peers change at the same moment; one that no longer votes stops leading."""
    lead = raft.leadership
    assert lead is not None
    if not membership.is_voter(raft.configuration, raft.id):
        # The commit index that removed it left in the Ready that carried the change.
        raft.become_follower(raft.term, 0)
        return
    _meet_members(raft, is_active=True)
    if lead.transferee and not membership.is_voter(raft.configuration, lead.transferee):
        lead.transferee = 0
    lead.wants_broadcast = True
    maybe_commit(raft)


def tick(raft: "Raft") -> None:
    """One tick: heartbeats, and once per election timeout the question who is still there."""
    lead = raft.leadership
    assert lead is not None
    raft.election_elapsed += 1
    if raft.election_elapsed >= raft.options.election_ticks:
        raft.election_elapsed = 0
        if not _has_quorum(raft, lead):
            raft.become_follower(raft.term, 0)
            return
    if lead.transferee:
        lead.transfer_elapsed += 1
        if lead.transfer_elapsed >= raft.options.election_ticks:
            lead.transferee = 0
    leave_joint(raft)
    # By the count of ticks, not since the last one: so the heartbeats of all groups of a node leave together.
    if raft.ticks % raft.options.heartbeat_ticks == 0:
        _send_heartbeats(raft, lead)


def _has_quorum(raft: "Raft", lead: Leadership) -> bool:
    """Whether a majority was heard from since the last question (CheckQuorum); begins the next period."""
    heard = {progress.id: progress.is_active for progress in lead.peers}
    heard[raft.id] = True
    for progress in lead.peers:
        progress.is_active = False
    configuration = raft.configuration
    return vote_outcome(configuration.voters, configuration.outgoing, heard) is Outcome.WON


def _send_heartbeats(raft: "Raft", lead: Leadership) -> None:
    commit, token = raft.log.commit, lead.reads.number
    for progress in lead.peers:
        # Never above what it is known to hold: beyond that its log may differ.
        known = min(progress.match_index, commit)
        raft.messages.append(Heartbeat(raft.id, progress.id, raft.term, known, token))


def maybe_commit(raft: "Raft") -> None:
    """Commit what a majority holds durably, if it reaches an entry of the own term (Raft 5.4.2, figure 8)."""
    lead, log, configuration = raft.leadership, raft.log, raft.configuration
    assert lead is not None
    matches = {progress.id: progress.match_index for progress in lead.peers}
    matches[raft.id] = log.persisted
    index = joint_value(configuration.voters, configuration.outgoing, matches)
    if index >= lead.term_start and log.commit_to(index):
        lead.moved_ts = raft.clock.ts
        lead.wants_broadcast = True


def broadcast(raft: "Raft") -> None:
    """Send each peer what it may get now, and begin a read round if reads wait."""
    lead = raft.leadership
    assert lead is not None
    lead.wants_broadcast = False
    slices: Slices = {}
    spare = spares(raft)
    for progress in lead.peers:
        if progress.flow is Flow.REPLICATE and progress not in spare:
            _feed(raft, progress, slices)
        elif progress.flow is Flow.PROBE and not progress.is_paused:
            _probe(raft, progress, slices)
    # Until an entry of this term is committed, the commit index may lag what earlier leaders answered.
    if lead.reads.waiting and raft.log.commit >= lead.term_start:
        lead.reads.begin(raft.log.commit)
        _send_heartbeats(raft, lead)
        _answer_reads(raft, lead)


def _feed(raft: "Raft", progress: Progress, slices: Slices) -> None:
    """Send entries as far as the window goes; without any, the commit index if it is news."""
    lead, log, options = raft.leadership, raft.log, raft.options
    assert lead is not None
    has_sent = False
    bytes_max = window_bytes(raft, progress)
    while (
        progress.next_index <= log.last_index
        and len(progress.inflights) < options.inflight_max
        and progress.inflight_bytes < bytes_max
    ):
        piece = _slice(raft, progress.next_index, slices)
        if piece is None:
            _want_snapshot(raft, progress)
            return
        entries, size = piece
        _send_append(raft, progress, entries)
        progress.sent(entries[-1].index, size)
        has_sent = True
    if progress.next_index > log.last_index:
        progress.fed_bytes = lead.appended_bytes
    if not has_sent and not progress.wants_echo and _can_wait(raft, progress):
        return
    if not has_sent and (progress.wants_echo or progress.commit_sent < log.commit):
        if progress.next_index < log.first_index:
            _want_snapshot(raft, progress)
            return
        _send_append(raft, progress, (), quiet=not progress.wants_echo)
    progress.commit_sent = log.commit
    progress.wants_echo = False


def _can_wait(raft: "Raft", progress: Progress) -> bool:
    """Whether the peer need not hear of a commit by itself; a membership change is always told.

    Either nobody waits there, or what came from there is not committed yet: then that will be told with all before it.
    """
    lead = raft.leadership
    assert lead is not None
    is_patient = progress.is_lazy or raft.log.commit < progress.awaited_index
    return is_patient and lead.pending_change <= progress.commit_sent


def _probe(raft: "Raft", progress: Progress, slices: Slices) -> None:
    """Send the one message that may find where the logs match."""
    log = raft.log
    progress.is_paused = True
    entries: tuple[Entry, ...] = ()
    if progress.next_index <= log.last_index:
        piece = _slice(raft, progress.next_index, slices)
        if piece is not None:
            entries = piece[0]
    if progress.next_index < log.first_index or (not entries and progress.next_index <= log.last_index):
        _want_snapshot(raft, progress)
        return
    _send_append(raft, progress, entries)


def _slice(raft: "Raft", first: int, slices: Slices) -> tuple[tuple[Entry, ...], int] | None:
    """Entries for one message from `first` on, with their bytes; None if they are compacted."""
    piece = slices.get(first)
    if piece is None:
        log = raft.log
        try:
            entries = tuple(log.entries(first, log.last_index + 1, raft.options.message_bytes_max))
        except Compacted:
            return None
        piece = slices[first] = (entries, size_bytes(entries))
    return piece


def _send_append(
    raft: "Raft", progress: Progress, entries: tuple[Entry, ...], *, quiet: bool = False
) -> None:
    previous, log = progress.next_index - 1, raft.log
    raft.messages.append(
        AppendEntries(
            raft.id, progress.id, raft.term, previous, log.term(previous), log.commit, entries, quiet
        )
    )


def _want_snapshot(raft: "Raft", progress: Progress) -> None:
    """What the peer needs is compacted. One that does not answer is asked for nothing and sent nothing."""
    lead = raft.leadership
    assert lead is not None
    lead.wants_broadcast = True  # others may be needed in its place
    if progress.is_active:
        progress.become_snapshot(raft.log.first_index - 1)
        raft.snapshots_wanted.append(progress.id)
    else:
        progress.become_probe(paused=True)


def step_append_reply(raft: "Raft", message: AppendReply) -> None:
    """A peer stored entries durably, or its log does not match."""
    lead, log = raft.leadership, raft.log
    assert lead is not None
    progress = lead.progress.get(message.source)
    if progress is None:
        return
    progress.is_active = True
    if progress.is_lazy and not message.lazy:
        lead.wants_broadcast = True
    progress.is_lazy = message.lazy
    if message.rejected:
        hint = message.hint_index
        if message.hint_term:
            hint = log.conflict_hint(hint, message.hint_term)[0]
        if progress.rejected(message.index, hint + 1):
            lead.wants_broadcast = True
        return
    assert message.index <= log.last_index, "a member holds more of this term than its leader"
    is_news = progress.accepted(message.index)
    if progress.flow is Flow.PROBE:
        if message.index == progress.match_index:
            progress.become_replicate()
            lead.wants_broadcast = True
    elif progress.flow is Flow.SNAPSHOT and progress.match_index + 1 >= log.first_index:
        # Whichever snapshot it was: the logs meet again.
        progress.become_replicate()
        lead.wants_broadcast = True
    if is_news:
        if progress.match_index > log.commit:
            maybe_commit(raft)
        if progress.next_index <= log.last_index:
            lead.wants_broadcast = True
        if lead.transferee == progress.id:
            _hand_over(raft, progress)


def step_heartbeat_reply(raft: "Raft", message: HeartbeatReply) -> None:
    """A peer is there: try again what may have been lost, and count it for the reads."""
    lead = raft.leadership
    assert lead is not None
    progress = lead.progress.get(message.source)
    if progress is None:
        return
    progress.is_active = True
    if progress.flow is Flow.PROBE:
        progress.is_paused = False
        lead.wants_broadcast = True
    elif progress.flow is Flow.REPLICATE and progress.match_index < raft.log.last_index:
        progress.wants_echo = True
        lead.wants_broadcast = True
    if lead.reads.acknowledged(message.source, message.token):
        _answer_reads(raft, lead)


def step_read_index(raft: "Raft", message: ReadIndex) -> None:
    """A follower wants to read."""
    read(raft, message.source, message.token)


def read(raft: "Raft", node: int, token: int) -> bool:
    """Take a read of this or another node; False above the limit: ask again later."""
    lead = raft.leadership
    assert lead is not None
    if lead.reads.count >= raft.options.reads_max:
        return False
    lead.reads.ask(node, token)
    lead.wants_broadcast = True
    return True


def _answer_reads(raft: "Raft", lead: Leadership) -> None:
    for confirmed in lead.reads.take_confirmed(raft.configuration, raft.id):
        for node, token in confirmed.requests:
            if node == raft.id:
                raft.read_states.append(ReadState(token, confirmed.commit))
            else:
                peer_waits(raft, node)  # until this index is applied there
                raft.messages.append(ReadIndexReply(raft.id, node, raft.term, token, confirmed.commit))


def ask_all_if_late(raft: "Raft") -> bool:
    """Whether entries wait for a majority; where they wait for too long, no member is spared any more."""
    lead, log = raft.leadership, raft.log
    if lead is None or log.commit == log.last_index:
        return False
    if is_stuck(raft):
        lead.wants_broadcast = True
    return True


def peer_waits(raft: "Raft", peer: int, index: int = 0) -> None:
    """Someone at this peer waits for what is committed: for the entry at `index`, where one is named."""
    lead = raft.leadership
    progress = lead.progress.get(peer) if lead is not None else None
    if lead is None or progress is None:
        return
    progress.awaited_index = max(progress.awaited_index, index)
    if progress.is_lazy:
        progress.is_lazy = False
        lead.wants_broadcast = True


def transfer(raft: "Raft", target: int) -> bool:
    """Hand over to a voter as soon as its log is complete; until then nothing is accepted."""
    lead = raft.leadership
    if lead is None:
        return False
    progress = lead.progress.get(target)
    if progress is None or not membership.is_voter(raft.configuration, target):
        return False
    if lead.transferee != target:
        lead.transferee, lead.transfer_elapsed = target, 0
        lead.wants_broadcast = True
        _hand_over(raft, progress)
    return True


def _hand_over(raft: "Raft", progress: Progress) -> None:
    if progress.match_index == raft.log.last_index:
        raft.messages.append(TimeoutNow(raft.id, progress.id, raft.term))


def peer_lost(raft: "Raft", peer: int) -> None:
    """The peer's process is gone: what was under way to it is lost."""
    lead = raft.leadership
    progress = lead.progress.get(peer) if lead is not None else None
    if lead is None or progress is None:
        return
    progress.become_probe(paused=True)
    progress.is_active = False
    lead.wants_broadcast = True  # others may be needed in its place
    if lead.transferee == peer:
        lead.transferee = 0


def unreachable(raft: "Raft", peer: int) -> None:
    """Messages to the peer were lost; its process may live."""
    lead = raft.leadership
    progress = lead.progress.get(peer) if lead is not None else None
    if lead is not None and progress is not None and progress.flow is Flow.REPLICATE:
        progress.become_probe(paused=True)
        lead.wants_broadcast = True


def snapshot_reported(raft: "Raft", peer: int, *, ok: bool) -> None:
    """The host shipped the saved state, or failed: go on when the peer answers, or after a heartbeat."""
    lead = raft.leadership
    progress = lead.progress.get(peer) if lead is not None else None
    if progress is not None and progress.flow is Flow.SNAPSHOT:
        progress.become_probe(paused=True, shipped=ok)


STEPS: dict[type, Callable[..., None]] = {
    AppendReply: step_append_reply,
    HeartbeatReply: step_heartbeat_reply,
    ReadIndex: step_read_index,
}
