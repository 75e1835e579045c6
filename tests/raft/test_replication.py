"""Replication, commitment, durability and flow: one test per sentence of the paper or trap (Raft 5.3, 5.4.2)."""

from collections.abc import Sequence

import pytest

from cluster.ports import Compacted, Unavailable
from cluster.raft.log import RaftLog
from cluster.raft.progress import Flow, Progress
from cluster.raft.rpc import AppendEntries, AppendReply, Heartbeat, HeartbeatReply
from cluster.types import Configuration, EntryKind, HardState
from tests.raft.disk import Disk
from tests.raft.network import Member, Network
from tests.raft.test_elections import answers, append, entry, with_log


def appends(messages: Sequence[object], target: int) -> list[AppendEntries]:
    """The appends among messages that go to one member."""
    return [m for m in messages if isinstance(m, AppendEntries) and m.target == target]


def only_to_voters_or(group: Network, *silent: int) -> None:
    """Cut off the answers of some members, so that they get everything but acknowledge nothing."""
    group.is_cut = lambda message: message.source in silent


@pytest.mark.parametrize(
    ("voters", "silent", "commits"),
    [
        (1, (), True),
        (2, (), True),
        (2, (2,), False),
        (3, (3,), True),
        (3, (2, 3), False),
        (4, (4,), True),
        (4, (3, 4), False),
        (5, (4, 5), True),
        (5, (3, 4, 5), False),
    ],
)
def test_majority_commits(voters: int, silent: tuple[int, ...], commits: bool) -> None:
    """Raft 5.3: an entry is committed once the leader has replicated it on a majority."""
    group = Network(voters)
    group.elect(1)
    only_to_voters_or(group, *silent)
    index = group[1].propose(b"x")
    group.settle()
    assert index == 2 and (group[1].raft.commit == 2) is commits
    assert group[1].data == ([b"x"] if commits else [])


def test_learners_are_not_counted_but_told_at_once() -> None:
    """Only voters commit; a learner applies as soon as the leader has committed."""
    group = Network(2, [3])
    group.elect(1)
    only_to_voters_or(group, 2)
    group[1].propose(b"x")
    group.settle()
    assert group[1].raft.commit == 1
    group.heal()
    group.tick()
    assert [member.data for member in group.members.values()] == [[b"x"]] * 3


def test_commit_reaches_followers_without_a_heartbeat_or_an_answer() -> None:
    """The commit index leaves at once, as one quiet append that nobody needs to answer."""
    group = Network(3)
    leader = group.elect(1)
    leader.propose(b"x")
    group.pump()
    group.persist()
    group.deliver()
    group.pump()
    group.persist()
    group.deliver()
    group.pump()
    news = appends(group.wire, 2)
    assert [(message.entries, message.leader_commit, message.quiet) for message in news] == [((), 2, True)]
    group.deliver()
    group.pump()
    group.persist()
    assert group.wire == [] and group[2].data == [b"x"]


def test_one_turn_is_one_append_per_peer() -> None:
    """Several proposals of a turn leave together, and several appends of a turn get one answer."""
    group = Network(3)
    leader = group.elect(1)
    for data in (b"a", b"b"):
        leader.propose(data)
    leader.pump()
    assert [len(message.entries) for message in appends(leader.outbox, 2)] == [2]
    member = Network(3)[1]
    member.raft.step(append(1, (0, 0), entry(1, 1)))
    member.raft.step(append(1, (1, 1), entry(2, 1)))
    assert answers(member) == [AppendReply(1, 2, 1, 2)]


def test_leader_sends_before_its_own_write_is_durable_but_does_not_count_itself() -> None:
    """Dissertation 10.2.1: the leader's write runs beside its followers'; a majority without it may commit."""
    group = Network(3)
    leader = group.elect(1)
    leader.propose(b"x")
    leader.pump()
    assert len(appends(leader.outbox, 2)) == 1
    leader.raft.step(AppendReply(2, 1, 1, 2))
    assert leader.raft.commit == 1
    leader.raft.step(AppendReply(3, 1, 1, 2))
    assert leader.raft.commit == 2
    leader.pump()
    assert leader.data == []  # committed, but not durable here: not applied
    leader.persist()
    leader.pump()
    assert leader.data == [b"x"]


def test_single_voter_commits_only_what_is_durable() -> None:
    """A group of one follows the same rule: nothing is handed out before the own write is durable."""
    group = Network(1, [2])
    leader = group.elect(1)
    leader.propose(b"x")
    leader.pump()
    assert leader.raft.commit == 1 and leader.data == []
    leader.persist()
    leader.pump()
    assert leader.raft.commit == 2 and leader.data == [b"x"]


