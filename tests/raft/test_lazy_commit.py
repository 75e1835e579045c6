"""A member at which nobody waits is told of a commit with the next append, heartbeat or read, not before."""

from tests.raft.network import Network


def group_with_lazy_2() -> Network:
    """Two members, led by 1; nobody waits at 2, and the leader has heard so. No commit without it: it is not spared."""
    group = Network(2)
    leader = group.elect(1)
    group[2].raft.is_lazy = True
    leader.propose(b"first")
    group.settle()
    return group


def test_lazy_member_learns_of_a_commit_with_the_next_append() -> None:
    """It saves an envelope a commit; the member has the entry durably all the same."""
    group = group_with_lazy_2()
    commit = group[1].raft.commit
    assert group[2].raft.commit == commit - 1
    assert group[2].raft.last_index == commit
    group[1].propose(b"second")
    group.settle()
    assert group[2].raft.commit == commit


def test_lazy_member_learns_of_a_commit_with_the_next_heartbeat() -> None:
    """Without traffic it is current a heartbeat later."""
    group = group_with_lazy_2()
    group.tick(4)
    assert group[2].raft.commit == group[1].raft.commit


def test_member_that_waits_again_is_told_at_once() -> None:
    """Its next reply says that someone waits there."""
    group = group_with_lazy_2()
    group[2].raft.is_lazy = False
    group[1].propose(b"second")
    group.settle()
    assert group[2].raft.commit == group[1].raft.commit


def test_lazy_member_that_reads_is_told_at_once() -> None:
    """The read is answered by an index that the member must apply."""
    group = group_with_lazy_2()
    assert group[2].raft.read_index(7)
    group.settle()
    assert group[2].raft.commit == group[1].raft.commit
