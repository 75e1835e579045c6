"""Groups without a log: queues that live in one node's memory and end with its process.

The owner applies what comes at once. Other nodes send it their streams as they would to a leader, and it
answers with the next number it wants, which also says what is done.
"""

from collections import deque
from typing import Any

from cluster.envelope import Batch, Expect
from cluster.machine import Meta, StateMachine
from cluster.origin import BATCH_BYTES_MAX, HEADER, Origins, OriginStream
from cluster.types import MEMORY_GROUP

RESEND_MS = 1_000
TURN_BYTES_MAX = 8 * 1024 * 1024
"""Commands of this node that are carried out in one turn; one more batch always is."""
FORGET_ENTRIES = 4_096
"""Nobody saves this group. After so many entries what its machine has noted for a checkpoint is thrown away."""


class MemoryGroup:
    """The memory group of this node.

    What the node's own sessions submit cannot get lost on the way, so it needs no numbers: it is gathered to batches as
    an `OriginStream` does, and applied.

    Attributes:
        epoch: of this node's commands; it never ends before the process.
        submitted, applied: how many of this node's commands were.
        dirty: there is something to do in a turn.
        entries: data of the entries that are needed, by index.
    """

    def __init__(self, machine: StateMachine, node: int, epoch: int) -> None:
        self.id = MEMORY_GROUP + node
        self.node = node
        self.epoch = epoch
        self.submitted = self.applied = 0
        self.machine = machine
        self.dirty = False
        self.entries: dict[int, bytes] = {}
        self._origins = Origins()
        self._index = self._forgotten = 0
        self._heard: list[int] = []  # nodes to be told how far their streams have come
        self._batches: deque[tuple[int, bytes]] = deque()  # commands submitted up to its end, data
        self._parts: list[bytes] = []  # of the batch that is gathered
        self._bytes = 0

    @property
    def is_busy(self) -> bool:
        """Whether the next turn applies what was gathered."""
        return self.dirty

    def submit(self, parts: tuple[bytes, ...], *, is_patient: bool = False) -> None:
        """One command of this node; `is_patient` as for `Group.submit`."""
        size = 0
        for part in parts:
            size += len(part)
        if self._bytes + size > BATCH_BYTES_MAX:
            self._close()
        self._parts += parts
        self._bytes += size
        self.submitted += 1
        if not is_patient:
            self.dirty = True

    def _close(self) -> None:
        if self._parts:
            self._batches.append((self.submitted, b"".join(self._parts)))
            self._parts, self._bytes = [], 0

    def hurry(self) -> None:
        """What was patient has waited long enough, or somebody waits for it now."""
        if self._parts:
            self.dirty = True

    def receive_batch(self, node: int, data: bytes, ts: int) -> list[Any]:
        """A batch of another node's stream; returns effects."""
        sender, epoch, seq = HEADER.unpack_from(data)
        effects: list[Any] = []
        if sender == node and self._origins.accepts(node, epoch, seq):
            self._origins.advance(node, epoch, seq)
            effects = self._apply(node, data, HEADER.size, ts)
        if node not in self._heard:
            self._heard.append(node)
        self.dirty = True
        return effects

    def collect(self, ts: int) -> tuple[list[Any], list[tuple[int, Expect]]]:
        """This turn's effects, and what to tell other nodes."""
        self._close()
        effects: list[Any] = []
        size = 0
        while self._batches and size < TURN_BYTES_MAX:
            upto, data = self._batches.popleft()
            size += len(data)
            effects += self._apply(self.node, data, 0, ts)
            self.applied = upto
        # A turn has a bounded number of bytes; nothing from outside would make the rest go on.
        self.dirty = bool(self._batches)
        if not self._heard:
            return effects, []
        expects = [(node, Expect(self.id, 0, *self._origins.get(node))) for node in self._heard]
        self._heard.clear()
        return effects, expects

    def _apply(self, node: int, data: bytes, offset: int, ts: int) -> list[Any]:
        self._index += 1
        effects = self.machine.apply(Meta(self._index, ts, node), data, offset)
        if self._index in self.machine.live():
            self.entries[self._index] = data
        return effects

    def forget_dead(self) -> None:
        """Drop the data of entries that nobody needs. Called when the effects of a turn have been carried out."""
        for index in self.machine.take_dead():
            self.entries.pop(index, None)
        if self._index - self._forgotten >= FORGET_ENTRIES:
            self._forgotten = self._index
            self.machine.checkpoint(full=False)


class MemoryLink:
    """This node's stream into the memory group of another node."""

    def __init__(self, stream: OriginStream, dirty: "dict[int, MemoryLink]") -> None:
        """`stream` leads to the memory group of `stream.group - MEMORY_GROUP`.

        Args:
            dirty: the host's; the links that have something to do in the next turn.
        """
        self.id = stream.group
        self.owner = stream.group - MEMORY_GROUP
        self.stream = stream
        self._dirty = dirty
        self.up = False

    def submit(self, parts: tuple[bytes, ...]) -> None:
        """One command for the owner."""
        self.stream.submit(parts)
        self._dirty[self.id] = self

    def collect(self, turn: int, now_ms: int) -> list[Batch]:
        """Batches to send to the owner now."""
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
            self._dirty[self.id] = self
