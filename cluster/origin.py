"""Origin streams: all that a node's sessions command a group to do, exactly once and in order.

A node has one stream per group. It gathers the commands of a turn into a batch, numbers the batches of an
epoch 1, 2, 3 ..., and keeps each until it sees it applied on its own replica. The group's leader accepts the
next number only, so the log holds a stream in order; apply accepts the next number only, so what a change of
leader wrote twice counts once (Raft dissertation 6.3, with a node in the place of a client). An epoch ends
when the node's process ends, when the group declares the node gone, or when the node had to install a
snapshot; what was not applied by then never is.
"""

import struct
from collections import deque
from dataclasses import dataclass, field

HEADER = struct.Struct(">HQQ")
"""The head of a batch: node, epoch, seq."""
GONE = struct.Struct(">HQ")
"""The data of an ORIGIN_GONE entry: node, epoch."""
_ROW = struct.Struct(">QQ")

BATCH_BYTES_MAX = 256 * 1024
"""A batch closes when it would pass this, so that one live message keeps at most this much of a log's rows.
A single command may be larger and then stands alone."""
TURNS_UNDER_WAY_MAX = 3
"""Turns whose batches are not applied yet. More would only make batches smaller: what comes meanwhile is gathered."""
BATCH_BESIDE_BYTES_MIN = 16 * 1024
"""What was gathered while a turn is under way waits for its end unless it is so much: a round of consensus costs
as much for one message as for a hundred, and on a busy node two small ones at once make both slower."""
UNAPPLIED_BYTES_MAX = 8 * 1024 * 1024
"""Formed batches of one stream that are not applied yet: what a leader may hold of one node and group."""

ENDED = 0
"""The seq of an epoch that ended: no batch has it, so none is accepted."""


@dataclass(slots=True)
class PendingBatch:
    """A formed batch. `upto` is the number of commands submitted up to its end, in this epoch."""

    seq: int
    turn: int
    upto: int
    data: bytes


@dataclass(slots=True)
class OriginStream:
    """The sending end of this node's stream into one group."""

    node: int
    group: int
    epoch: int
    next_seq: int = 1
    submitted: int = 0
    applied: int = 0
    pending_bytes: int = 0
    leader: int = 0  # who asked for the stream with an Expect; 0: nobody yet, keep everything
    resent_at_ms: int = 0
    pending: deque[PendingBatch] = field(default_factory=deque)
    _parts: list[bytes] = field(default_factory=list)
    _ends: list[tuple[int, int]] = field(default_factory=list)  # (parts, bytes) after each gathered command
    _bytes: int = 0
    _unapplied_bytes: int = 0
    _turns_under_way: int = 0  # how many turns the pending batches are of
    _is_urgent: bool = False  # somebody waits for what was gathered

    @property
    def has_gathered(self) -> bool:
        """Whether commands wait to be formed into a batch."""
        return bool(self._ends)

    @property
    def is_busy(self) -> bool:
        """Whether commands are under way that need nothing more to be applied, or will be when there is a leader."""
        return bool(self.pending) or self._is_urgent

    @property
    def can_form(self) -> bool:
        """Whether `form` would make batches now."""
        if not self._turns_under_way:
            return self._is_urgent
        is_worth_it = self._is_urgent and self._bytes >= BATCH_BESIDE_BYTES_MIN
        return is_worth_it and self._turns_under_way < TURNS_UNDER_WAY_MAX

    def hurry(self) -> None:
        """What was gathered has waited long enough, or somebody waits for it now."""
        self._is_urgent = bool(self._ends)

    def submit(self, parts: tuple[bytes, ...], *, is_patient: bool = False) -> None:
        """Gather one command; it becomes part of a batch in a later `form`.

        Args:
            is_patient: it does not make a batch by itself, but goes with one that is made for another command, or
                after `hurry`.
        """
        if not is_patient:
            self._is_urgent = True
        self._parts.extend(parts)
        size = 0
        for part in parts:
            size += len(part)
        self._bytes += size
        self.pending_bytes += size
        self._ends.append((len(self._parts), self._bytes))
        self.submitted += 1

    def form(self, turn: int) -> list[PendingBatch]:
        """Close what was gathered into numbered batches, unless enough is under way already."""
        if not self.can_form:
            return []
        formed: list[PendingBatch] = []
        start = start_bytes = done = 0
        first_command = self.submitted - len(self._ends)
        count = len(self._ends)
        while done < count and self._unapplied_bytes < UNAPPLIED_BYTES_MAX:
            last = done
            while last + 1 < count and self._ends[last + 1][1] - start_bytes <= BATCH_BYTES_MAX:
                last += 1
            end, end_bytes = self._ends[last]
            head = HEADER.pack(self.node, self.epoch, self.next_seq)
            data = b"".join([head, *self._parts[start:end]])
            batch = PendingBatch(self.next_seq, turn, first_command + last + 1, data)
            formed.append(batch)
            self.next_seq += 1
            self._unapplied_bytes += len(data)
            start, start_bytes, done = end, end_bytes, last + 1
        if formed and not (self.pending and self.pending[-1].turn == turn):
            self._turns_under_way += 1
        self.pending.extend(formed)
        if done == count:
            self._parts, self._ends, self._bytes = [], [], 0
            self._is_urgent = False
        else:
            self._parts = self._parts[start:]
            self._ends = [(parts - start, size - start_bytes) for parts, size in self._ends[done:]]
            self._bytes -= start_bytes
        return formed

    def accept_applied(self, seq: int) -> None:
        """All batches up to seq are applied on this node."""
        while self.pending and self.pending[0].seq <= seq:
            batch = self.pending.popleft()
            size = len(batch.data)
            self._unapplied_bytes -= size
            self.pending_bytes -= size - HEADER.size
            self.applied = batch.upto
            if not self.pending or self.pending[0].turn != batch.turn:
                self._turns_under_way -= 1

    def from_seq(self, seq: int) -> list[PendingBatch]:
        """The formed batches from seq on, in order: what a new leader must be sent."""
        return [batch for batch in self.pending if batch.seq >= seq]

    def restart(self) -> None:
        """The epoch ended: forget everything and begin the next."""
        self.epoch += 1
        self.next_seq = 1
        self.submitted = self.applied = 0
        self.pending_bytes = self._bytes = self._unapplied_bytes = 0
        self.pending.clear()
        self._turns_under_way = 0
        self._parts, self._ends = [], []
        self._is_urgent = False


