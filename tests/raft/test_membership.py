"""Membership changes and snapshots: one test per sentence of the paper or trap (Raft 6, 7)."""

import pytest

from cluster.raft.membership import (
    LEAVE_JOINT,
    MembershipChange,
    MembershipRefused,
    Operation,
    changed,
    decode_change,
    encode_change,
)
from cluster.raft.progress import Flow
from cluster.raft.ready import Role
from cluster.raft.rpc import AppendReply, HeartbeatReply, InstallSnapshot, TimeoutNow
from cluster.types import Configuration, EntryKind, SnapshotMeta
from tests.raft.disk import Saved
from tests.raft.network import ELECTION_TICKS, Member, Network
from tests.raft.test_elections import answers, append, entry, role, with_log

VOTER, LEARNER, REMOVE = Operation.ADD_VOTER, Operation.ADD_LEARNER, Operation.REMOVE


@pytest.mark.parametrize(
    ("operations", "after"),
    [
        (((VOTER, 4),), Configuration((1, 2, 3, 4))),
        (((LEARNER, 4),), Configuration((1, 2, 3), (4,))),
        (((REMOVE, 3),), Configuration((1, 2))),
        (((LEARNER, 3),), Configuration((1, 2), (3,))),
        (((REMOVE, 9),), Configuration((1, 2, 3))),
        (((VOTER, 4), (REMOVE, 1)), Configuration((2, 3, 4), (), (1, 2, 3), (), True)),
        (((VOTER, 4), (LEARNER, 1)), Configuration((2, 3, 4), (), (1, 2, 3), (1,), True)),
        (((VOTER, 4), (VOTER, 5), (LEARNER, 6)), Configuration((1, 2, 3, 4, 5), (6,), (1, 2, 3), (), True)),
    ],
)
def test_change_takes_one_step_or_goes_through_a_joint_configuration(
    operations: tuple[tuple[Operation, int], ...], after: Configuration
) -> None:
    """Raft 6: more than one voter at once changes through joint consensus; a node never votes and learns at once."""
    change = MembershipChange(operations)
    assert changed(Configuration((1, 2, 3)), decode_change(encode_change(change))) == after


def test_joint_configuration_is_left_by_its_own_entry() -> None:
    """Raft 6: the second entry drops the old voters; those to be demoted become learners only then."""
    joint = Configuration((2, 3, 4), (), (1, 2, 3), (1,), True)
    assert changed(joint, LEAVE_JOINT) == Configuration((2, 3, 4), (1,))
    for configuration, change in (
        (joint, MembershipChange(((VOTER, 5),))),
        (Configuration((1, 2, 3)), LEAVE_JOINT),
        (Configuration((1,)), MembershipChange(((REMOVE, 1),))),
    ):
        with pytest.raises(MembershipRefused):
            changed(configuration, change)


def test_only_one_change_is_under_way() -> None:
    """A change is refused until the one before it is applied, not merely committed."""
    group = Network(3, others=[4])
    leader = group.elect(1)
    leader.is_applying = False
    assert leader.change((LEARNER, 4)) is not None
    group.settle()
    assert leader.raft.commit == 2 and leader.change((VOTER, 4)) is None
    leader.is_applying = True
    leader.apply()
    assert leader.change((VOTER, 4)) is not None


def test_new_leader_waits_for_all_of_the_old_log() -> None:
    """A new leader may have an older leader's change in its log, so it accepts none before it has applied it all."""
    member = Network(1)[1]
    member.raft.step(append(1, (0, 0), entry(1, 1)))
    member.raft.become_follower(1, 0)
    member.raft.campaign()
    member.pump()
    member.persist()
    assert member.raft.is_leader and member.change((LEARNER, 2)) is None
    member.pump()
    member.persist()
    member.pump()
    assert member.change((LEARNER, 2)) is not None


def test_unapplied_change_forbids_to_campaign() -> None:
    """Who knows of a committed change and has not applied it does not campaign, not even when the leader asks."""
    group = Network(3)
    leader = group.elect(1)
    group[2].is_applying = False
    leader.change((LEARNER, 4))
    group.settle()
    group[2].raft.step(TimeoutNow(1, 2, 1))
    assert role(group[2]) is Role.FOLLOWER
    group[2].apply()
    group[2].raft.step(TimeoutNow(1, 2, 1))
    assert role(group[2]) is Role.CANDIDATE