def test_old_terms_are_committed_only_through_an_entry_of_the_own() -> None:
    """Raft 5.4.2, figure 8: no entry of an earlier term is committed by counting replicas."""
    group = Network(3)
    for node in (1, 2):
        with_log(group[node], 1, 1)
    leader = group[1]
    leader.raft.campaign()
    group.pump()
    for _ in range(20):
        group.persist()
        group.deliver()
        group.pump()
        if leader.raft.is_leader:
            break
    leader.raft.step(AppendReply(2, 1, leader.raft.term, 2))
    assert leader.raft.commit == 0
    leader.persist()
    leader.raft.step(AppendReply(2, 1, leader.raft.term, 3))
    assert leader.raft.commit == 3


@pytest.mark.parametrize(
    ("previous", "entries", "commit", "log", "committed"),
    [
        ((2, 2), (), 1, [1, 2, 2], 1),
        ((2, 2), (), 9, [1, 2, 2], 2),  # min(leaderCommit, last entry of the message)
        ((0, 0), (entry(1, 1),), 3, [1, 2, 2], 1),  # late: truncates nothing
        ((1, 1), (entry(2, 2),), 2, [1, 2, 2], 2),
        ((2, 2), (entry(3, 3),), 3, [1, 2, 3], 3),  # conflict: truncates
        ((1, 1), (entry(2, 3), entry(3, 3)), 0, [1, 3, 3], 0),
        ((3, 2), (entry(4, 3), entry(5, 3)), 4, [1, 2, 2, 3, 3], 4),
    ],
)
def test_append_follows_figure_2(
    previous: tuple[int, int], entries: tuple[object, ...], commit: int, log: list[int], committed: int
) -> None:
    """Raft figure 2, AppendEntries 3 to 5: delete on conflict only, append what is new, commit what was checked."""
    member = Network(3)[1]
    with_log(member, 1, 2, 2)
    member.raft.step(append(3, previous, *entries, commit=commit))  # type: ignore[arg-type]  # table of entries
    assert [term for _, term in member.log] == log and member.raft.commit == committed
    reply = answers(member)[-1]
    assert reply == AppendReply(1, 2, 3, previous[0] + len(entries))


@pytest.mark.parametrize(("previous", "hint"), [((3, 3), (3, 2)), ((9, 3), (3, 2)), ((3, 1), (1, 1))])
def test_append_is_rejected_where_the_logs_differ(previous: tuple[int, int], hint: tuple[int, int]) -> None:
    """Raft 5.3: a follower refuses entries if it has none with that index and term; its hint skips a whole term."""
    member = Network(3)[1]
    with_log(member, 1, 2, 2)
    member.raft.step(append(3, previous, entry(previous[0] + 1, 3)))
    assert answers(member) == [
        AppendReply(1, 2, 3, previous[0], rejected=True, hint_index=hint[0], hint_term=hint[1])
    ]


def test_committed_entries_are_never_truncated() -> None:
    """Raft 5.4.3: a conflict at or below the commit index is a broken group, and fatal."""
    member = Network(3)[1]
    with_log(member, 1, 1)
    log = member.raft.log
    log.commit_to(1)
    with pytest.raises(AssertionError, match="committed"):
        log._truncate(1)


