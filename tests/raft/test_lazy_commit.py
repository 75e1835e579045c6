"""A member at which nobody waits is told of a commit with the next append, heartbeat or read, not before.

One whose client waits for an entry of its own is told of it, and not of each before it.
"""

from cluster.raft.rpc import AppendEntries
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


def test_member_is_told_of_commits_when_the_entry_that_came_from_it_is_committed() -> None:
    group = Network(3)
    leader = group.elect(1)
    leader.propose(b"first")
    group.pump()
    second: int | None = None
    told: list[int] = []

    def watch(messages: list[object]) -> None:
        for message in messages:
            if isinstance(message, AppendEntries) and second and not message.entries:
                told.append(message.target)

    group.watch = watch  # type: ignore[assignment]
    group.persist()
    group.deliver()
    second = leader.propose(b"second")
    assert second is not None
    leader.raft.peer_waits(2, second)
    group.pump()
    group.persist()
    group.deliver(lambda message: message.source != 1)
    group.pump()
    assert leader.raft.commit == second - 1
    assert told == [3]
    group.settle()
    assert leader.raft.commit == group[2].raft.commit == second
    assert told == [3, 2, 3]


def test_member_whose_entry_never_commits_learns_of_what_did_with_a_heartbeat() -> None:
    group = Network(3)
    leader = group.elect(1)
    leader.propose(b"first")
    group.settle()
    commit = leader.raft.commit
    leader.raft.peer_waits(2, commit + 2)
    leader.propose(b"second")
    group.settle()
    assert group[2].raft.commit == commit
    group.tick(2)
    assert group[2].raft.commit == leader.raft.commit == commit + 1