def test_learner_is_added_catches_up_and_is_promoted() -> None:
    """Dissertation 4.2.1: a new server joins as a non-voting member and votes only when it has caught up."""
    group = Network(3, others=[4])
    leader = group.elect(1)
    leader.propose(b"x")
    leader.change((LEARNER, 4))
    group.settle()
    assert group[4].data == [b"x"] and group[4].raft.configuration.learners == (4,)
    leader.change((VOTER, 4))
    group.settle()
    assert group[4].raft.configuration == Configuration((1, 2, 3, 4))
    group.is_cut = lambda message: message.source in (3, 4)
    index = leader.propose(b"y")
    group.settle()
    assert index is not None and leader.raft.commit < index


def test_removal_commits_what_waited_for_the_removed() -> None:
    """Quorum and peers change at the same moment: with two voters left their majority decides at once."""
    group = Network(4)
    leader = group.elect(1)
    group.is_cut = lambda message: message.source == 3
    leader.change((REMOVE, 4))
    group.settle()
    group.is_cut = lambda message: message.source in (3, 4)
    leader.propose(b"x")
    group.settle()
    assert leader.data == [b"x"]


def test_joint_change_replaces_the_leader_and_ends_by_itself() -> None:
    """Raft 6: a leader that is not in the new configuration steps down once that is committed; others go on."""
    group = Network(3, others=[4])
    leader = group.elect(1)
    leader.change((VOTER, 4), (REMOVE, 1))
    group.settle()
    assert not leader.raft.is_leader
    assert leader.raft.configuration == Configuration((2, 3, 4))
    group.tick(3 * ELECTION_TICKS)
    assert len(group.leaders) == 1 and group.leaders != [1]
    assert group[group.leaders[0]].propose(b"x") is not None
    group.settle()
    assert [group[node].data for node in (2, 3, 4)] == [[b"x"]] * 3


def test_removed_leader_does_not_count_itself() -> None:
    """Raft 6: while it manages a group that it is not in, a leader does not count itself in majorities."""
    group = Network(2, others=[3, 4])
    leader = group.elect(1)
    leader.change((VOTER, 3), (VOTER, 4), (REMOVE, 1))
    group.is_cut = lambda message: message.source in (3, 4)
    group.settle()
    assert leader.raft.configuration.outgoing == (1, 2)
    index = leader.propose(b"x")
    group.settle()
    assert index is not None and leader.raft.commit < index


def test_votes_and_answers_of_the_removed_count_nothing() -> None:
    """A removed member's acknowledgements reach nothing, and it cannot depose the leader."""
    group = Network(3)
    leader = group.elect(1)
    leader.change((REMOVE, 3))
    group.settle()
    group.tick(5 * ELECTION_TICKS)
    assert group.leaders == [1] and leader.raft.term == 1
    group.is_cut = lambda message: message.source == 2
    index = leader.propose(b"x")
    leader.raft.step(AppendReply(3, 1, 1, index or 0))
    leader.persist()
    assert leader.raft.commit == 2


def test_truncated_change_never_was_in_force() -> None:
    """A change that was not committed leaves no trace when another leader overwrites it."""
    group = Network(3)
    group.elect(1)
    group.isolate(1)
    group[1].change((REMOVE, 3))
    group.settle()
    for node in (2, 3):
        group[node].raft.peer_lost(1)
    group.settle()
    group.tick(3, 2, 3)
    group.heal()
    group.tick(3)
    assert [member.raft.configuration.voters for member in group.members.values()] == [(1, 2, 3)] * 3


def test_restart_finds_the_configuration_of_the_snapshot_and_applies_the_rest() -> None:
    """Raft 7: a snapshot includes the latest configuration as of its last entry."""
    group = Network(3)
    leader = group.elect(1)
    leader.change((LEARNER, 4))
    group.settle()
    leader.save()
    leader.persist()
    leader.change((LEARNER, 5))
    group.settle()
    leader.restart()
    assert leader.raft.configuration == Configuration((1, 2, 3), (4,))
    group.tick(3 * ELECTION_TICKS)
    assert leader.raft.configuration == Configuration((1, 2, 3), (4, 5))


# Snapshots -----------------------------------------------------------------------------------------


def lagging(*, ships: bool = True) -> tuple[Network, Member]:
    """A group whose member 3 lacks what the leader has compacted."""
    group = Network(3)
    group.ships = ships
    leader = group.elect(1)
    group.isolate(3)
    for data in (b"a", b"b", b"c"):
        leader.propose(data)
    group.settle()
    leader.save()
    group.settle()
    leader.raft.peer_lost(3)
    group.heal()
    return group, leader


