"""Handing over the lead, and reads without the log (Raft 8; dissertation 3.10, 6.4)."""

import pytest

from cluster.raft.ready import ReadState, Role
from cluster.raft.rpc import HeartbeatReply, ReadIndex, TimeoutNow
from tests.raft.network import ELECTION_TICKS, Network
from tests.raft.test_membership import REMOVE


def test_lead_goes_to_a_member_that_is_up_to_date() -> None:
    """Dissertation 3.10: the target campaigns at once, and wins although all still hear the old leader."""
    group = Network(3)
    leader = group.elect(1)
    assert leader.raft.transfer_leader(2)
    group.settle()
    assert group.leaders == [2] and leader.raft.leader == 2


def test_target_is_brought_up_to_date_first() -> None:
    """Dissertation 3.10: the prior leader sends TimeoutNow only when the target's log matches its own."""
    group = Network(3)
    leader = group.elect(1)
    group.isolate(3)
    leader.propose(b"x")
    group.settle()
    group.heal()
    leader.raft.transfer_leader(3)
    leader.pump()
    assert not [message for message in leader.outbox if isinstance(message, TimeoutNow)]
    group.tick(3)
    assert group.leaders == [3]


def test_target_that_needs_the_saved_state_gets_it_first() -> None:
    """A target behind the snapshot takes it, catches up, and leads."""
    group = Network(3)
    leader = group.elect(1)
    group.isolate(3)
    leader.propose(b"x")
    group.settle()
    leader.save()
    leader.raft.peer_lost(3)
    group.heal()
    leader.raft.transfer_leader(3)
    group.tick(3)
    assert group.leaders == [3]


def test_nothing_is_proposed_while_handing_over() -> None:
    """Dissertation 3.10: the prior leader stops accepting; after an election timeout it goes on leading."""
    group = Network(3)
    leader = group.elect(1)
    group.isolate(2)
    leader.raft.transfer_leader(2)
    assert leader.propose(b"x") is None and leader.change((REMOVE, 3)) is None
    group.tick(ELECTION_TICKS)
    assert leader.raft.is_leader and leader.propose(b"x") is not None


@pytest.mark.parametrize("target", [1, 4, 9])
def test_lead_goes_to_other_voters_only(target: int) -> None:
    """Not to oneself, a learner or a stranger."""
    group = Network(3, [4])
    assert not group.elect(1).raft.transfer_leader(target)
    assert not group[2].raft.transfer_leader(3)


def test_second_target_replaces_the_first() -> None:
    """A newer wish wins over one under way."""
    group = Network(3)
    leader = group.elect(1)
    group.isolate(2)
    leader.raft.transfer_leader(2)
    leader.raft.transfer_leader(3)
    group.settle()
    assert group.leaders == [3]


def test_hand_over_ends_with_its_target() -> None:
    """A target that is removed, or whose process ends, is waited for no longer."""
    group = Network(3)
    leader = group.elect(1)
    leader.change((REMOVE, 2))
    group.isolate(2)
    leader.raft.transfer_leader(2)
    group.settle()
    assert leader.raft.transferee == 0
    leader.raft.transfer_leader(3)
    leader.raft.peer_lost(3)
    assert leader.raft.transferee == 0


def test_read_is_answered_on_leader_follower_and_learner() -> None:
    """Dissertation 6.4: a round of heartbeats proves the leader current; a follower asks it."""
    group = Network(3, [4])
    group.elect(1)
    group[1].propose(b"x")
    group.settle()
    for node in (1, 2, 4):
        assert group[node].raft.read_index(node * 10)
        group.settle()
        assert group[node].reads == [ReadState(node * 10, 2)]


def test_read_waits_for_the_first_commit_of_the_term() -> None:
    """Dissertation 6.4: until an entry of its term is committed a leader does not know what is."""
    group = Network(3)
    group.elect(1)
    group[1].propose(b"x")
    group.settle()
    for node in (2, 3):
        group[node].raft.peer_lost(1)
    group.isolate(1)
    for _ in range(30):
        group.pump()
        group.persist()
        if group[2].raft.is_leader:
            break
        group.deliver()
    group[2].raft.read_index(1)
    group[2].raft.step(HeartbeatReply(3, 2, 2, 1))
    group[2].pump()
    assert group[2].raft.is_leader and group[2].reads == []
    group.settle()
    assert group[2].reads == [ReadState(1, 3)]


def test_deposed_leader_answers_no_read() -> None:
    """A leader without a majority never confirms, whoever asked before with the same token."""
    group = Network(3)
    leader = group.elect(1)
    leader.raft.read_index(7)
    group.settle()
    assert leader.reads == [ReadState(7, 1)]
    group.isolate(1)
    leader.raft.read_index(7)
    group.tick(3)
    leader.raft.step(HeartbeatReply(2, 1, 1, 1))  # the answer to the first round, once more
    group.settle()
    assert leader.reads == [ReadState(7, 1)]
    group.tick(2 * ELECTION_TICKS, 1)
    assert leader.raft.role is not Role.LEADER


def test_later_read_begins_its_own_round() -> None:
    """A round answers only what had arrived when it began, and its index is taken after the last of them."""
    group = Network(3)
    leader = group.elect(1)
    leader.raft.read_index(1)
    leader.pump()
    leader.raft.read_index(2)
    leader.pump()
    leader.raft.step(HeartbeatReply(2, 1, 1, 1))
    leader.pump()
    assert leader.reads == [ReadState(1, 1)]
    leader.raft.step(HeartbeatReply(3, 1, 1, 2))
    leader.pump()
    assert leader.reads == [ReadState(1, 1), ReadState(2, 1)]


def test_learners_do_not_confirm_reads() -> None:
    """Only voters prove that a leader leads."""
    group = Network(3, [4])
    leader = group.elect(1)
    group.isolate(1, 4)
    leader.raft.read_index(1)
    group.settle()
    assert leader.reads == []


def test_single_voter_reads_at_once() -> None:
    """A group of one needs nobody's word."""
    group = Network(1)
    leader = group.elect(1)
    leader.raft.read_index(1)
    leader.pump()
    assert leader.reads == [ReadState(1, 1)]


def test_reads_are_bounded_and_need_a_leader() -> None:
    """Without a leader, or with too many waiting, a read is refused; a forwarded one is dropped and asked again."""
    group = Network(3, reads_max=2)
    assert not group[2].raft.read_index(1)
    leader = group.elect(1)
    assert [leader.raft.read_index(token) for token in (1, 2, 3)] == [True, True, False]
    leader.raft.step(ReadIndex(2, 1, 1, 4))
    group.settle()
    assert [read.token for read in leader.reads] == [1, 2] and group[2].reads == []
