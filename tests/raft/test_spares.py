"""A member beyond a majority, at which nobody waits, gets its entries later; no commit ever waits for that."""

import pytest

from cluster.raft.membership import Operation
from cluster.raft.rpc import AppendEntries, Message
from cluster.raft.spares import BEHIND_BYTES_MAX, COMMIT_MS_MAX, SPARE_BYTES_MAX
from tests.raft.network import Network

HEARTBEAT_TICKS = 4


def group_with_lazy(*lazy: int, members: int = 3, learners: tuple[int, ...] = ()) -> Network:
    """Members led by 1; nobody waits at the lazy ones, the leader has heard so, and all have all entries."""
    group = Network(members, learners, heartbeat_ticks=HEARTBEAT_TICKS, election_ticks=20)
    leader = group.elect(1)
    for node in lazy:
        group[node].raft.is_lazy = True
    leader.propose(b"first")
    group.settle()
    group.tick(HEARTBEAT_TICKS)
    assert {member.raft.last_index for member in group.members.values()} == {leader.raft.last_index}
    return group


def has_newest(group: Network) -> list[int]:
    """The members that have the leader's last entry."""
    last = group[1].raft.last_index
    return [node for node, member in group.members.items() if member.raft.last_index == last]


def test_one_of_two_members_at_which_nobody_waits_gets_entries_later() -> None:
    group = group_with_lazy(2, 3)
    for number in range(3):
        group[1].propose(b"%d" % number)
        group.settle()
        assert group[1].raft.commit == group[1].raft.last_index, "two of three are a majority"
    assert len(has_newest(group)) == 2
    group.tick(HEARTBEAT_TICKS)
    assert has_newest(group) == [1, 2, 3]
    assert group[3].raft.commit == group[2].raft.commit == group[1].raft.commit


def test_member_at_which_somebody_waits_is_in_the_majority_that_is_asked() -> None:
    for waits, spare in ((2, 3), (3, 2)):
        group = group_with_lazy(spare)
        group[1].propose(b"x")
        group.settle()
        assert has_newest(group) == [1, waits]
        assert group[waits].raft.commit == group[1].raft.commit


def test_nobody_is_spared_where_somebody_waits_at_all() -> None:
    group = group_with_lazy()
    group[1].propose(b"x")
    group.settle()
    assert has_newest(group) == [1, 2, 3]


def test_majority_of_five_and_every_learner() -> None:
    group = group_with_lazy(2, 3, 4, 5, 6, members=5, learners=(6,))
    group[1].propose(b"x")
    group.settle()
    newest = has_newest(group)
    assert len(newest) == 3 and 6 not in newest
    assert group[1].raft.commit == group[1].raft.last_index


def test_learner_alone_is_spared() -> None:
    group = group_with_lazy(2, members=1, learners=(2,))
    group[1].propose(b"x")
    group.settle()
    assert has_newest(group) == [1]
    assert group[1].raft.commit == group[1].raft.last_index


