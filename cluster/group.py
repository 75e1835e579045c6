"""One group on this node: its Raft core, its machine, and this node's stream of commands into it.

`collect` is the group's share of a turn: batches are formed and proposed or sent to the leader, the Raft core
says what to write, send and apply, and what was committed is applied. Nothing here waits or does IO; reads of
the log go through the store's synchronous view.
"""

from dataclasses import dataclass, field
from typing import Any

from cluster.envelope import Batch, Expect
from cluster.machine import Meta, StateMachine
from cluster.origin import GONE, HEADER, Intake, Origins, OriginStream
from cluster.ports import GroupWrite, LogStore
from cluster.raft.core import Raft
from cluster.raft.ready import Ready
from cluster.raft.rpc import Message
from cluster.types import Entry, EntryKind, HardState, SnapshotMeta

CHECKPOINT_BYTES = 8 * 1024 * 1024
"""Log applied since the last checkpoint that makes a new one worth its cost. As much stays for slow members."""
CHECKPOINT_ENTRIES = 20_000
"""The same for logs of small entries: what a restart replays."""
CALM_TICKS = 10
"""A group looks back after so many: if nothing was applied in between, it is saved,"""
CALM_BYTES = 256 * 1024
"""but not for less than this, which a restart applies in no time."""
TRIMS_MAX = 512
"""Rows deleted per group and turn: many at once would make a commit slow and its free list large."""
BARRIER_RETRY_MS = 500
"""A read that was not answered by then may be lost with its leader, and is asked again under a new token."""
ASK_AGAIN_MS = 100
"""Least time between two requests for what was refused: each makes a node send all of its stream that waits."""

ORIGIN_ROWS = b"o"
MACHINE_ROWS = b"m"


@dataclass(slots=True)
class Barrier:
    """Someone waits until this replica is current."""

    ticket: int
    submitted: int  # own commands that must be applied first
    first_token: int = 0  # of its first read; whatever answers that or a later one was asked after it began
    token: int = 0  # of the read under way, 0: none
    asked_at_ms: int = 0
    index: int = 0  # what must be applied; 0: not known yet


@dataclass(slots=True)
class Outcome:
    """What a group's share of a turn came to, beside what goes through Raft."""

    write: GroupWrite | None = None
    ready_number: int = 0
    messages: list[Message] = field(default_factory=list)
    messages_after_persist: list[Message] = field(default_factory=list)
    batches: list[tuple[int, Batch]] = field(default_factory=list)  # (leader, batch)
    expects: list[tuple[int, Expect]] = field(default_factory=list)
    effects: list[Any] = field(default_factory=list)
    passed: list[int] = field(default_factory=list)  # tickets of barriers
    snapshots_wanted: list[int] = field(default_factory=list)
    reset: bool = False
    goes_on: bool = False  # there is more, but what this says is to be carried out before


