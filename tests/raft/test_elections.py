"""Elections, terms and votes: one test per sentence of the paper or trap.

Raft 5.1, 5.2 and 5.4.1; dissertation 4.2.3, 6.2 and 9.6.
"""

import pytest

from cluster.raft.quorum import Outcome, joint_value, majority_value, vote_outcome
from cluster.raft.ready import Role
from cluster.raft.rpc import AppendEntries, AppendReply, Heartbeat, RequestVote, VoteReply
from cluster.types import Entry, EntryKind
from tests.raft.network import ELECTION_TICKS, Member, Network


def entry(index: int, term: int, data: bytes = b"x") -> Entry:
    """An entry of a batch."""
    return Entry(index, term, EntryKind.BATCH, 0, data)


def append(
    term: int, previous: tuple[int, int], *entries: Entry, commit: int = 0, source: int = 2
) -> AppendEntries:
    """An append to member 1 after (index, term)."""
    return AppendEntries(source, 1, term, previous[0], previous[1], commit, entries)


def with_log(member: Member, *terms: int) -> None:
    """Give a member entries of these terms, durably, as from a leader of the last of them."""
    before = 0
    for index, term in enumerate(terms, 1):
        member.raft.step(append(term, (index - 1, before), entry(index, term)))
        before = term
    member.pump()
    member.persist()
    member.outbox.clear()
    member.raft.become_follower(member.raft.term, 0)


def role(member: Member) -> Role:
    """The member's role just now."""
    return member.raft.role


def answers(member: Member) -> list[object]:
    """All that the member sends once everything is durable."""
    member.pump()
    member.persist()
    sent, member.outbox = member.outbox, []
    return list(sent)


def test_member_starts_as_follower() -> None:
    """Raft 5.2: when servers start up, they begin as followers."""
    assert Network(3)[1].raft.role is Role.FOLLOWER


@pytest.mark.parametrize("before", list(Role))
def test_higher_term_makes_a_follower(before: Role) -> None:
    """Raft 5.1: if a server's current term is smaller than another's, it updates it and becomes a follower."""
    group = Network(3)
    raft = group[1].raft
    if before is Role.LEADER:
        group.elect(1)
    elif before is not Role.FOLLOWER:
        raft.campaign()
        if before is Role.CANDIDATE:
            raft.step(VoteReply(2, 1, 1, granted=True, pre=True))
    assert raft.role is before
    raft.step(AppendReply(3, 1, 9, 0, rejected=True))
    assert (raft.role, raft.term, raft.leader, raft.voted_for) == (Role.FOLLOWER, 9, 0, 0)


def test_stale_term_has_no_effect() -> None:
    """Raft 5.1: a request with a stale term number is rejected."""
    member = Network(3)[1]
    with_log(member, 3)
    member.raft.step(append(2, (0, 0), entry(1, 2)))
    assert member.log == [(1, 3)]
    assert answers(member) == [AppendReply(1, 2, 3, 0, rejected=True)]


def test_silence_starts_a_pre_vote_then_an_election() -> None:
    """Raft 5.2: a follower that hears nothing over the election timeout begins an election, in a new term."""
    group = Network(3)
    group.tick(ELECTION_TICKS, 1)
    assert group.leaders == [1] and group[1].raft.term == 1


def test_pre_vote_changes_nothing_at_either_side() -> None:
    """Dissertation 9.6: a pre-vote neither raises a term, nor records a vote, nor resets a timer."""
    group = Network(3)
    group[2].raft.tick()
    group[1].raft.campaign()
    group.pump()
    group.persist(1)
    group.deliver()
    group.pump()
    for node in (1, 2):
        assert (group[node].raft.term, group[node].raft.voted_for) == (0, 0)
    assert group[2].raft.election_elapsed == 1


def test_requests_and_own_vote_wait_for_the_disk() -> None:
    """A request rests on term, vote and log: it waits until they are durable, and so does the own vote."""
    member = Network(1)[1]
    member.raft.campaign()
    member.pump()
    assert role(member) is Role.CANDIDATE
    member.persist()
    assert role(member) is Role.LEADER
    member = Network(3)[1]
    member.raft.step(append(1, (0, 0), entry(1, 1)))
    member.raft.become_follower(1, 0)
    member.raft.campaign()
    member.pump()
    assert not member.outbox
    assert {type(message) for message in answers(member)} == {AppendReply, RequestVote}


@pytest.mark.parametrize(
    ("votes", "outcome"),
    [
        ({1: True}, Outcome.PENDING),
        ({1: True, 2: True}, Outcome.PENDING),
        ({1: True, 2: True, 3: True}, Outcome.WON),
        ({1: True, 2: False, 3: False}, Outcome.PENDING),
        ({1: True, 2: False, 3: False, 4: False}, Outcome.LOST),
        ({1: True, 6: True, 7: True}, Outcome.PENDING),
    ],
)
def test_majority_of_five_decides(votes: dict[int, bool], outcome: Outcome) -> None:
    """Raft 5.2: a candidate wins with votes from a majority; who is no voter does not count."""
    assert vote_outcome((1, 2, 3, 4, 5), (), votes) is outcome