def test_spare_member_is_fed_once_it_lacks_enough() -> None:
    group = group_with_lazy(2, 3)
    piece = bytes(SPARE_BYTES_MAX // 4)
    for _ in range(4):
        group[1].propose(piece)
        group.settle()
    assert len(has_newest(group)) == 2
    group[1].propose(piece)
    group.settle()
    assert has_newest(group) == [1, 2, 3]
    group[1].propose(piece)
    group.settle()
    assert len(has_newest(group)) == 2, "from there on it waits again"


def test_spare_member_whose_client_proposes_is_told_at_once() -> None:
    group = group_with_lazy(2, 3)
    group[1].propose(b"x")
    group.settle()
    (spare,) = {2, 3} - set(has_newest(group))
    group[1].raft.peer_waits(spare, group[1].raft.last_index)
    group.settle()
    assert group[spare].raft.commit == group[1].raft.commit
    assert has_newest(group) == [1, 2, 3]


def test_spare_member_that_reads_is_told_at_once() -> None:
    group = group_with_lazy(2, 3)
    group[1].propose(b"x")
    group.settle()
    (spare,) = {2, 3} - set(has_newest(group))
    assert group[spare].raft.read_index(7)
    group.settle()
    assert group[spare].raft.commit == group[1].raft.commit


def _stands_for(group: Network) -> tuple[int, int]:
    """(the member that is asked, the spare one)"""
    group[1].propose(b"x")
    group.settle()
    (spare,) = {2, 3} - set(has_newest(group))
    return 5 - spare, spare


def test_spare_member_stands_in_for_one_whose_process_ends() -> None:
    group = group_with_lazy(2, 3)
    asked, spare = _stands_for(group)
    group[asked].crash()
    group[1].propose(b"y")
    group.pump()
    group[1].raft.peer_lost(asked)
    group.settle()
    assert has_newest(group) == [1, spare]
    assert group[1].raft.commit == group[1].raft.last_index
    assert group[spare].raft.last_index == group[1].raft.last_index


def test_spare_member_stands_in_for_one_whose_link_breaks() -> None:
    group = group_with_lazy(2, 3)
    asked, spare = _stands_for(group)
    group.isolate(asked)
    group[1].propose(b"y")
    group.settle()
    assert group[1].raft.commit < group[1].raft.last_index
    group[1].raft.report_unreachable(asked)
    group.settle()
    assert has_newest(group) == [1, spare]
    assert group[1].raft.commit == group[1].raft.last_index


@pytest.mark.parametrize("is_busy", [True, False])
def test_spare_member_stands_in_for_one_that_is_silent(*, is_busy: bool) -> None:
    """With the next entry on a busy leader, by itself on one whose client waits for this very commit."""
    group = group_with_lazy(2, 3)
    asked, spare = _stands_for(group)
    group.isolate(asked)
    leader = group[1]
    leader.propose(b"y")
    group.settle()
    leader.raft.clock.ts += COMMIT_MS_MAX
    if is_busy:
        leader.propose(b"z")
    else:
        assert leader.raft.ask_all_if_late()
    group.settle()
    assert leader.raft.commit < leader.raft.last_index, "it is not late yet"
    leader.raft.clock.ts += 1
    if is_busy:
        leader.propose(b"z")
    else:
        assert leader.raft.ask_all_if_late()
    group.settle()
    assert leader.raft.commit == leader.raft.last_index
    assert not leader.raft.ask_all_if_late()
    assert has_newest(group) == [1, spare]


def test_member_that_answered_late_is_spared_from_then_on() -> None:
    group = group_with_lazy(2, 3)
    asked, spare = _stands_for(group)
    leader = group[1]
    group.isolate(asked)
    leader.propose(b"y")
    group.settle()
    leader.raft.clock.ts += COMMIT_MS_MAX + 1
    leader.propose(b"z")
    group.settle()
    group.heal()
    sent: list[Message] = []
    group.watch = sent.extend
    leader.propose(b"w")
    group.settle()
    fed = {message.target for message in sent if isinstance(message, AppendEntries) and message.entries}
    assert fed == {spare}
    group.tick(HEARTBEAT_TICKS)
    assert has_newest(group) == [1, 2, 3], "what was lost is sent again"


def test_member_that_is_to_lead_is_not_spared() -> None:
    group = group_with_lazy(2, 3)
    _, spare = _stands_for(group)
    assert group[1].raft.transfer_leader(spare)
    group.settle()
    assert group.leaders == [spare]


def test_change_of_members_is_told_to_all() -> None:
    group = group_with_lazy(2, 3)
    assert group[1].change((Operation.REMOVE, 3)) is not None
    group.settle()
    assert group[1].raft.configuration.voters == (1, 2)
    assert len(has_newest(group)) == 3


def test_member_far_behind_catches_up_without_pauses() -> None:
    """What it lacks of earlier terms is not in the leader's count."""
    group = group_with_lazy(2, 3)
    _, spare = _stands_for(group)
    group.isolate(spare)
    for _ in range(200):
        group[1].propose(bytes(1024))
        group.settle()
    asked = 5 - spare
    group[asked].raft.is_lazy = False
    assert group[1].raft.transfer_leader(asked)
    group.settle()
    group.heal()
    group.tick(HEARTBEAT_TICKS)
    assert has_newest_of(group, asked) == [1, 2, 3]


def has_newest_of(group: Network, leader: int) -> list[int]:
    """The members that have the last entry of this one."""
    last = group[leader].raft.last_index
    return [node for node, member in group.members.items() if member.raft.last_index == last]


@pytest.mark.parametrize("is_needed", [False, True])
def test_member_from_behind_gets_little_at_once_where_the_others_do_without_it(is_needed: bool) -> None:
    """Not so where it is needed: then the whole group waits for it."""
    group = Network(3, heartbeat_ticks=HEARTBEAT_TICKS, election_ticks=20)
    leader = group.elect(1)
    group.isolate(3)
    piece = bytes(1 << 20)
    for _ in range(12):
        leader.propose(piece)
        group.settle()
    assert group[3].raft.last_index < leader.raft.last_index - 10
    leader.raft.report_unreachable(3)
    if is_needed:
        leader.raft.peer_lost(2)
        group.isolate(2)
    else:
        group.heal()
    most = 0

    def look(_: object) -> None:
        nonlocal most
        assert leader.raft.leadership is not None
        most = max(most, leader.raft.leadership.progress[3].inflight_bytes)

    group.after = look
    group.tick(3 * HEARTBEAT_TICKS, 1)
    assert group[3].raft.last_index == leader.raft.last_index
    if is_needed:
        assert most > 10 * len(piece)
    else:
        assert 0 < most <= BEHIND_BYTES_MAX + len(piece)
