"""All groups of a node as one pure machine: envelopes, ticks, commands and durable turns in; turns out.

A turn merges what every group has to write into one list for one transaction, and what every group has to
say to a peer into one envelope. What may leave only when a write is durable waits here under the number of the
turn that carries the write.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from cluster.balance import Balance, Peer
from cluster.envelope import Envelope, Expect
from cluster.group import Group, Outcome
from cluster.machine import StateMachine
from cluster.memory import MemoryGroup, MemoryLink
from cluster.origin import OriginStream
from cluster.ports import LogStore
from cluster.raft.core import Clock, Options, Raft
from cluster.raft.rpc import HeartbeatReply, Message
from cluster.transfers import Transfers
from cluster.turn import Turn
from cluster.types import MEMORY_GROUP, GroupId

EPOCH_SHIFT = 16
"""A stream's epoch is the process's boot epoch with room for new epochs within its life."""
PING_MS = 500
"""A peer that was told nothing for this long gets an empty envelope: silence then means trouble."""
RESEND_MS = 1_000
"""A stream whose oldest batch saw no progress for this long is sent again."""
PAUSE_MS_MAX = 1_000
"""Turns and ticks further apart than this mean that this node stood still: others' silence proves nothing."""
TICK_DUTIES = 10
"""Leaders look after ended origins and misplaced leadership once in so many ticks."""


class Stream(Protocol):
    """How far the commands of this node into a group have come."""

    epoch: int
    submitted: int
    applied: int

    @property
    def is_busy(self) -> bool:
        """Whether some are on their way, and do not wait for others or for a tick."""


@dataclass(slots=True)
class HostOptions:
    """What the host must know of its place.

    Args:
        node: this node.
        nodes: all nodes, ascending.
        boot: boot epoch of this process, higher than any before it.
        election_ticks, heartbeat_ticks: see cluster.raft.
        silent_ms_max: a peer silent for this long is taken for dead and its sessions end: long enough for a pause,
            short enough for its unacked messages to find another consumer.
    """

    node: int
    nodes: tuple[int, ...]
    boot: int
    election_ticks: int = 20
    heartbeat_ticks: int = 2
    silent_ms_max: int = 5_000


@dataclass(slots=True)
class _Waiting:
    """What happens when a turn is durable."""

    turn: int
    group: Group
    ready_number: int
    messages: list[Message]
    checkpoint: bool
    install: bool


