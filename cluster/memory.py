"""Groups without a log: queues that live in one node's memory and end with its process.

The owner applies what comes at once. Other nodes send it their streams as they would to a leader, and it
answers with the next number it wants, which also says what is done.
"""

from typing import Any

from cluster.envelope import Batch, Expect
from cluster.machine import Meta, StateMachine
from cluster.origin import HEADER, Origins, OriginStream
from cluster.types import MEMORY_GROUP

RESEND_MS = 1_000


class MemoryGroup:
    """The memory group of this node."""

    def __init__(self, machine: StateMachine, stream: OriginStream) -> None:
        """`stream` is this node's own stream into it."""
        self.id = stream.group
        self.node = stream.node
        self.machine = machine
        self.stream = stream
        self.dirty = False
        self.entries: dict[int, bytes] = {}
        self._origins = Origins()
        self._index = 0
        self._heard: list[int] = []  # nodes to be told how far their streams have come

    def submit(self, parts: tuple[bytes, ...], *, is_patient: bool = False) -> None:
        """One command of this node; see `OriginStream.submit`."""
        self.stream.submit(parts, is_patient=is_patient)
        self.dirty = self.dirty or self.stream.can_form

    def hurry(self) -> None:
        """What nobody waited for has waited long enough, or somebody does now."""
        self.stream.hurry()
        self.dirty = self.dirty or self.stream.can_form

    def receive_batch(self, node: int, data: bytes, ts: int) -> list[Any]:
        """A batch of another node's stream; returns effects."""
        sender, epoch, seq = HEADER.unpack_from(data)
        effects = self._apply(node, epoch, seq, data, ts) if sender == node else []
        if node not in self._heard:
            self._heard.append(node)
        self.dirty = True
        return effects

    def collect(self, turn: int, ts: int) -> tuple[list[Any], list[tuple[int, Expect]]]:
        """This turn's effects, and what to tell other nodes."""
        effects: list[Any] = []
        for batch in self.stream.form(turn):
            effects += self._apply(self.node, self.stream.epoch, batch.seq, batch.data, ts)
            self.stream.accept_applied(batch.seq)
        # A turn forms a bounded number of bytes; nothing from outside would make the rest go on.
        self.dirty = self.stream.can_form
        expects = [(node, Expect(self.id, 0, *self._origins.get(node))) for node in self._heard]
        self._heard.clear()
        return effects, expects

    def _apply(self, node: int, epoch: int, seq: int, data: bytes, ts: int) -> list[Any]:
        if not self._origins.accepts(node, epoch, seq):
            return []
        self._origins.advance(node, epoch, seq)
        self._index += 1
        effects = self.machine.apply(Meta(self._index, ts, node), data, HEADER.size)
        if self._index in self.machine.live():
            self.entries[self._index] = data
        return effects

    def forget_dead(self) -> None:
        """Drop the data of entries that nobody needs. Called when the effects of a turn have been carried out."""
        for index in self.machine.take_dead():
            self.entries.pop(index, None)


class MemoryLink:
    """This node's stream into the memory group of another node."""

    def __init__(self, stream: OriginStream) -> None:
        """`stream` leads to the memory group of `stream.group - MEMORY_GROUP`."""
        self.id = stream.group
        self.owner = stream.group - MEMORY_GROUP
        self.stream = stream
        self.dirty = False
        self.up = False

    def submit(self, parts: tuple[bytes, ...]) -> None:
        """One command for the owner."""
        self.stream.submit(parts)
        self.dirty = True

    def collect(self, turn: int, now_ms: int) -> list[Batch]:
        """Batches to send to the owner now."""
        self.dirty = False
        formed = self.stream.form(turn)
        if formed:
            self.stream.resent_at_ms = now_ms
        return [Batch(self.id, batch.data) for batch in formed] if self.up else []

    def resend(self, now_ms: int) -> list[Batch]:
        """Everything that the owner has not said to have."""
        self.stream.resent_at_ms = now_ms
        return [Batch(self.id, batch.data) for batch in self.stream.pending] if self.up else []

    def overdue(self, now_ms: int) -> bool:
        """Whether the owner has been silent about sent batches for too long."""
        return bool(self.stream.pending) and now_ms - self.stream.resent_at_ms >= RESEND_MS

    def receive_expect(self, expect: Expect) -> None:
        """The owner has carried out everything below `expect.seq`."""
        if expect.epoch == self.stream.epoch:
            self.stream.accept_applied(expect.seq - 1)
            self.dirty = True