def test_joint_majorities_must_both_agree() -> None:
    """Raft 6: elections and commitment need separate majorities of the old and the new configuration."""
    assert vote_outcome((1, 2, 3), (3, 4, 5), {1: True, 2: True, 3: True}) is Outcome.PENDING
    assert vote_outcome((1, 2, 3), (3, 4, 5), {1: True, 2: True, 4: False, 5: False}) is Outcome.LOST
    assert vote_outcome((1, 2, 3), (3, 4, 5), {1: True, 3: True, 4: True}) is Outcome.WON
    assert joint_value((1, 2, 3), (3, 4, 5), {1: 9, 2: 9, 3: 9, 4: 4}) == 4
    assert [majority_value(tuple(range(n)), dict(enumerate(range(n)))) for n in (1, 2, 3, 4, 5)] == [
        0,
        0,
        1,
        1,
        2,
    ]


def test_one_vote_per_term() -> None:
    """Raft 5.2: each server votes for at most one candidate in a term, first come first served."""
    member = Network(3)[1]
    for source in (2, 3, 2):
        member.raft.step(RequestVote(source, 1, 1, 0, 0))
    assert [reply.granted for reply in answers(member) if isinstance(reply, VoteReply)] == [True, False, True]


def test_vote_survives_a_restart_and_a_step_down() -> None:
    """Raft 5.2, figure 2: votedFor is persistent, and stepping down within the term does not free it."""
    member = Network(3)[1]
    member.raft.step(RequestVote(2, 1, 1, 0, 0))
    answers(member)
    member.restart()
    member.raft.step(RequestVote(3, 1, 1, 0, 0))
    member.raft.become_follower(1, 0)
    member.raft.step(RequestVote(3, 1, 1, 0, 0))
    assert [reply.granted for reply in answers(member) if isinstance(reply, VoteReply)] == [False, False]


@pytest.mark.parametrize(
    ("last_index", "last_term", "granted"),
    [(1, 2, False), (2, 2, True), (3, 2, True), (1, 3, True), (9, 1, False)],
)
def test_vote_needs_a_log_that_is_up_to_date(last_index: int, last_term: int, granted: bool) -> None:
    """Raft 5.4.1: the later last term wins; with equal terms the longer log does."""
    member = Network(3)[1]
    with_log(member, 1, 2)
    member.raft.step(RequestVote(3, 1, 5, last_index, last_term))
    reply = answers(member)[0]
    assert isinstance(reply, VoteReply) and reply.granted is granted


def test_candidate_concedes_to_a_leader_of_its_term() -> None:
    """Raft 5.2: an append of at least its term makes a candidate a follower, and it adopts the log."""
    group = Network(3)
    raft = group[1].raft
    raft.campaign()
    raft.step(VoteReply(2, 1, 1, granted=True, pre=True))
    assert raft.role is Role.CANDIDATE
    raft.step(append(1, (0, 0), entry(1, 1)))
    assert (raft.role, raft.leader, raft.last_index) == (Role.FOLLOWER, 2, 1)


def test_stale_answers_of_a_pre_vote_are_no_votes() -> None:
    """What was granted in the pre-vote, by oneself or others, does not count in the election."""
    raft = Network(3)[1].raft
    raft.campaign()
    for _ in range(2):
        raft.step(VoteReply(2, 1, 1, granted=True, pre=True))
    assert raft.role is Role.CANDIDATE and raft.votes == {}


def test_late_own_vote_is_ignored_after_a_lost_election() -> None:
    """A self-vote that becomes durable after stepping down elects nobody."""
    member = Network(3)[1]
    member.raft.campaign()
    member.raft.step(VoteReply(2, 1, 1, granted=True, pre=True))
    member.pump()
    member.raft.step(Heartbeat(3, 1, 1, 0))
    member.persist()
    assert member.raft.role is Role.FOLLOWER


def test_split_vote_is_decided_later() -> None:
    """Raft 5.2: after a tie the candidates time out and try again."""
    group = Network(2)
    for node in (1, 2):
        group[node].raft.campaign()
    group.settle()
    assert group.leaders == []
    group[2].raft.draw = lambda low, high: high
    group[2].raft.reset_election_timer()
    group.tick(2 * ELECTION_TICKS)
    assert group.leaders == [1]