class Host:
    """All groups of one node."""

    def __init__(
        self,
        options: HostOptions,
        store: LogStore,
        machines: dict[GroupId, StateMachine],
        draw: Callable[[int, int], int],
        now_ms: int,
    ) -> None:
        """Args: machines: one per replicated group, and this node's memory group."""
        self.options = options
        self.node = options.node
        self.now_ms = now_ms
        self._clock = Clock(now_ms)
        self.groups: dict[int, Group] = {}
        self._touched: dict[int, Group] = {}
        self._touched_next: dict[int, Group] = {}  # have a share of the next turn, not of this one
        self.peers = {node: Peer(heard_ms=now_ms) for node in options.nodes if node != options.node}
        self.links: dict[int, MemoryLink] = {}
        self._dirty_links: dict[int, MemoryLink] = {}
        self._store = store
        self._turn = Turn(0)
        self._durable = self._written = 0
        self._waiting: deque[_Waiting] = deque()
        self.balance = Balance(self.node, self.groups, self.peers)
        self._transfers = Transfers(self.node, self.groups, store, self._envelope, self._dispatch)
        self._later: dict[int, list[tuple[int, Message]]] = {}  # by peer
        self._answered: dict[
            tuple[int, int], int
        ] = {}  # (group, leader): token of the last heartbeat answered
        self._ticks = 0
        self._gone_proposed: dict[tuple[int, int], tuple[int, int]] = {}
        epoch = options.boot << EPOCH_SHIFT
        memory = GroupId(MEMORY_GROUP + options.node)
        self.memory = MemoryGroup(machines[memory], options.node, epoch)
        for node in self.peers:
            group = MEMORY_GROUP + node
            self.links[group] = MemoryLink(OriginStream(options.node, group, epoch), self._dirty_links)
        for gid in sorted(machines):
            if gid < MEMORY_GROUP:
                self._open_group(gid, machines[gid], epoch, draw)
        self._turn = Turn(1)

    def _open_group(
        self, gid: int, machine: StateMachine, epoch: int, draw: Callable[[int, int], int]
    ) -> None:
        view = self._store.view(gid)
        options = Options(
            id=self.node,
            group=gid,
            heartbeat_ticks=self.options.heartbeat_ticks,
            election_ticks=self.options.election_ticks,
        )
        raft = Raft(options, view, draw, view.snapshot_meta().index, self._clock)
        group = Group(raft, machine, self._store, OriginStream(self.node, gid, epoch), self._touched)
        group.submit(())  # begins this process's epoch, which ends the one before it
        self.groups[gid] = group

    # -- inputs ----------------------------------------------------------------------------------------

    def submit(self, group: int, parts: tuple[bytes, ...], *, is_patient: bool = False) -> None:
        """One command, in pieces, onto this node's stream into any group; see `Group.submit`."""
        if group < MEMORY_GROUP:
            self.groups[group].submit(parts, is_patient=is_patient)
        elif group == self.memory.id:
            self.memory.submit(parts, is_patient=is_patient)
        else:
            self.links[group].submit(parts)

    def stream(self, group: int) -> Stream:
        """This node's stream into any group, for reading."""
        if group < MEMORY_GROUP:
            return self.groups[group].stream
        return self.memory if group == self.memory.id else self.links[group].stream

    def barrier(self, group: int, ticket: int) -> None:
        """`Turn.passed` will hold the ticket once this replica of the group is current."""
        if group < MEMORY_GROUP:
            self.groups[group].barrier(ticket)
        else:
            if group == self.memory.id:
                self.memory.hurry()
            self._turn.passed.append(ticket)

    def entry_data(self, group: int, index: int) -> bytes:
        """Data of a live entry; KeyError if it is gone."""
        if group == self.memory.id:
            return self.memory.entries[index]
        return self._store.data(group, index)

    def tick(self, now_ms: int) -> None:
        """About 50 ms have passed (or more: then it still is one tick)."""
        self._set_clock(now_ms)
        self._ticks += 1
        for group in self.groups.values():
            self._send(group, group.tick())
            if group.stream.pending and group.raft.leader:
                self._resend_overdue(group)
        self.memory.hurry()
        # In step with the heartbeats of this node, so that in a calm cluster one envelope has both.
        is_beat = self._ticks % self.options.heartbeat_ticks == 0
        for node, peer in self.peers.items():
            if (is_beat and node in self._later) or now_ms - peer.told_ms >= PING_MS:
                self._envelope(node)
        for link in self.links.values():
            if link.overdue(now_ms):
                for batch in link.resend(now_ms):
                    self._envelope(link.owner).batches.append(batch)
        if self._ticks % TICK_DUTIES == 0:
            self._end_origins()
            self._give_up_links()
            self.balance.hand_back(self.now_ms)
            self._transfers.drop_stalled(self.now_ms)

    def ask_all_if_late(self, now_ms: int) -> bool:
        """See that no commit waits for a member that is slow; whether to call it again in some milliseconds."""
        self._set_clock(now_ms)
        is_waiting = False
        for group in self.groups.values():
            if group.raft.ask_all_if_late():
                is_waiting = True
                if group.raft.has_ready():
                    group.touch()
        return is_waiting

    def _set_clock(self, now_ms: int) -> None:
        if now_ms == self.now_ms:
            return
        if now_ms - self.now_ms > PAUSE_MS_MAX:
            # Whatever runs first after the pause, a turn or a tick, must not take it for the others' silence.
            for peer in self.peers.values():
                peer.heard_ms = now_ms
        self.now_ms = self._clock.ts = max(self.now_ms, now_ms)

    def _resend_overdue(self, group: Group) -> None:
        stream = group.stream
        if self.now_ms - stream.resent_at_ms < RESEND_MS:
            return
        oldest = stream.pending[0].seq
        stream.leader = group.raft.leader  # its Expect may be lost; one that is not ready answers nothing
        if group.resend_mark == oldest:
            outcome = Outcome()
            group.resend(oldest, self.now_ms, outcome)
            self._dispatch(group, outcome)
        group.resend_mark = oldest
        stream.resent_at_ms = self.now_ms

    def peer_up(self, node: int, boot: int) -> None:
        """A link to a process of the peer stands."""
        peer = self.peers[node]
        self._meet(node, boot)
        if boot < peer.boot:
            return
        peer.up, peer.ended = True, False
        peer.heard_ms = peer.since_ms = self.now_ms
        link = self.links[MEMORY_GROUP + node]
        link.up = True
        for batch in link.resend(self.now_ms):
            self._envelope(node).batches.append(batch)
        for group in self.groups.values():
            if group.leads:
                self._envelope(node).expects.append(group.expect_of(node))

    def peer_down(self, node: int, *, refused: bool) -> None:
        """The link broke. `refused`: the peer's address refuses connections, so its process has ended."""
        peer = self.peers[node]
        if peer.up:
            peer.up = False
            self.links[MEMORY_GROUP + node].up = False
            for group in self.groups.values():
                group.raft.peer_lost(node)
                group.touch()
        if refused and not peer.ended:
            peer.ended = True
            self._end_origins()
            self._give_up_links()

    def _meet(self, node: int, boot: int) -> None:
        """A process of the peer spoke: perhaps a new one."""
        peer = self.peers[node]
        if boot <= peer.boot:
            return
        known, peer.boot, peer.ended = peer.boot, boot, False
        link = self.links[MEMORY_GROUP + node]
        if known and link.stream.submitted:
            link.stream.restart()
            self._turn.lost.append(link.id)
        self._transfers.drop_peer(node)
        self._later.pop(node, None)

    def receive(self, envelope: Envelope) -> None:
        """An envelope of a peer arrived."""
        node = envelope.sender
        peer = self.peers.get(node)
        if peer is None or envelope.boot < peer.boot or envelope.to_boot not in (0, self.options.boot):
            return
        self._meet(node, envelope.boot)
        peer.heard_ms = self.now_ms
        for gid, message in envelope.messages:
            group = self.groups[gid]
            self._send(group, group.step(message))
        for batch in envelope.batches:
            if batch.group == self.memory.id:
                self._emit(batch.group, self.memory.receive_batch(node, batch.data, self.now_ms))
            else:
                group = self.groups[batch.group]
                outcome = Outcome()
                group.receive_batch(node, batch.data, outcome)
                self._dispatch(group, outcome)
        for expect in envelope.expects:
            self._receive_expect(node, expect)
        self._transfers.receive(node, envelope, self.now_ms)

    def _receive_expect(self, node: int, expect: Expect) -> None:
        if expect.group >= MEMORY_GROUP:
            if expect.group == MEMORY_GROUP + node:
                self.links[expect.group].receive_expect(expect)
            return
        group = self.groups[expect.group]
        outcome = Outcome()
        group.receive_expect(node, expect, self.now_ms, outcome)
        self._dispatch(group, outcome)

    def persisted(self, number: int) -> None:
        """The writes of all turns up to this one are durable."""
        self._durable = max(self._durable, number)
        while self._waiting and self._waiting[0].turn <= self._durable:
            waiting = self._waiting.popleft()
            self._finish(waiting)

    def _finish(self, waiting: _Waiting) -> None:
        group = waiting.group
        if waiting.install:
            outcome = Outcome()
            group.installed(outcome)
            self._dispatch(group, outcome)
        if waiting.ready_number:
            group.raft.on_persisted(waiting.ready_number)
        if waiting.checkpoint:
            group.saved()
        self._send(group, waiting.messages)
        if group.raft.has_ready():
            group.touch()

    # -- the turn --------------------------------------------------------------------------------------

    def flush(self, now_ms: int) -> Turn:
        """Everything there is to do since the last turn."""
        self.collect(now_ms)
        return self.close_turn()

    def collect(self, now_ms: int) -> Turn:
        """Everything there is to do, into the turn that is open: what its effects lead to may still go with it."""
        self._set_clock(now_ms)
        turn = self._turn
        # Twice: what was applied in the first pass makes room for the next batch, and the commit index that
        # rose travels with that batch instead of in an envelope of its own.
        for _ in range(2):
            if not self._touched:
                break
            touched = list(self._touched.values())
            self._touched.clear()
            for group in touched:
                outcome = Outcome()
                group.collect(turn.number, self.now_ms, outcome)
                self._dispatch(group, outcome)
        if self.memory.dirty:
            effects, expects = self.memory.collect(self.now_ms)
            self._emit(self.memory.id, effects)
            for node, expect in expects:
                self._envelope(node).expects.append(expect)
        for link in self._dirty_links.values():
            self._envelope(link.owner).batches.extend(link.collect(turn.number, self.now_ms))
        self._dirty_links.clear()
        self._transfers.send()
        self._release_idle()
        return turn

    def close_turn(self) -> Turn:
        """The turn as it is to be carried out; the next one begins."""
        turn = self._turn
        if turn.writes:
            self._store.note(turn.writes)
            self._written = turn.number
            for write in turn.writes:
                if write.compact_to is not None:
                    self.groups[write.group].raft.log_compacted()
        self._turn = Turn(turn.number + 1)
        self._touched.update(self._touched_next)
        self._touched_next.clear()
        turn.more = self.has_work()
        return turn

    def has_work(self) -> bool:
        """Whether another `flush` would do something now."""
        return bool(self._touched or self.memory.dirty or self._dirty_links)

    def has_news(self) -> bool:
        """Whether a `flush` would do something now, or tell something: what came in may have been news to nobody."""
        turn = self._turn
        told = turn.envelopes or turn.effects or turn.writes or turn.passed or turn.lost or turn.endings
        return bool(told) or self.has_work() or self._transfers.is_sending

    def _release_idle(self) -> None:
        """What waits for no write need not wait at all."""
        while self._waiting and self._waiting[0].turn <= self._durable:
            self._finish(self._waiting.popleft())

    def _dispatch(self, group: Group, outcome: Outcome) -> None:
        """Put a group's outcome where it belongs in the turn."""
        write = outcome.write
        if write is not None:
            self._turn.writes.append(write)
        if outcome.ready_number or write is not None:
            self._waiting.append(
                _Waiting(
                    turn=self._turn.number if self._turn.writes else self._written,
                    group=group,
                    ready_number=outcome.ready_number,
                    messages=outcome.messages_after_persist,
                    checkpoint=write is not None and write.checkpoint is not None,
                    install=write is not None and write.install is not None,
                )
            )
        self._send(group, outcome.messages)
        for node, batch in outcome.batches:
            if node in self.peers:
                self._envelope(node).batches.append(batch)
        for node, expect in outcome.expects:
            if node != self.node:
                self._envelope(node).expects.append(expect)
            else:
                again = Outcome()
                group.receive_expect(self.node, expect, self.now_ms, again)
                self._dispatch(group, again)
        self._emit(group.id, outcome.effects)
        self._turn.passed += outcome.passed
        if outcome.reset:
            self._turn.resets.append(group.id)
        if outcome.goes_on:
            self._touched_next[group.id] = group
        for peer in outcome.snapshots_wanted:
            self._transfers.offer(group, peer, self.now_ms)

    def _emit(self, group: int, effects: list[Any]) -> None:
        if effects:
            self._turn.effects.append((group, effects))

    def _send(self, group: Group, messages: list[Message]) -> None:
        for message in messages:
            if type(message) is HeartbeatReply and self._can_wait(group.id, message):
                self._later.setdefault(message.target, []).append((group.id, message))
            else:
                self._envelope(message.target).messages.append((group.id, message))

    def _can_wait(self, group: int, reply: HeartbeatReply) -> bool:
        """Whether no read waits for a reply: then it goes with what is sent next, at the next beat at the latest."""
        key = (group, reply.target)
        known, self._answered[key] = self._answered.get(key), reply.token
        return known == reply.token

    def _envelope(self, node: int) -> Envelope:
        envelope = self._turn.envelopes.get(node)
        if envelope is None:
            peer = self.peers[node]
            peer.told_ms = self.now_ms
            envelope = Envelope(self.node, self.options.boot, peer.boot)
            envelope.messages = self._later.pop(node, [])
            self._turn.envelopes[node] = envelope
        return envelope

    # -- the duties of leaders -------------------------------------------------------------------------

    def _end_origins(self) -> None:
        """As a leader, end the streams of processes that are gone or were silent for too long."""
        for group in self.groups.values():
            if not group.leads:
                continue
            for node, epoch in group.origins.alive():
                peer = self.peers.get(node)
                reason = self._end_of(peer, epoch >> EPOCH_SHIFT) if peer is not None else ""
                if not reason:
                    continue
                mark = (epoch, group.raft.term)
                if self._gone_proposed.get((group.id, node)) != mark and group.propose_gone(node, epoch):
                    self._gone_proposed[(group.id, node)] = mark
                    self._turn.endings.append((group.id, node, reason))

    def _give_up_links(self) -> None:
        """What was submitted to the memory of a process that is gone has nobody to answer it, now or later."""
        for node, peer in self.peers.items():
            link = self.links[MEMORY_GROUP + node]
            if link.stream.submitted > link.stream.applied and self._end_of(peer, peer.boot):
                link.stream.restart()
                self._turn.lost.append(link.id)

    def _end_of(self, peer: Peer, boot: int) -> str:
        """Why a process of a peer is taken for dead; empty if it is not."""
        if boot < peer.boot:
            return "it has started anew"
        if peer.ended and boot == peer.boot:
            return "its address refuses connections"
        return "it is silent" if self.now_ms - peer.heard_ms > self.options.silent_ms_max else ""