@pytest.mark.parametrize(
    "terms",
    [
        [1, 1, 1, 4, 4, 5, 5, 6, 6],
        [1, 1, 1, 4],
        [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
        [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
        [1, 1, 1, 4, 4, 4, 4],
        [1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
    ],
)
def test_leader_brings_the_logs_of_figure_7_in_line(terms: list[int]) -> None:
    """Raft 5.3, figure 7: whatever a follower lacks or has too much, its log becomes the leader's."""
    group = Network(3)
    with_log(group[1], 1, 1, 1, 4, 4, 5, 5, 6, 6, 6)
    with_log(group[2], *terms)
    group[1].raft.campaign()
    group.settle()  # it may learn of a later term first
    if not group[1].raft.is_leader:
        group.elect(1)
    group.tick(3)
    assert (
        group[2].log == group[1].log
        and group[2].raft.commit == group[1].raft.commit == group[1].raft.last_index
    )


def test_long_divergence_is_found_in_few_rounds() -> None:
    """Both sides skip whole terms: a hundred conflicting entries cost a handful of messages."""
    group = Network(3)
    with_log(group[1], *[1] * 10, *[5] * 100)
    with_log(group[2], *[1] * 10, *[3] * 50, *[4] * 50)
    group[1].raft.campaign()
    rejections = 0
    for _ in range(60):
        group.pump()
        group.persist()
        rejections += sum(isinstance(m, AppendReply) and m.source == 2 and m.rejected for m in group.wire)
        group.deliver()
    assert group[2].log == group[1].log and rejections <= 3


def test_heartbeat_commits_no_more_than_the_member_holds() -> None:
    """A heartbeat carries min(match index, commit index)."""
    group = Network(3)
    leader = group.elect(1)
    group.isolate(3)
    leader.propose(b"x")
    group.settle()
    leader.raft.tick()
    leader.pump()
    beats = [(m.target, m.leader_commit) for m in leader.outbox if isinstance(m, Heartbeat)]
    assert beats == [(2, 2), (3, 1)]


def test_lost_appends_are_found_by_the_next_heartbeat() -> None:
    """In REPLICATE lost entries show at the answer to a heartbeat: the echo append is rejected, and probing starts."""
    group = Network(3)
    leader = group.elect(1)
    leader.propose(b"x")
    group.pump()
    group.forget_wire()
    group.persist()
    group.tick(2)
    assert [member.data for member in group.members.values()] == [[b"x"]] * 3
    assert {progress.flow for progress in leader.raft.progress.values()} == {Flow.REPLICATE}


def test_probe_sends_one_message_until_it_is_answered() -> None:
    """In PROBE one append is under way; a heartbeat's answer allows the next."""
    group = Network(3)
    leader = group.elect(1)
    leader.raft.report_unreachable(2)
    leader.raft.step(HeartbeatReply(2, 1, 1))
    for _ in range(3):
        leader.propose(b"x")
        leader.pump()
    assert len(appends(leader.outbox, 2)) == 1
    leader.raft.step(HeartbeatReply(2, 1, 1))
    leader.pump()
    assert len(appends(leader.outbox, 2)) == 2


@pytest.mark.parametrize(("messages", "size_bytes"), [(2, 1000), (100, 20)])
def test_window_bounds_what_is_under_way(messages: int, size_bytes: int) -> None:
    """A full window stops entries; an answer moves it; a heartbeat's answer lets one empty append through."""
    group = Network(3, message_bytes_max=10, inflight_max=messages, inflight_bytes_max=size_bytes)
    leader = group.elect(1)
    for _ in range(5):
        leader.propose(b"0123456789")
    leader.pump()
    sent = appends(leader.outbox, 2)
    assert [message.entries[0].index for message in sent] == [2, 3]
    leader.raft.step(HeartbeatReply(2, 1, 1))
    leader.pump()
    echo = appends(leader.outbox, 2)[2:]
    assert [(message.entries, message.quiet) for message in echo] == [((), False)]
    leader.raft.step(AppendReply(2, 1, 1, 2))
    leader.pump()
    assert [message.entries[0].index for message in appends(leader.outbox, 2)[3:]] == [4]


def test_message_is_bounded_in_bytes() -> None:
    """An append carries at most message_bytes_max of data, and a larger entry goes alone."""
    group = Network(3, message_bytes_max=10)
    leader = group.elect(1)
    leader.propose(b"12345", b"12345", b"1", b"0123456789ABC", b"2")
    leader.pump()
    sizes = [[len(e.data) for e in message.entries] for message in appends(leader.outbox, 2)]
    assert sizes == [[5, 5], [1], [13], [1]]


def test_uncommitted_proposals_are_bounded() -> None:
    """A leader without followers refuses what passes the limit, but never a first one, however large."""
    group = Network(3, uncommitted_bytes_max=10)
    leader = group.elect(1)
    group.isolate(1)
    assert leader.propose(b"0123456789ABCDEF") == 2
    assert leader.propose(b"x") is None
    group.heal()
    group.tick(2)
    assert leader.propose(b"x") == 3


def test_late_rejections_are_ignored() -> None:
    """In REPLICATE a rejection at or below the match index, in PROBE one of another message, means nothing."""
    progress = Progress(2, 10)
    assert not progress.rejected(5, 3)
    assert progress.rejected(9, 4) and progress.next_index == 4
    progress.accepted(6)
    progress.become_replicate()
    assert not progress.rejected(6, 1) and progress.flow is Flow.REPLICATE


def test_window_is_emptied_with_its_bytes() -> None:
    """Leaving REPLICATE zeroes messages and bytes together."""
    progress = Progress(2, 1)
    progress.become_replicate()
    progress.sent(5, 100)
    progress.become_probe()
    assert (progress.inflight_bytes, len(progress.inflights), progress.next_index) == (0, 0, 1)


def test_applying_is_bounded_and_nothing_is_skipped() -> None:
    """Committed entries are handed out in order, bounded by bytes not yet applied; also after a restart."""
    group = Network(1, applying_bytes_max=10)
    leader = group.elect(1)
    leader.is_applying = False
    leader.propose(*[b"12345"] * 7)
    group.settle()
    assert [e.index for e in leader.backlog] == [2, 3]
    leader.apply(1)
    leader.pump()
    assert [e.index for e in leader.backlog] == [
        3
    ]  # 2 and 3 were one hand-out: both count until both are done
    leader.is_applying = True
    leader.apply()
    group.settle()
    assert len(leader.data) == 7
    leader.restart()
    group.elect(1)
    assert len(leader.data) == 7


def test_stale_write_does_not_vouch_for_overwritten_entries() -> None:
    """Two writes under way: the first one's entries were replaced, so only the second makes the new ones stable."""
    member = Network(3)[1]
    raft, log = member.raft, member.raft.log
    raft.step(append(1, (0, 0), entry(1, 1), entry(2, 1), entry(3, 1)))
    member.pump()
    raft.step(append(2, (1, 1), entry(2, 2), entry(3, 2), source=3))
    member.pump()
    assert [ready.truncate_from for ready in member.under_way] == [None, 2]
    member.persist(1)
    assert log.persisted == 1
    member.persist(1)
    assert log.persisted == 3


def test_same_entry_written_again_waits_for_its_second_write() -> None:
    """A-B-A: an entry appended, overwritten and appended again is stable only with the last write."""
    member = Network(3)[1]
    log = RaftLog(member.disk, 0, 0)
    log.append([entry(1, 1)])
    log.take_unwritten(1)
    log.accept(0, (entry(1, 2),))
    log.take_unwritten(2)
    log.accept(0, (entry(1, 1),))
    log.take_unwritten(3)
    for number, persisted in ((1, 0), (2, 0), (3, 1)):
        log.on_persisted(number)
        assert log.persisted == persisted


def test_truncation_lowers_the_persisted_mark_at_once() -> None:
    """Entries that were durable and are overwritten stop being counted before the new write is handed out."""
    member = Network(3)[1]
    with_log(member, 1, 1, 1)
    assert member.raft.log.persisted == 3
    member.raft.step(append(2, (1, 1), entry(2, 2)))
    assert member.raft.log.persisted == 1


def test_answer_waits_for_the_write() -> None:
    """Raft figure 2: a server answers only after updating stable storage."""
    member = Network(3)[1]
    member.raft.step(append(1, (0, 0), entry(1, 1)))
    member.pump()
    assert member.outbox == []
    member.persist()
    assert member.outbox == [AppendReply(1, 2, 1, 1)]


def test_commit_index_is_stored_with_entries_and_not_alone() -> None:
    """The hard state beside entries is as new as they are; a commit index alone costs no write."""
    group = Network(1)
    leader = group.elect(1)
    leader.propose(b"x")
    ready = leader.take_ready()
    assert ready.hard_state == HardState(1, 1, 1) and ready.must_sync
    leader.persist()
    assert leader.raft.commit == 2 and not leader.take_ready().must_sync


def test_time_never_falls_in_the_log() -> None:
    """Entries carry the leader's clock or the last entry's time, whichever is later; across leaders too."""
    group = Network(3)
    group[1].raft.clock.ts = 500
    group.elect(1)
    for clock in (700, 600):
        group[1].raft.clock.ts = clock
        group[1].propose(b"x")
    group.settle()
    group.isolate(1)
    group[2].raft.clock.ts = 100
    for node in (3, 2):
        group[node].raft.peer_lost(1)
    group.settle()
    group.tick(3, 2, 3)
    assert [e.ts for e in group[2].applied] == [500, 700, 700, 700]


def test_terms_of_missing_entries_match_nothing() -> None:
    """Below the snapshot and above the end there is no term, not a 0 that equals another 0."""
    group = Network(1)
    leader = group.elect(1)
    leader.propose(b"x")
    group.settle()
    leader.save()
    log = leader.raft.log
    with pytest.raises(Compacted):
        log.term(1)
    with pytest.raises(Unavailable):
        log.term(9)
    assert not log.matches(1, 0) and not log.matches(9, 0) and log.matches(2, 1)


def test_ready_is_numbered_without_gaps() -> None:
    """Each Ready has the next number, whatever it holds."""
    group = Network(1)
    leader = group.elect(1)
    leader.propose(b"x")
    first = leader.take_ready().number
    leader.propose(b"y")
    assert leader.take_ready().number == first + 1


def test_damaged_store_is_refused() -> None:
    """A store whose commit index lies past its log is not started on."""
    disk = Disk(Configuration((1,)))
    disk.shown.hard_state = HardState(3, 0, 7)
    with pytest.raises(AssertionError):
        Member(1, Configuration((1,))).raft.log.__init__(disk, 7, 0)  # type: ignore[misc]  # a second start


def test_proposals_go_to_leaders_only() -> None:
    """A follower takes no proposal: the leader stamps the time."""
    group = Network(3)
    assert group[1].raft.propose(EntryKind.BATCH, [b"x"]) is None