class Origins:
    """The receiving end in apply: what each node's stream has come to. Part of the replicated state."""

    __slots__ = ("_dirty", "_streams")

    def __init__(self) -> None:
        self._streams: dict[int, tuple[int, int]] = {}
        self._dirty: set[int] = set()

    def get(self, node: int) -> tuple[int, int]:
        """(epoch, next seq) of a node; (0, ENDED) if it never spoke."""
        return self._streams.get(node, (0, ENDED))

    def accepts(self, node: int, epoch: int, seq: int) -> bool:
        """Whether this batch is the next one of its node. Does not change anything."""
        known, expected = self.get(node)
        return seq == expected if epoch == known else epoch > known and seq == 1

    def advance(self, node: int, epoch: int, seq: int) -> None:
        """The batch was accepted."""
        self._streams[node] = (epoch, seq + 1)
        self._dirty.add(node)

    def end(self, node: int, epoch: int) -> bool:
        """The epoch ends; False if it is not the node's present one or has ended already."""
        known, expected = self.get(node)
        if epoch != known or expected == ENDED:
            return False
        self._streams[node] = (epoch, ENDED)
        self._dirty.add(node)
        return True

    def alive(self) -> list[tuple[int, int]]:
        """(node, epoch) of every stream that has not ended, by node."""
        return [(node, epoch) for node, (epoch, seq) in sorted(self._streams.items()) if seq != ENDED]

    def rows(self, *, full: bool) -> list[tuple[bytes, bytes | None]]:
        """Rows of the streams that changed since the last call, or of all."""
        nodes = sorted(self._streams if full else self._dirty)
        self._dirty.clear()
        return [(node.to_bytes(2, "big"), _ROW.pack(*self._streams[node])) for node in nodes]

    def restore(self, rows: list[tuple[bytes, bytes]]) -> None:
        """Become what the rows say."""
        self._streams = {}
        for key, value in rows:
            epoch, seq = _ROW.unpack(value)
            self._streams[int.from_bytes(key, "big")] = (epoch, seq)
        self._dirty.clear()


class Intake:
    """What a leader expects next of each stream: ahead of apply by what it has proposed in this term."""

    __slots__ = ("_expected",)

    def __init__(self) -> None:
        self._expected: dict[int, tuple[int, int]] = {}

    def begin(self, origins: Origins, nodes: tuple[int, ...]) -> None:
        """The leader has applied an entry of its own term, so nothing of earlier terms is left unapplied."""
        self._expected = {node: origins.get(node) for node in nodes}

    def get(self, node: int) -> tuple[int, int]:
        """(epoch, seq) wanted next of a node."""
        return self._expected.get(node, (0, ENDED))

    def accepts(self, node: int, epoch: int, seq: int) -> bool:
        """Whether this batch may go into the log now; if so, the next one is expected from here on."""
        known, expected = self.get(node)
        if not (seq == expected if epoch == known else epoch > known and seq == 1):
            return False
        self._expected[node] = (epoch, seq + 1)
        return True

    def refused(self, node: int, epoch: int, seq: int) -> None:
        """The log did not take the batch after all: it is expected again."""
        self._expected[node] = (epoch, seq)
