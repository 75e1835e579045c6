"""The host: duties that were forgotten, clocks that were fooled, streams into memory that stood still."""

import random
from collections.abc import Iterable, Mapping
from typing import Any

from cluster.envelope import Envelope, Expect
from cluster.host import Host, HostOptions
from cluster.machine import Meta, Row
from cluster.memory import MemoryGroup
from cluster.origin import UNAPPLIED_BYTES_MAX, OriginStream
from cluster.raft.rpc import RequestVote, VoteReply
from cluster.transfers import PUT_OFF_MS_MAX
from cluster.types import MEMORY_GROUP, Configuration, GroupId
from tests.sim.disk import Disk

START_MS = 1_700_000_000_000


class CountingMachine:
    """Counts what it is told, and replies with the index."""

    version = 1

    def __init__(self) -> None:
        self.applied = 0
        self.gone: list[int] = []

    def apply(self, meta: Meta, data: bytes, offset: int) -> list[Any]:
        self.applied += len(data) - offset
        return [meta.index] if len(data) > offset else []

    def origin_gone(self, meta: Meta) -> list[Any]:
        self.gone.append(meta.origin)
        return []

    def live(self) -> Mapping[int, int]:
        return {}

    def serves(self) -> bool:
        return False

    def take_dead(self) -> list[int]:
        return []

    def checkpoint(self, *, full: bool) -> list[Row]:
        return []

    def restore(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        pass


class OneHost:
    """Node 1 of two, the only voter of its one group, so that it leads by itself."""

    def __init__(self) -> None:
        self.disk = Disk()
        self.disk.form(1, Configuration((1,), (2,)))
        self.now_ms = START_MS
        self.machine = CountingMachine()
        self.memory = CountingMachine()
        machines = {GroupId(1): self.machine, GroupId(MEMORY_GROUP + 1): self.memory}
        options = HostOptions(1, (1, 2), boot=START_MS, election_ticks=4)
        self.host = Host(options, self.disk, machines, random.Random(1).randint, START_MS)  # type: ignore[arg-type]
        self.lost: list[int] = []

    @property
    def group(self) -> Any:
        return self.host.groups[1]

    def turn(self) -> None:
        """One flush, and its writes durable."""
        turn = self.host.flush(self.now_ms)
        self.lost += turn.lost
        if turn.writes:
            self.disk.submit(turn.number, turn.writes)
            self.host.persisted(self.disk.sync())

    def run(self, ms: int, *, peer_speaks: bool = True) -> None:
        """Let time pass in ticks, with a peer that follows or is silent."""
        for _ in range(ms // 50):
            self.now_ms += 50
            if peer_speaks:
                self.host.receive(Envelope(2, START_MS, START_MS))
            self.host.tick(self.now_ms)
            for _ in range(4):
                self.turn()

    def begin(self) -> None:
        """Lead, with a stream of node 2 under way."""
        self.host.peer_up(2, START_MS)
        self.run(1000)
        assert self.group.leads
        stream = OriginStream(2, 1, START_MS << 16)
        stream.submit((b"x",))
        batch = stream.form(1)[0]
        self.host.receive(Envelope(2, START_MS, START_MS, batches=[_batch(1, batch.data)]))
        self.run(500)
        assert (2, START_MS << 16) in self.group.origins.alive()


def _batch(group: int, data: bytes) -> Any:
    from cluster.envelope import Batch

    return Batch(group, data)


def test_the_end_of_a_process_is_proposed_until_it_is_in_the_log() -> None:
    """A leader that may not propose just now must not forget that a node is gone: its messages wait."""
    one = OneHost()
    one.begin()
    leadership = one.group.raft.leadership
    leadership.uncommitted_bytes = one.group.raft.options.uncommitted_bytes_max
    one.host.peer_down(2, refused=True)
    leadership.uncommitted_bytes = 0
    one.run(2000, peer_speaks=False)
    assert one.machine.gone == [2]


def test_a_turn_before_the_tick_does_not_hide_a_pause() -> None:
    """A node that stood still has heard nobody: that proves nothing against the others."""
    one = OneHost()
    one.begin()
    one.now_ms += 60_000
    one.turn()  # planned before the pause, it runs first after it
    for _ in range(20):
        one.host.tick(one.now_ms)
        one.turn()
    assert one.machine.gone == []


def test_all_that_was_gathered_for_the_own_memory_is_done() -> None:
    """Nothing comes from outside to go on with the rest of a large turn."""
    machine = CountingMachine()
    group = MemoryGroup(machine, OriginStream(1, MEMORY_GROUP + 1, 1))
    for _ in range(3):
        group.submit((bytes(UNAPPLIED_BYTES_MAX),))
    turns = 0
    while group.dirty:
        group.collect(turns, 0)
        turns += 1
        assert turns < 10
    assert machine.applied == 3 * UNAPPLIED_BYTES_MAX


def test_what_nobody_waits_for_rides_along_in_the_own_memory() -> None:
    """An ack takes no turn of its own: it goes with the next message, or after a tick."""
    machine = CountingMachine()
    group = MemoryGroup(machine, OriginStream(1, MEMORY_GROUP + 1, 1))
    group.submit((b"ack",), is_patient=True)
    assert not group.dirty
    group.submit((b"message",))
    assert group.dirty
    group.collect(1, 0)
    assert machine.applied == len(b"ackmessage")
    group.submit((b"ack",), is_patient=True)
    group.hurry()
    assert group.dirty
    group.collect(2, 0)
    assert machine.applied == len(b"ackmessageack")
    assert not group.dirty


def test_a_stream_into_the_memory_of_a_dead_process_ends() -> None:
    """It may never come back; who waits for its answer must not wait with it."""
    one = OneHost()
    one.begin()
    link = MEMORY_GROUP + 2
    one.host.submit(link, (b"message",))
    one.run(200)
    assert one.host.stream(link).pending_bytes
    one.host.peer_down(2, refused=True)
    one.run(2000, peer_speaks=False)
    assert one.lost == [link]
    assert not one.host.stream(link).pending_bytes


def test_a_stream_into_the_memory_of_a_silent_process_waits_for_the_grace() -> None:
    """A short silence may be a pause; a long one counts as an end, as for its sessions."""
    one = OneHost()
    one.begin()
    link = MEMORY_GROUP + 2
    one.host.submit(link, (b"message",))
    one.run(3000, peer_speaks=False)
    assert one.lost == []
    one.run(4000, peer_speaks=False)
    assert one.lost == [link]
    one.run(4000, peer_speaks=False)
    assert one.lost == [link], "what is empty is not lost again"


def test_an_answer_to_the_stream_before_means_nothing() -> None:
    """A late Expect of the epoch that was given up does not settle what was submitted since."""
    one = OneHost()
    one.begin()
    link = MEMORY_GROUP + 2
    one.host.submit(link, (b"message",))
    one.run(50)
    epoch = one.host.stream(link).epoch
    one.host.peer_down(2, refused=True)
    one.run(1000, peer_speaks=False)
    one.host.submit(link, (b"another",))
    one.turn()
    one.host.receive(Envelope(2, START_MS, START_MS, expects=[Expect(link, 0, epoch, 2)]))
    assert one.host.stream(link).pending_bytes


def test_a_slow_disk_does_not_begin_the_election_anew() -> None:
    """The node that should lead campaigns at once where nobody does, but once: its vote must become durable."""
    disk = Disk()
    disk.form(1, Configuration((1, 2, 3)))
    machines = {GroupId(1): CountingMachine(), GroupId(MEMORY_GROUP + 2): CountingMachine()}
    options = HostOptions(2, (1, 2, 3), boot=START_MS, election_ticks=100)
    host = Host(options, disk, machines, random.Random(1).randint, START_MS)  # type: ignore[arg-type]
    for peer in (1, 3):
        host.peer_up(peer, START_MS)
    syncing: list[tuple[int, int]] = []
    for tick in range(100):
        host.tick(START_MS + tick * 50)
        while syncing and syncing[0][0] <= tick:
            host.persisted(syncing.pop(0)[1])
        turn = host.flush(START_MS + tick * 50)
        if turn.writes:
            syncing.append((tick + 16, turn.number))
        asked = turn.envelopes[1].messages if 1 in turn.envelopes else []
        replies = [
            (1, VoteReply(1, 2, message.term, granted=True, pre=message.pre))
            for _, message in asked
            if isinstance(message, RequestVote)
        ]
        host.receive(Envelope(1, START_MS, START_MS, list(replies)))
    assert host.groups[1].raft.is_leader
    assert host.groups[1].raft.term == 1


def test_a_busy_leader_begins_no_checkpoint_before_a_member_that_lags_was_served() -> None:
    """On a slow disk one checkpoint followed the other, and a member that needed a snapshot was never offered one."""
    one = OneHost()
    one.begin()
    group = one.host.groups[1]
    group.busy = True
    one.host._transfers.offer(group, 2, one.now_ms)
    assert group.held
    assert not one.host._transfers.is_sending
    group.saved()
    one.host._transfers.offer(group, 2, one.now_ms)
    assert one.host._transfers.is_sending
    one.host._transfers.drop_peer(2)
    assert not group.held


def test_a_member_that_does_not_ask_again_holds_up_no_checkpoint_for_long() -> None:
    one = OneHost()
    one.begin()
    group = one.host.groups[1]
    group.busy = True
    one.host._transfers.offer(group, 2, one.now_ms)
    group.saved()
    one.host._transfers.drop_stalled(one.now_ms + PUT_OFF_MS_MAX)
    assert group.held
    one.host._transfers.drop_stalled(one.now_ms + PUT_OFF_MS_MAX + 1)
    assert not group.held