def test_uncommitted_tail_of_a_higher_term_is_overwritten() -> None:
    """Raft 5.3: the leader forces the followers' logs to duplicate its own."""
    group = Network(3)
    with_log(group[1], 1, 1, 3)
    with_log(group[2], 1, 1, 2, 2)
    with_log(group[3], 1, 1, 2)
    group.elect(1)
    assert group[1].log == group[2].log == group[3].log == [(1, 1), (2, 1), (3, 3), (4, 4)]


def test_member_that_hears_its_leader_refuses_votes() -> None:
    """Dissertation 4.2.3: a request within an election timeout of hearing a leader is ignored, its term too."""
    group = Network(3)
    group.elect(1)
    for pre in (True, False):
        group[2].raft.step(RequestVote(3, 2, 9, 99, 9, pre=pre))
    assert group[2].raft.term == 1 and not answers(group[2])


def test_returning_member_does_not_depose_the_leader() -> None:
    """Dissertation 9.6: a partitioned member cannot raise terms, so its return disturbs nobody."""
    group = Network(3)
    group.elect(1)
    group.isolate(3)
    group.tick(5 * ELECTION_TICKS)
    assert group[3].raft.role is Role.PRE_CANDIDATE and group[3].raft.term == 1
    group.heal()
    group.tick(5)
    assert group.leaders == [1] and group[1].raft.term == 1 and group[3].raft.leader == 1


def test_member_of_a_higher_term_is_set_free() -> None:
    """A member whose term ran ahead answers its leader's heartbeat, so that both come to one term again."""
    group = Network(3)
    group.elect(1)
    group[3].raft.become_follower(7, 0)
    group.tick(4 * ELECTION_TICKS)
    assert len(group.leaders) == 1 and {group[node].raft.term for node in (1, 2, 3)} == {group[1].raft.term}
    assert group[1].raft.term > 7


def test_member_of_an_older_term_can_win() -> None:
    """A candidate with an older term learns the newer one from a refused pre-vote, and wins in the next round."""
    group = Network(3)
    group[2].raft.become_follower(5, 0)
    group[1].raft.campaign()
    group.isolate(3)
    group.settle()
    assert group[1].raft.term == 5
    group.elect(1)
    assert group[1].raft.term == 6


def test_leader_without_a_quorum_steps_down() -> None:
    """Dissertation 6.2: a leader steps down if an election timeout passes without hearing from a majority."""
    group = Network(3)
    group.elect(1)
    group.tick(3 * ELECTION_TICKS)
    assert group.leaders == [1]
    group.isolate(1)
    group.tick(2 * ELECTION_TICKS, 1)
    assert group[1].raft.role is not Role.LEADER


def test_learners_do_not_keep_a_leader() -> None:
    """Learners are not counted in CheckQuorum."""
    group = Network(3, [4, 5])
    group.elect(1)
    group.isolate(1, 4, 5)
    group.tick(2 * ELECTION_TICKS, 1)
    assert group[1].raft.role is not Role.LEADER


def test_who_does_not_vote_does_not_campaign_but_answers() -> None:
    """A learner or stranger never campaigns; a learner votes when asked: its promotion may not have reached it."""
    group = Network(2, [3], others=[4])
    for node in (3, 4):
        group[node].raft.campaign()
        group.tick(3 * ELECTION_TICKS, node)
        assert group[node].raft.role is Role.FOLLOWER
    group[3].raft.step(RequestVote(1, 3, 1, 0, 0))
    reply = answers(group[3])[0]
    assert isinstance(reply, VoteReply) and reply.granted


def test_dead_leader_is_replaced_without_waiting_for_the_timeout() -> None:
    """Members told that their leader's process ended elect a new one in a few ticks, in the group's order."""
    for number, winner in ((0, 2), (1, 3)):
        group = Network(3, group=number)
        group.elect(1)
        group[1].crash()
        group[3].raft.peer_lost(1)
        group[2].raft.peer_lost(1)
        group.settle()
        group.tick(2)
        assert group.leaders == [winner]


def test_false_alarm_about_the_leader_deposes_nobody() -> None:
    """Members that still hear the leader refuse; the one that lost sight of it follows it again."""
    group = Network(3)
    group.elect(1)
    group[2].raft.peer_lost(1)
    assert group[2].raft.role is Role.PRE_CANDIDATE
    group.settle()
    group.tick(2)
    assert group.leaders == [1] and group[2].raft.leader == 1 and group[1].raft.term == 1


def test_candidate_learns_from_a_refusal_what_is_committed() -> None:
    """A voter that removed itself and vanished from the majority tells a stuck candidate the commit index."""
    member = Network(2)[1]
    with_log(member, 1, 1)
    member.raft.campaign()
    member.raft.step(VoteReply(2, 1, 1, granted=False, pre=True, commit=2, commit_term=1))
    assert member.raft.commit == 2
    member.raft.campaign()
    member.raft.step(VoteReply(2, 1, 1, granted=False, pre=True, commit=3, commit_term=1))
    assert member.raft.commit == 2
