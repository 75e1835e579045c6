"""A whole node without IO: the groups, their machines and the client sessions, wired together.

The shells give it bytes, envelopes, ticks and durable turns, and carry out what `flush` returns; a simulator
does the same with many of them in one process. On a message's path it stands between `session` and `cluster`:
what sessions submit goes to the host's origin streams, what the groups apply here goes back to the sessions.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cluster.envelope import Envelope
from cluster.host import Host, HostOptions
from cluster.machine import StateMachine
from cluster.ports import GroupWrite, LogStore
from cluster.turn import Turn
from cluster.types import MEMORY_GROUP, METADATA_GROUP, GroupId
from node.broker import commands, topology_commands
from node.broker.effects import Probed, Reply
from node.broker.memory_queues import MemoryQueueMachine
from node.broker.queue import Duties, QueueMachine
from node.broker.records import OUTSIDE_METADATA, QueueRecord
from node.broker.topology import TopologyMachine
from node.broker.topology_effects import QueueDeleted
from node.session.frontend import Frontend
from node.session.ports import Output
from node.session.rules import shard_config
from node.session.shared import Options as SessionOptions

DUTY_TICKS = 20
"""How often a leader compares its shard with the metadata: about once a second."""
REPAIRS_MAX = 1000
"""Queues created or deleted by one such comparison, in all groups together: some 15 ms of work."""


@dataclass(slots=True)
class CoreTurn:
    """What the shell has to do now, in this order; see cluster.turn.Turn for the numbers."""

    number: int
    envelopes: dict[int, Envelope] = field(default_factory=dict)
    writes: list[GroupWrite] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    more: bool = False
    resets: list[int] = field(default_factory=list)
    endings: list[tuple[int, int, str]] = field(default_factory=list)


class NodeCore:
    """One node, pure. Implements `node.session.ports.NodePort`."""

    def __init__(
        self,
        options: HostOptions,
        sessions: SessionOptions,
        shards: int,
        store: LogStore,
        *,
        draw: Callable[[int, int], int],
        draw_bytes: Callable[[int], bytes],
        now_ms: int,
    ) -> None:
        """Args: shards: how many there are; draw: an integer within bounds; draw_bytes: for names."""
        self.node_id = options.node
        self.topology = TopologyMachine(options.node)
        self.shards = {GroupId(gid): QueueMachine(options.node) for gid in range(1, shards + 1)}
        memory = GroupId(MEMORY_GROUP + options.node)
        self._memory_machine = MemoryQueueMachine(options.node)
        machines: dict[GroupId, StateMachine] = {METADATA_GROUP: self.topology, **self.shards}
        machines[memory] = self._memory_machine
        self.host = Host(options, store, machines, draw, now_ms)
        self.frontend = Frontend(sessions, self)
        self._draw_bytes = draw_bytes
        self._ids = 0
        self._ticks = 0
        self._load: dict[int, int] = dict.fromkeys(self.shards, 0)
        self._leaving: dict[int, None] = {}  # auto-delete queues whose deletion was submitted
        self._repaired: dict[
            int, tuple[int, int]
        ] = {}  # (epoch, commands submitted) up to the last repair of a group
        # Of each other memory group: what its stream will have come to, and the tickets that are answered by then.
        self._handed_over: dict[int, deque[tuple[int, list[int]]]] = {
            group: deque() for group in self.host.links
        }

    # -- NodePort --------------------------------------------------------------------------------------

    def machine(self, group: int) -> QueueMachine | None:
        """The local replica of a shard or of this node's memory group."""
        if group == self.host.memory.id:
            return self._memory_machine
        return self.shards.get(GroupId(group))

    def submit(self, group: int, parts: tuple[bytes, ...], *, is_patient: bool = False) -> None:
        """One command, or several that belong together, onto this node's origin stream of a group."""
        self.host.submit(group, parts, is_patient=is_patient)
        handed_over = self._handed_over.get(group)
        if handed_over is not None and (tickets := commands.tickets(parts)):
            # The owner's machine replies to its own node only; here "carried out" is reply enough.
            handed_over.append((self.host.stream(group).submitted, tickets))

    def has_group(self, group: int) -> bool:
        """Whether this cluster has such a group."""
        return group == METADATA_GROUP or self.machine(group) is not None or group in self.host.links

    def barrier(self, group: int, ticket: int) -> None:
        """`Frontend.on_barrier(ticket)` once the local replica is current."""
        self.host.barrier(group, ticket)

    def heed_metadata(self, *, is_needed: bool) -> None:
        """Whether this node hears of each change of the metadata at once."""
        self.topology.is_needed = is_needed

    def entry_data(self, group: int, index: int) -> bytes:
        """Data of a live entry; KeyError if its row is gone."""
        return self.host.entry_data(group, index)

    def place(self, vhost: str, name: str) -> int:  # noqa: ARG002 - a placement by name could use them
        """The least loaded shard that this node leads, or else the least loaded of all."""
        led = [gid for gid in self._load if self.host.groups[gid].leads] or list(self._load)
        group = min(led, key=lambda gid: (self._load[gid], gid))
        self._load[group] += 1
        return group

    def now_ms(self) -> int:
        """Time of this turn."""
        return self.host.now_ms

    def next_id(self) -> int:
        """A new id for a ticket, session or consumer."""
        self._ids += 1
        return self._ids

    def draw(self, size_bytes: int) -> bytes:
        """Unpredictable bytes."""
        return self._draw_bytes(size_bytes)

    # -- what the shell drives -------------------------------------------------------------------------

    def receive(self, envelope: Envelope) -> None:
        """An envelope of a peer arrived."""
        self.host.receive(envelope)

    def persisted(self, number: int) -> None:
        """The writes of all turns up to this one are durable."""
        self.host.persisted(number)

    def peer_up(self, node: int, boot: int) -> None:
        """A link to a process of the peer stands."""
        self.host.peer_up(node, boot)

    def peer_down(self, node: int, *, refused: bool) -> None:
        """The link broke; `refused`: the peer's process is known to have ended."""
        self.host.peer_down(node, refused=refused)

    def tick(self, now_ms: int) -> None:
        """About 50 ms have passed."""
        self.host.tick(now_ms)
        self.frontend.tick()
        self._do_what_is_due(now_ms)
        self._ticks += 1
        if self._ticks % DUTY_TICKS == 0:
            self._repair()

    def ask_all_if_late(self, now_ms: int) -> bool:
        """See that no commit waits for a node that is slow; whether to call it again in some milliseconds."""
        return self.host.ask_all_if_late(now_ms)

    def has_news(self) -> bool:
        """Whether `flush` would do or tell anything."""
        return self.host.has_news() or self.frontend.has_work or self.frontend.has_output

    def flush(self, now_ms: int) -> CoreTurn:
        """Everything there is to do since the last turn."""
        resets: list[int] = []
        # Twice: what the effects of the first pass lead to needs no envelope, write or turn of its own.
        for _ in range(2):
            turn = self.host.collect(now_ms)
            resets += turn.resets
            self._hand_out(turn)
            if not self.host.has_work():
                break
        self._carry_out_duties()
        outputs = self.frontend.take_output()
        self.host.memory.forget_dead()
        turn = self.host.close_turn()
        more = turn.more or self.frontend.has_work
        return CoreTurn(turn.number, turn.envelopes, turn.writes, outputs, more, resets, turn.endings)

    def _hand_out(self, turn: Turn) -> None:
        """What the groups have come to goes to the sessions."""
        frontend = self.frontend
        for group in turn.lost:
            self._handed_over[group].clear()
            frontend.on_group_lost(group)
        for group in turn.resets:
            frontend.on_group_reset(group)
        for group, effects in turn.effects:
            if group == METADATA_GROUP:
                for effect in effects:
                    if isinstance(effect, QueueDeleted):
                        self._drop_queue(effect.record)
            elif group == self.host.memory.id:
                self._answer_probes(effects)
            frontend.on_effects(group, effects)
        for group, handed_over in self._handed_over.items():
            if handed_over:
                self._reply_handed_over(group, handed_over)
        for ticket in turn.passed:
            frontend.on_barrier(ticket)
        turn.lost, turn.resets, turn.effects, turn.passed = [], [], [], []

    def _answer_probes(self, effects: list[Any]) -> None:
        """Tell other nodes which of the queues that they asked for are in this node's memory."""
        for effect in effects:
            if isinstance(effect, Probed):
                self.host.submit(
                    MEMORY_GROUP + effect.origin, commands.answer(effect.question, effect.is_here)
                )

    def _reply_handed_over(self, group: int, handed_over: deque[tuple[int, list[int]]]) -> None:
        applied = self.host.stream(group).applied
        replies: list[Reply] = []
        while handed_over and handed_over[0][0] <= applied:
            replies += [Reply(ticket, 0) for ticket in handed_over.popleft()[1]]
        if replies:
            self.frontend.on_effects(group, replies)

    # -- metadata is what should be; shards are made to agree -------------------------------------------

    def _drop_queue(self, record: QueueRecord) -> None:
        group = record.group
        machine = self.machine(group)
        self._leaving.pop(record.uid, None)  # one that is expired in its group may now be forgotten there
        answers = group == self.host.memory.id or (group < MEMORY_GROUP and self.host.groups[group].leads)
        # Most were deleted in their group first; one that comes to it late is found by `_repair`.
        if answers and machine is not None and machine.has_queue(record.uid):
            self._forget(group, record.uid)

    def _forget(self, group: int, uid: int) -> None:
        self.host.submit(group, commands.delete_queue(0, uid, if_unused=False, if_empty=False))

    def _carry_out_duties(self) -> None:
        """Unused auto-delete queues leave the metadata, and their shard follows; long assignments go on."""
        if self._memory_machine.has_duties:
            self._see_to(self.host.memory.id, self._memory_machine.duties())
        for gid, machine in self.shards.items():
            if machine.has_duties and self.host.groups[gid].leads:
                self._see_to(gid, machine.duties())
        for group in self.frontend.letters.groups:
            if group < MEMORY_GROUP and not self.host.groups[GroupId(group)].leads:
                self.frontend.letters.leave(group)

    def _do_what_is_due(self, now_ms: int) -> None:
        """Time is part of the log: what is due happens when an entry says that it is."""
        if self.frontend.letters.groups:
            self._carry_out_duties()
        if 0 < self._memory_machine.due_ts <= now_ms:
            self.host.submit(self.host.memory.id, commands.tick())
        for gid, machine in self.shards.items():
            is_due = 0 < machine.due_ts <= now_ms and self.host.groups[gid].leads
            if is_due and not self.host.stream(gid).is_busy:
                self.host.submit(gid, commands.tick())

    def _see_to(self, group: int, duties: Duties) -> None:
        self._leave(group, duties.expired)
        if duties.lettered:
            self.frontend.letters.forward(group, duties.lettered)
        else:
            self.frontend.letters.leave(group)
        if duties.unfinished and not self.host.stream(group).is_busy:
            self.host.submit(group, commands.tick())

    def _leave(self, group: int, uids: list[int]) -> None:
        known_index = self.host.groups[METADATA_GROUP].applied
        for uid in uids:
            # Of a queue that is newer than the metadata here nobody can say yet whether it is still wanted.
            is_new = not uid & OUTSIDE_METADATA and uid >> 16 > known_index
            if uid in self._leaving or is_new:
                continue
            self._leaving[uid] = None
            if self.topology.queue_by_uid(uid) is not None:
                self.host.submit(METADATA_GROUP, topology_commands.delete_queue(0, uid))
            else:
                self._forget(group, uid)

    def _repair(self) -> None:
        """Make what this node answers for agree with the metadata: the shards that it leads, and its own memory."""
        self._leaving.clear()
        left = REPAIRS_MAX
        for gid, machine in self.shards.items():
            self._load[gid] = len(self.topology.uids_in(gid))
            if self.host.groups[gid].leads:
                left -= self._repair_group(gid, machine, left)
                self._forget_sources(gid, machine)
        # The end of this node's own epoch takes its exclusive queues out of the metadata without a word to it.
        self._repair_group(self.host.memory.id, self._memory_machine, left)

    def _forget_sources(self, group: int, machine: QueueMachine) -> None:
        """Queues that are deleted send no more dead letters: which ones came need not be known any longer."""
        known_index = self.host.groups[METADATA_GROUP].applied
        for uid in machine.source_uids()[:REPAIRS_MAX]:
            if uid >> 16 <= known_index and self.topology.queue_by_uid(uid) is None:
                self.host.submit(group, commands.forget_source(uid))

    def _repair_group(self, group: int, machine: QueueMachine, most: int) -> int:
        """Create what the metadata has and a shard lacks, delete what it no longer has; returns how many.

        Where both have the same queues it costs one look-up each: an idle node may have very many.
        """
        wanted, present = self.topology.uids_in(group), machine.queue_uids()
        stream = self.host.stream(group)
        if wanted == present or (stream.epoch, stream.applied) < self._repaired.get(group, (0, 0)):
            return 0
        known_index = self.host.groups[METADATA_GROUP].applied
        # Only who declared an exclusive queue may create it: its session may have ended.
        lacking = sorted(wanted - present)[:most] if group in self.shards else []
        left_over = [
            uid for uid in sorted(present - wanted) if not uid & OUTSIDE_METADATA and uid >> 16 <= known_index
        ]
        left_over = left_over[: most - len(lacking)]
        for uid in lacking:
            record = self.topology.queue_by_uid(uid)
            assert record is not None, "uids_in names queues that are there"
            self.host.submit(group, commands.create_queue(0, uid, shard_config(record)))
        for uid in left_over:
            self._forget(group, uid)
        self._repaired[group] = (stream.epoch, stream.submitted)
        return len(lacking) + len(left_over)