def test_lagging_member_gets_the_saved_state() -> None:
    """Raft 7: the leader sends its snapshot when it has discarded the next entry that a follower needs."""
    group, leader = lagging()
    group.tick(2)
    assert group[3].raft.log.first_index == leader.raft.log.first_index == 5
    assert group[3].state == leader.state and leader.raft.progress[3].flow is Flow.REPLICATE
    leader.propose(b"d")
    group.settle()
    assert group[3].data == [b"d"]


def test_snapshot_is_asked_for_once_and_nothing_is_sent_meanwhile() -> None:
    """In SNAPSHOT the peer gets heartbeats only; it goes on after the report, whether good or bad."""
    group, leader = lagging(ships=False)
    group.tick(3)
    assert leader.wanted == [3] and leader.raft.progress[3].flow is Flow.SNAPSHOT
    leader.raft.report_snapshot(3, ok=False)
    assert (leader.raft.progress[3].flow, leader.raft.progress[3].is_paused) == (Flow.PROBE, True)
    group.tick(1)
    assert leader.wanted == [3, 3]
    leader.raft.report_snapshot(3, ok=True)
    assert leader.raft.progress[3].next_index == 5


def test_snapshot_is_not_wanted_for_a_silent_peer() -> None:
    """A peer that does not answer is not sent a state it cannot take."""
    group, leader = lagging(ships=False)
    group.isolate(3)
    group.tick(5)
    assert leader.wanted == []
    leader.raft.step(HeartbeatReply(3, 1, 1))
    group.settle()
    assert leader.wanted == [3]


def test_any_snapshot_that_joins_the_logs_is_good_enough() -> None:
    """An older or newer snapshot than the one asked for resumes replication if the logs meet."""
    group, leader = lagging(ships=False)
    group.tick(2)
    leader.raft.step(AppendReply(3, 1, 1, 4))
    assert leader.raft.progress[3].flow is Flow.REPLICATE


def test_snapshot_below_the_commit_index_is_ignored() -> None:
    """Raft 7: a follower that has the snapshot's last entry keeps its log; an older snapshot changes nothing."""
    group = Network(3)
    leader = group.elect(1)
    leader.propose(b"x")
    group.settle()
    before = group[2].log
    group[2].raft.step(InstallSnapshot(1, 2, 1, SnapshotMeta(1, 1, 0, Configuration((1,)), 0)))
    assert group[2].log == before and group[2].raft.configuration == group.configuration
    assert answers(group[2]) == [AppendReply(2, 1, 1, 2)]


def test_snapshot_that_the_log_contains_only_commits() -> None:
    """Raft 7: if the log has an entry with the snapshot's last index and term, what follows it is retained."""
    member = Network(3)[1]
    with_log(member, 1, 1, 1)
    member.raft.step(InstallSnapshot(2, 1, 1, SnapshotMeta(2, 1, 0, Configuration((1, 2, 3)), 0)))
    assert member.raft.commit == 2 and member.log == [(1, 1), (2, 1), (3, 1)]


def test_snapshot_replaces_the_log_and_is_answered_when_durable() -> None:
    """Raft 7: otherwise the whole log is discarded; state, log and configuration change in one write."""
    member = Network(3)[1]
    with_log(member, 1, 1)
    meta = SnapshotMeta(9, 2, 7, Configuration((1, 2, 3), (4,)), 0)
    member.staged[9, 2] = Saved(meta, 42)
    member.raft.step(InstallSnapshot(2, 1, 3, meta))
    member.raft.step(append(3, (9, 2), entry(10, 3)))
    member.raft.campaign()
    assert member.raft.role is Role.FOLLOWER  # not before the state is here
    ready = member.take_ready()
    assert (ready.snapshot, ready.truncate_from, [e.index for e in ready.entries]) == (meta, None, [10])
    assert ready.hard_state is not None and ready.hard_state.commit == 9
    assert member.outbox == [] and member.raft.log.persisted < 9
    member.persist()
    assert member.outbox == [AppendReply(1, 2, 3, 10)]
    assert (member.raft.applied, member.raft.configuration.learners, member.log) == (9, (4,), [(10, 3)])
    member.raft.step(append(3, (10, 3), commit=10))
    member.pump()
    assert member.state_index == 10 and member.applied[-1].kind == EntryKind.BATCH
