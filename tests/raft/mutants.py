"""Planted bugs, each a mistake that real Raft cores had: the simulation has to notice every one of them.

Each mutant is a function that breaks the core through `patch`; a test then looks for a seed that tells.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from cluster.raft import candidate, core, follower, leader
from cluster.raft.log import RaftLog
from cluster.raft.quorum import joint_value, majority_value
from cluster.raft.reads import ReadRounds
from cluster.raft.ready import Role
from cluster.raft.rpc import AppendEntries, AppendReply, InstallSnapshot, RequestVote

Patch = pytest.MonkeyPatch
Mutant = Callable[[Patch], None]


def _after(patch: Patch, owner: Any, name: str, change: Callable[..., None]) -> None:
    """Run `change` with the same arguments after the original function."""
    original = getattr(owner, name)

    def mutated(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        change(*args)
        return result

    patch.setattr(owner, name, mutated)


def append_is_acknowledged_before_it_is_durable(patch: Patch) -> None:
    def accept(raft: Any, index: int) -> None:
        raft.messages.append(AppendReply(raft.id, raft.leader, raft.term, index))

    patch.setattr(follower, "_accept", accept)


def vote_leaves_before_it_is_durable(patch: Patch) -> None:
    def hurry(raft: Any, message: Any) -> None:
        raft.messages.append(raft.messages_after_persist.pop())

    _after(patch, candidate, "step_request_vote", hurry)
    for steps in core.STEPS.values():
        patch.setitem(steps, RequestVote, candidate.step_request_vote)


def vote_is_forgotten_at_restart(patch: Patch) -> None:
    _after(patch, core.Raft, "__init__", lambda raft, *_: setattr(raft, "voted_for", 0))


def entry_of_an_older_term_is_committed_by_counting(patch: Patch) -> None:
    def elected(raft: Any) -> None:
        raft.leadership.term_start = 0

    _after(patch, leader, "become_leader", elected)


def leader_counts_itself_before_its_write_is_durable(patch: Patch) -> None:
    def commit(raft: Any) -> None:
        matches = {progress.id: progress.match_index for progress in raft.leadership.peers}
        matches[raft.id] = raft.log.last_index
        index = majority_value(raft.configuration.voters, matches)
        if index >= raft.leadership.term_start and raft.log.commit_to(index):
            raft.leadership.wants_broadcast = True

    patch.setattr(leader, "maybe_commit", commit)


def learners_are_counted(patch: Patch) -> None:
    original = joint_value

    def everybody(voters: Any, outgoing: Any, values: Any) -> int:
        return original(tuple(sorted(values)), outgoing, values)

    patch.setattr(leader, "joint_value", everybody)


def old_majority_is_not_asked_in_a_joint_change(patch: Patch) -> None:
    patch.setattr(leader, "joint_value", lambda voters, outgoing, values: majority_value(voters, values))


def truncation_does_not_lower_persisted(patch: Patch) -> None:
    original = RaftLog._truncate

    def truncate(log: Any, index: int) -> None:
        before = log.persisted
        original(log, index)
        log.persisted = before

    patch.setattr(RaftLog, "_truncate", truncate)


def late_write_vouches_for_overwritten_entries(patch: Patch) -> None:
    original = RaftLog._truncate

    def truncate(log: Any, index: int) -> None:
        before = deque(log._writes)
        original(log, index)
        log._writes = before

    patch.setattr(RaftLog, "_truncate", truncate)


def follower_commits_what_the_leader_did_not_send(patch: Patch) -> None:
    def commit(raft: Any, message: Any) -> None:
        raft.log.commit_to(min(message.leader_commit, raft.log.last_index))

    _after(patch, follower, "step_append", commit)
    for role in core.STEPS.values():
        if AppendEntries in role:
            patch.setitem(role, AppendEntries, _followed(follower.step_append, role))


def _followed(step: Callable[..., None], role: Any) -> Callable[..., None]:
    if role is core.STEPS[Role.FOLLOWER]:
        return step

    def conceded(raft: Any, message: Any) -> None:
        raft.become_follower(raft.term, message.source)
        step(raft, message)

    return conceded


def late_append_truncates_what_matches(patch: Patch) -> None:
    def without_known(log: Any, entries: Any) -> Any:
        if entries and entries[0].index <= log.last_index:
            log._truncate(entries[0].index)
        return entries

    patch.setattr(RaftLog, "_without_known", without_known)


def reads_are_answered_before_the_terms_first_commit(patch: Patch) -> None:
    def begin(raft: Any) -> None:
        lead = raft.leadership
        if lead.reads.waiting:
            lead.reads.begin(raft.log.commit)
            leader._send_heartbeats(raft, lead)
            leader._answer_reads(raft, lead)

    _after(patch, leader, "broadcast", begin)


def reads_are_answered_without_asking_anybody(patch: Patch) -> None:
    original = ReadRounds.take_confirmed

    def take(reads: Any, configuration: Any, leading: int) -> Any:
        reads._acks = dict.fromkeys(range(1, 10), reads.number)
        return original(reads, configuration, leading)

    patch.setattr(ReadRounds, "take_confirmed", take)


def several_changes_are_under_way(patch: Patch) -> None:
    original = leader.propose_membership

    def propose(raft: Any, change: Any) -> Any:
        if raft.leadership is not None:
            raft.leadership.pending_change = 0
        return original(raft, change)

    patch.setattr(leader, "propose_membership", propose)


def snapshot_brings_no_configuration(patch: Patch) -> None:
    original = follower.step_snapshot

    def step(raft: Any, message: Any) -> None:
        before = raft.configuration
        original(raft, message)
        raft.configuration = before

    patch.setitem(follower.STEPS, InstallSnapshot, step)
    patch.setitem(core.STEPS[Role.FOLLOWER], InstallSnapshot, step)


def own_vote_counts_before_it_is_durable(patch: Patch) -> None:
    def count(raft: Any) -> None:
        candidate.record_vote(raft, raft.id, granted=True)

    _after(patch, candidate, "become_candidate", count)


def heartbeat_commits_what_the_member_may_not_have(patch: Patch) -> None:
    def beat(raft: Any, lead: Any) -> None:
        for message in raft.messages[-len(lead.peers) :] if lead.peers else []:
            message.leader_commit = raft.log.commit

    _after(patch, leader, "_send_heartbeats", beat)


def any_log_gets_the_vote(patch: Patch) -> None:
    patch.setattr(RaftLog, "is_up_to_date", lambda log, last_index, last_term: True)


def term_changes_keep_the_old_vote(patch: Patch) -> None:
    original = core.Raft.become_follower

    def become(raft: Any, term: int, leader: int) -> None:
        before = raft.voted_for
        original(raft, term, leader)
        raft.voted_for = before if leader == 0 else 0

    patch.setattr(core.Raft, "become_follower", become)


def vote_is_given_anew_after_stepping_down(patch: Patch) -> None:
    _after(patch, core.Raft, "become_follower", lambda raft, *_: setattr(raft, "voted_for", 0))


def commit_is_left_out_beside_entries(patch: Patch) -> None:
    original = core.Raft._take_hard_state

    def take(raft: Any, *, with_commit: bool) -> Any:
        return original(raft, with_commit=False)

    patch.setattr(core.Raft, "_take_hard_state", take)


MUTANTS: list[tuple[Mutant, int]] = [
    (append_is_acknowledged_before_it_is_durable, 0),
    (vote_leaves_before_it_is_durable, 0),
    (vote_is_forgotten_at_restart, 194),
    (entry_of_an_older_term_is_committed_by_counting, 16),
    (leader_counts_itself_before_its_write_is_durable, 7),
    (learners_are_counted, 1),
    (old_majority_is_not_asked_in_a_joint_change, 75),
    (truncation_does_not_lower_persisted, 2),
    (late_write_vouches_for_overwritten_entries, 2),
    (follower_commits_what_the_leader_did_not_send, 13),
    (late_append_truncates_what_matches, 9),
    (reads_are_answered_before_the_terms_first_commit, 13),
    (reads_are_answered_without_asking_anybody, 40),
    (several_changes_are_under_way, 54),
    (snapshot_brings_no_configuration, 14),
    (own_vote_counts_before_it_is_durable, 3),
    (heartbeat_commits_what_the_member_may_not_have, 3),
    (any_log_gets_the_vote, 10),
    (term_changes_keep_the_old_vote, 2),
    (vote_is_given_anew_after_stepping_down, 10),
    (commit_is_left_out_beside_entries, 66),
]
"""The mutants, each with a seed that told once: tried first, so that the test is quick."""