class Group:
    """One replicated group on this node."""

    def __init__(
        self,
        raft: Raft,
        machine: StateMachine,
        store: LogStore,
        stream: OriginStream,
        touched: dict[int, "Group"],
    ) -> None:
        """The machine is restored from the store's saved state; `raft` starts at its position.

        Args:
            touched: the host's; the groups that have something to do in the next turn.
        """
        self.id = stream.group
        self.node = stream.node
        self.raft = raft
        self.machine = machine
        self.stream = stream
        self.origins = Origins()
        self.intake = Intake()
        self.applied = 0
        self.applied_term = 0
        self.last_ts = 0
        self._touched = touched
        self.held = False  # a snapshot of this group is being sent: no checkpoint, no trim
        self.busy = False  # a checkpoint is on its way to the disk
        self._store = store
        self.staged: list[tuple[bytes, bytes]] = []  # rows of a snapshot that came whole
        self.installing = False  # they are on their way to the disk
        self.installs = 0  # how often this replica became what another member had saved
        self.offered_ms = 0  # when leadership was last offered to the node that should have it
        self.resend_mark = 0  # the oldest batch when resending was last thought of
        self._ready_term = 0  # the term in which this node leads and has applied an entry of its own
        self._put_off: list[Entry] = []  # committed, to be applied in the next turn
        self._barriers: list[Barrier] = []
        self._next_token = 1
        self._refused: dict[int, int] = {}  # nodes whose batch the log did not take, with its bytes
        self._asked_again_ms = 0
        self._expected: tuple[int, int, int, int] = (0, 0, 0, 0)  # the last Expect acted upon
        self._bytes_since = self._entries_since = self._unsaved_bytes = 0
        self._applied_before = 0  # when this group looked back last
        self._is_calm = False  # nothing was applied since
        self._checkpoint = SnapshotMeta(0, 0, 0, raft.configuration, machine.version)
        self._forgettable = self._checkpoint  # what the log may begin with when enough has followed
        self._trims: list[int] = []
        self._load()

    @property
    def leads(self) -> bool:
        """Whether this node leads the group and has applied an entry of its own term."""
        return self.raft.is_leader and self._ready_term == self.raft.term

    @property
    def checkpoint_meta(self) -> SnapshotMeta:
        """The newest saved state."""
        return self._checkpoint

    def _load(self) -> None:
        """Restore machine and streams from the saved rows, and find rows that nobody needs any more."""
        view = self._store.view(self.id)
        meta = view.snapshot_meta()
        rows = list(self._store.rows(self.id))
        cut = len(ORIGIN_ROWS)
        self.origins.restore([(k[cut:], v) for k, v in rows if k.startswith(ORIGIN_ROWS)])
        self.machine.restore([(k[cut:], v) for k, v in rows if k.startswith(MACHINE_ROWS)])
        self.applied, self.applied_term, self.last_ts = meta.index, meta.term, meta.ts
        self._checkpoint = self._forgettable = meta
        live = self.machine.live()
        compacted = view.first_index() - 1
        self._trims = [i for i in self._store.stored_below(self.id, compacted) if i not in live]
        self.machine.take_dead()
        self._bytes_since = self._entries_since = self._unsaved_bytes = 0

    # -- what others ask of the group ------------------------------------------------------------------

    def touch(self) -> None:
        """There may be something to do: have a share of the next turn."""
        self._touched[self.id] = self

    def submit(self, parts: tuple[bytes, ...], *, is_patient: bool = False) -> None:
        """One command for this group, on this node's stream.

        Args:
            is_patient: nobody waits for it, so it goes with the next command that somebody waits for, or after a tick.
        """
        self.stream.submit(parts, is_patient=is_patient)
        if self.stream.can_form:
            self.touch()

    def barrier(self, ticket: int) -> None:
        """The ticket comes back in `Outcome.passed` once this replica is current (Raft dissertation 6.4)."""
        self._barriers.append(Barrier(ticket, self.stream.submitted))
        self.stream.hurry()
        self.touch()

    def receive_batch(self, node: int, data: bytes, outcome: Outcome) -> None:
        """A batch of another node's stream: propose it if it is the next one, or say which one is."""
        sender, epoch, seq = HEADER.unpack_from(data)
        if sender == node and self.leads:
            self._take_batch(node, epoch, seq, data, outcome)
            self.touch()

    def _take_batch(self, node: int, epoch: int, seq: int, data: bytes, outcome: Outcome) -> None:
        if self.intake.accepts(node, epoch, seq):
            index = self.raft.propose(EntryKind.BATCH, [data])
            if index is None:
                self.intake.refused(node, epoch, seq)
                self._refused[node] = len(data)
                return
            if self._refused:
                self._refused.pop(node, None)
            if node != self.node:
                self.raft.peer_waits(node, index)
            return
        known, expected = self.intake.get(node)
        if epoch > known or seq > expected:
            outcome.expects.append((node, Expect(self.id, self.raft.term, known, expected)))

    def _ask_again(self, now_ms: int, outcome: Outcome) -> None:
        """Ask for what was refused, once a hand-over has failed or there is room, lest it wait to be overdue."""
        if not self.leads:
            self._refused.clear()
        elif now_ms - self._asked_again_ms >= ASK_AGAIN_MS:
            wanted = [node for node, size in self._refused.items() if self.raft.has_room(size)]
            if wanted:
                self._asked_again_ms = now_ms
                outcome.expects.extend((node, self.expect_of(node)) for node in wanted)

    def receive_expect(self, leader: int, expect: Expect, now_ms: int, outcome: Outcome) -> None:
        """The leader is ready for this node's stream from a seq on: send all that is not applied."""
        stream = self.stream
        said = (leader, expect.term, expect.epoch, expect.seq)
        if expect.term < self.raft.term:
            return
        repeated = said == self._expected and now_ms - stream.resent_at_ms < ASK_AGAIN_MS // 2
        stream.leader = leader
        if not repeated:
            self._expected = said
            self.resend(expect.seq if expect.epoch == stream.epoch else 1, now_ms, outcome)

    def resend(self, seq: int, now_ms: int, outcome: Outcome) -> None:
        """Send the stream's batches from seq on again, to whoever asked for the stream last."""
        self.stream.resent_at_ms = now_ms
        for batch in self.stream.from_seq(seq):
            self._send_batch(batch.seq, batch.data, outcome)
        self.touch()

    def _send_batch(self, seq: int, data: bytes, outcome: Outcome) -> None:
        if self.stream.leader != self.node:
            outcome.batches.append((self.stream.leader, Batch(self.id, data)))
        elif self.leads:
            self._take_batch(self.node, self.stream.epoch, seq, data, outcome)

    def propose_gone(self, node: int, epoch: int) -> bool:
        """As the leader: the process behind a stream has ended. False: not taken now, propose it again."""
        self.touch()
        return self.raft.propose(EntryKind.ORIGIN_GONE, [GONE.pack(node, epoch)]) is not None

    # Heartbeats and their answers are all that an idle group has to say: they are handed out at once, without a
    # share of a turn, which costs several times as much.

    def step(self, message: Message) -> list[Message]:
        """A Raft message of another member; returns what to send."""
        raft = self.raft
        raft.step(message)
        messages = raft.take_messages()
        if raft.has_ready():
            self.touch()
        return messages

    def tick(self) -> list[Message]:
        """A tick has passed; most bring nothing to do. Returns what to send."""
        raft = self.raft
        raft.tick()
        messages = raft.take_messages()
        if raft.ticks % CALM_TICKS == self.id % CALM_TICKS:
            self._look_back()
        if self.stream.has_gathered:
            self.stream.hurry()
            self.touch()
        elif self._barriers or self._refused or raft.has_ready():
            self.touch()
        return messages

    # -- a turn ----------------------------------------------------------------------------------------

    def collect(self, turn: int, now_ms: int, outcome: Outcome) -> None:
        """This group's share of a turn: at most one Ready."""
        if self._put_off:
            self._apply(self._put_off, outcome)
            self._put_off = []
        stream = self.stream
        if stream.leader != self.raft.leader:
            stream.leader = 0
        for batch in stream.form(turn):
            if stream.leader:
                self._send_batch(batch.seq, batch.data, outcome)
        if self._barriers:
            self._ask_barriers(now_ms)
        if self.raft.has_ready():
            self._carry_out(self.raft.ready(), outcome)
        if self._barriers:
            self._pass_barriers(outcome)
        if self._refused:
            self._ask_again(now_ms, outcome)
        self._housekeeping(outcome)
        self.raft.is_lazy = not (stream.pending or self._barriers or self.machine.serves())
        if self.raft.has_ready():
            self.touch()

    def _carry_out(self, ready: Ready, outcome: Outcome) -> None:
        outcome.ready_number = ready.number
        outcome.messages = ready.messages
        outcome.messages_after_persist = ready.messages_after_persist
        outcome.snapshots_wanted = ready.snapshots_wanted
        if ready.must_sync:
            write = self._write(outcome)
            if ready.snapshot is not None:
                write.install, write.install_rows = ready.snapshot, self.staged
                write.install_applied = self.applied
                self.installing = True
            write.truncate_from = ready.truncate_from
            write.entries = ready.entries
            write.hard_state = ready.hard_state
        for state in ready.read_states:
            for barrier in self._barriers:
                if barrier.first_token <= state.token <= barrier.token and not barrier.index:
                    barrier.index = state.index
        if ready.entries and self._can_wait(ready.committed):
            # The leader waits for these entries to be durable; for what is applied here nobody waits as much.
            self._put_off = ready.committed
            outcome.goes_on = True
        elif ready.committed:
            self._apply(ready.committed, outcome)

    def _can_wait(self, committed: list[Entry]) -> bool:
        """Not a change of members: it must be in force before Raft takes its next step."""
        return bool(committed) and not (
            self.raft.is_leader or any(entry.kind == EntryKind.MEMBERSHIP for entry in committed)
        )

    def _write(self, outcome: Outcome) -> GroupWrite:
        if outcome.write is None:
            outcome.write = GroupWrite(self.id)
        return outcome.write

    def _apply(self, entries: list[Entry], outcome: Outcome) -> None:
        for entry in entries:
            assert entry.index == self.applied + 1 and entry.ts >= self.last_ts
            self.applied, self.applied_term, self.last_ts = entry.index, entry.term, entry.ts
            self._bytes_since += len(entry.data)
            self._unsaved_bytes += len(entry.data)
            self._entries_since += 1
            if entry.kind == EntryKind.BATCH:
                self._apply_batch(entry, outcome)
            elif entry.kind == EntryKind.MEMBERSHIP:
                self.raft.apply_membership(entry)
            elif entry.kind == EntryKind.ORIGIN_GONE:
                self._apply_gone(entry, outcome)
            if self._ready_term != entry.term and entry.term == self.raft.term and self.raft.is_leader:
                self._begin_leading(outcome)
        self.raft.on_applied(self.applied)

    def _apply_batch(self, entry: Entry, outcome: Outcome) -> None:
        node, epoch, seq = HEADER.unpack_from(entry.data)
        if not self.origins.accepts(node, epoch, seq):
            return
        meta = Meta(entry.index, entry.ts, node)
        known, expected = self.origins.get(node)
        if known != epoch and expected:
            self._emit(self.machine.origin_gone(meta), outcome)
        self.origins.advance(node, epoch, seq)
        effects = self.machine.apply(meta, entry.data, HEADER.size)
        if node == self.node and epoch == self.stream.epoch:
            self.stream.accept_applied(seq)
            if self.stream.can_form or self._barriers:
                self.touch()
        self._emit(effects, outcome)

    def _apply_gone(self, entry: Entry, outcome: Outcome) -> None:
        node, epoch = GONE.unpack(entry.data)
        if not self.origins.end(node, epoch):
            return
        self._refused.pop(node, None)
        effects = self.machine.origin_gone(Meta(entry.index, entry.ts, node))
        if node != self.node:
            self._emit(effects, outcome)
        elif epoch == self.stream.epoch:
            self._reset(outcome)

    def _emit(self, effects: list[Any], outcome: Outcome) -> None:
        """Effects concern the sessions of this epoch: those of a replay, before its first batch, are history."""
        if effects and self.origins.get(self.node)[0] == self.stream.epoch:
            outcome.effects.extend(effects)

    def _reset(self, outcome: Outcome) -> None:
        self.stream.restart()
        self.submit(())  # an empty batch: the new epoch begins without waiting for a client
        self._barriers.clear()
        outcome.effects.clear()
        outcome.reset = True

    def _begin_leading(self, outcome: Outcome) -> None:
        self._ready_term = self.raft.term
        members = self.raft.configuration.voters + self.raft.configuration.learners
        self.intake.begin(self.origins, members)
        for node in members:
            outcome.expects.append((node, self.expect_of(node)))

    def expect_of(self, node: int) -> Expect:
        """What this leader wants next of a node's stream."""
        return Expect(self.id, self.raft.term, *self.intake.get(node))

    # -- reads -----------------------------------------------------------------------------------------

    def _ask_barriers(self, now_ms: int) -> None:
        token = 0
        for barrier in self._barriers:
            if barrier.index or self.stream.applied < barrier.submitted:
                continue
            if barrier.token and now_ms - barrier.asked_at_ms < BARRIER_RETRY_MS:
                continue
            if not token:
                token = self._next_token
                self._next_token += 1
                self.raft.read_index(token)
            barrier.token, barrier.asked_at_ms = token, now_ms
            barrier.first_token = barrier.first_token or token

    def _pass_barriers(self, outcome: Outcome) -> None:
        waiting: list[Barrier] = []
        for barrier in self._barriers:
            if barrier.index and barrier.index <= self.applied:
                outcome.passed.append(barrier.ticket)
            else:
                waiting.append(barrier)
        self._barriers = waiting

    # -- compaction ------------------------------------------------------------------------------------

    def _look_back(self) -> None:
        """A group that has come to rest is saved: a restart then has nothing to apply."""
        self._is_calm = self.applied == self._applied_before and self._unsaved_bytes >= CALM_BYTES
        if self._is_calm:
            self.touch()
        self._applied_before = self.applied

    def _housekeeping(self, outcome: Outcome) -> None:
        if self.held or self.busy or self.installing:
            return
        if self._bytes_since >= CHECKPOINT_BYTES or self._entries_since >= CHECKPOINT_ENTRIES:
            self._save(outcome)
            self._forget(outcome)
        elif self._is_calm:
            first = self._store.view(self.id).first_index()
            self._save(outcome)
            self._find_trims(first, first - 1)
        elif self._trims:
            self._write(outcome).trims = self._trims[:TRIMS_MAX]
            del self._trims[:TRIMS_MAX]
            if self._trims:
                self.touch()

    def _save(self, outcome: Outcome) -> None:
        """Save the state as it is now."""
        self._checkpoint = SnapshotMeta(
            self.applied, self.applied_term, self.last_ts, self.raft.configuration, self.machine.version
        )
        write = self._write(outcome)
        write.checkpoint = self._checkpoint
        write.checkpoint_rows = [(ORIGIN_ROWS + k, v) for k, v in self.origins.rows(full=False)]
        write.checkpoint_rows += [(MACHINE_ROWS + k, v) for k, v in self.machine.checkpoint(full=False)]
        write.hard_state = HardState(self.raft.term, self.raft.voted_for, self.raft.commit)
        self.busy = True
        self._is_calm = False
        self._unsaved_bytes = 0

    def _forget(self, outcome: Outcome) -> None:
        """With a checkpoint the log may forget all up to the one before it that was not for a rest."""
        previous, self._forgettable = self._forgettable, self._checkpoint
        write = self._write(outcome)
        first = self._store.view(self.id).first_index()
        if previous.index >= first:
            write.compact_to, write.compact_term = previous.index, previous.term
        self._bytes_since = self._entries_since = 0
        self._find_trims(first, previous.index)

    def _find_trims(self, first: int, compact_to: int) -> None:
        """Rows that Raft is about to forget, or forgot, and that are dead in the state being saved may go after it.

        Not earlier: a restart or a lagging member begins from the saved state, in which they may be alive.
        """
        live = self.machine.live()
        gone = {index for index in range(first, compact_to + 1) if index not in live}
        gone.update(index for index in self.machine.take_dead() if index <= compact_to)
        self._trims = sorted(gone.union(self._trims))

    def saved(self) -> None:
        """The checkpoint is durable."""
        self.busy = False
        self.touch()

    def installed(self, outcome: Outcome) -> None:
        """The store holds another member's state, durably: become it."""
        self.staged, self.installing = [], False
        self.installs += 1
        self._load()
        self.raft.on_applied(self.applied)
        self._reset(outcome)
        self.touch()
