"""Elections, from both sides: campaigning (pre-vote, then vote) and voting (Raft 5.2, 5.4.1).

A request advertises the end of the log, and a vote promises a term, so both wait until everything that they
rest on is durable, and the candidate's own vote is counted only then. If an advertised tail could vanish in
a crash, the node might campaign twice in one term with different logs.
"""

from typing import TYPE_CHECKING

from cluster.raft import follower, leader
from cluster.raft.membership import is_voter
from cluster.raft.quorum import Outcome, vote_outcome
from cluster.raft.ready import Role
from cluster.raft.rpc import AppendEntries, Heartbeat, InstallSnapshot, RequestVote, VoteReply
from cluster.types import EntryKind

if TYPE_CHECKING:
    from cluster.raft.core import Raft

RESEND_TICKS = 2
"""Unanswered requests are repeated: a voter that notices the leader's death late has refused by silence."""
STAGGER_TICKS = 3
"""After a leader's death the survivors campaign one by one, this far apart, instead of splitting votes."""
SCAN_BYTES_MAX = 1 << 20


def campaign(raft: "Raft") -> None:
    """Ask for pre-votes, unless this member must not lead."""
    raft.reset_election_timer()
    if can_campaign(raft):
        _become_pre_candidate(raft)


def can_campaign(raft: "Raft") -> bool:
    """Whether this member votes, has its state, and has applied every membership change that is committed.

    The last one keeps the configuration in force at most one step behind the log, which is what makes
    changes at apply safe.
    """
    log = raft.log
    if raft.role is Role.LEADER or not is_voter(raft.configuration, raft.id):
        return False
    if log.pending_snapshot is not None or log.installing is not None:
        return False
    index = log.applied + 1
    while index <= log.commit:
        entries = log.entries(index, log.commit + 1, SCAN_BYTES_MAX)
        if any(entry.kind == EntryKind.MEMBERSHIP for entry in entries):
            return False
        index = entries[-1].index + 1
    return True


def leader_lost(raft: "Raft", lost: int) -> None:
    """The leader's process is gone: campaign soon, one by one, with another survivor first in each group."""
    configuration = raft.configuration
    survivors = sorted({*configuration.voters, *configuration.outgoing} - {lost})
    if raft.id not in survivors:
        return
    rank = (survivors.index(raft.id) - raft.options.group) % len(survivors)
    if rank == 0:
        campaign(raft)
    else:
        raft.campaign_in = rank * STAGGER_TICKS


def tick(raft: "Raft") -> None:
    """One tick of a member that does not lead."""
    raft.election_elapsed += 1
    if raft.campaign_in > 0:
        raft.campaign_in -= 1
        if raft.campaign_in == 0:
            campaign(raft)
            return
    if raft.election_elapsed >= raft.election_timeout:
        campaign(raft)
    elif raft.role is not Role.FOLLOWER and raft.election_elapsed % RESEND_TICKS == 0:
        _request_votes(raft)


def _become_pre_candidate(raft: "Raft") -> None:
    """Enter the stage before a candidacy: neither term nor vote change."""
    raft.enter(Role.PRE_CANDIDATE, leader=0)
    raft.is_transfer = False
    _request_votes(raft)
    # A pre-vote promises nothing, so one's own needs no disk.
    record_vote(raft, raft.id, granted=True)


def become_candidate(raft: "Raft", *, transfer: bool = False) -> None:
    """Enter the next term, vote for oneself, and ask the others; the own vote counts once it is durable."""
    raft.enter(Role.CANDIDATE, leader=0)
    raft.reset_election_timer()
    raft.term += 1
    raft.voted_for = raft.id
    raft.is_transfer = transfer
    raft.self_vote_number = 0
    _request_votes(raft)


def _request_votes(raft: "Raft") -> None:
    pre = raft.role is Role.PRE_CANDIDATE
    term = raft.term + 1 if pre else raft.term
    log, configuration = raft.log, raft.configuration
    commit_term = log.term(log.commit)
    for voter in sorted({*configuration.voters, *configuration.outgoing}):
        if voter != raft.id and voter not in raft.votes:
            raft.messages_after_persist.append(
                RequestVote(
                    raft.id,
                    voter,
                    term,
                    log.last_index,
                    log.last_term,
                    pre=pre,
                    transfer=raft.is_transfer,
                    commit=log.commit,
                    commit_term=commit_term,
                )
            )


def record_vote(raft: "Raft", voter: int, *, granted: bool) -> None:
    """Count an answer; the first one of each voter stands."""
    raft.votes.setdefault(voter, granted)
    outcome = vote_outcome(raft.configuration.voters, raft.configuration.outgoing, raft.votes)
    if outcome is Outcome.LOST:
        raft.become_follower(raft.term, 0)
    elif outcome is Outcome.WON:
        if raft.role is Role.PRE_CANDIDATE:
            become_candidate(raft)
        else:
            leader.become_leader(raft)


def step_vote_reply(raft: "Raft", message: VoteReply) -> None:
    """Count an answer to the campaign that is under way; an answer to the other kind of campaign is stale."""
    if _learn_commit(raft, message) and not can_campaign(raft):
        # What is committed changes the configuration in which this campaign was begun.
        raft.become_follower(raft.term, 0)
        return
    if message.pre is not (raft.role is Role.PRE_CANDIDATE):
        return
    if message.pre and message.granted and message.term != raft.term + 1:
        return
    record_vote(raft, message.source, granted=message.granted)


def step_request_vote(raft: "Raft", message: RequestVote) -> None:
    """Answer a candidate, whatever the own role is, learner or not (Raft 5.2, 5.4.1).

    A learner answers too: it may have been promoted by a change that it has not applied yet.
    """
    free = raft.voted_for == message.source or (raft.voted_for == 0 and raft.leader == 0)
    if message.pre and message.term > raft.term:
        free = True
    granted = free and raft.log.is_up_to_date(message.last_log_index, message.last_log_term)
    _learn_commit(raft, message)
    commit = raft.log.commit
    # A refusal from an older term than the asking candidate's own would be dropped as stale, and with it the
    # commit index that may set the candidate free.
    refusal_term = max(raft.term, message.term - 1) if message.pre else raft.term
    raft.messages_after_persist.append(
        VoteReply(
            raft.id,
            message.source,
            message.term if granted else refusal_term,
            granted=granted,
            pre=message.pre,
            commit=commit,
            commit_term=raft.log.term(commit),
        )
    )
    if granted and not message.pre:
        raft.voted_for = message.source
        raft.reset_election_timer()


def _learn_commit(raft: "Raft", message: RequestVote | VoteReply) -> bool:
    """Take over the other's commit index if the log has that very entry; whether that was news.

    A leader may demote itself and vanish before its peers hear that the change is committed. Their old
    configuration then needs the vote of a node whose log is longer than theirs; this sets them free.
    """
    log = raft.log
    if raft.role is Role.LEADER or message.commit <= log.commit:
        return False
    return log.matches(message.commit, message.commit_term) and log.commit_to(message.commit)


def step_leader_message(raft: "Raft", message: AppendEntries | Heartbeat | InstallSnapshot) -> None:
    """Somebody leads this term: concede and follow (Raft 5.2)."""
    raft.become_follower(raft.term, message.source)
    follower.STEPS[message.__class__](raft, message)
