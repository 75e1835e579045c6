"""One ordered stream of envelopes to a peer: what waits to be written, bounded in bytes.

Two lanes lead to each peer, on connections of their own, so that a vote or a heartbeat never stands behind
megabytes of entries. All appends, batches and snapshot parts keep to the bulk lane: two appends that overtake
each other cost a round of probing (Raft 5.3), also if the second has no entries and tells a commit index only.
"""

import asyncio
from collections import deque
from typing import NamedTuple

from cluster.envelope import Envelope
from cluster.raft.rpc import AppendEntries

LANE_BYTES_MAX = 64 << 20
"""Waiting for one peer. Above it envelopes are dropped: Raft and the origin streams send again."""
MERGE_BYTES_MAX = 1 << 20
"""Envelopes that wait are joined up to this size: gRPC costs about 0.1 ms a message, whatever its size."""
RIDE_BYTES_MAX = 256 << 10
"""Control messages ride along with bulk up to this size while nothing waits: one gRPC message, not two."""
ITEM_BYTES = 64
"""What an item of an envelope is counted for, beside its data."""


class Parted(NamedTuple):
    """An envelope by lanes, with the bytes of each part; an empty part is None."""

    control: Envelope | None
    control_bytes: int
    bulk: Envelope | None
    bulk_bytes: int


def part(envelope: Envelope) -> Parted:
    """Take the bulk out of an envelope, which becomes the control part."""
    bulky: list[tuple[int, AppendEntries]] = []
    size = 0
    for group, message in envelope.messages:
        if isinstance(message, AppendEntries):
            bulky.append((group, message))
            size += ITEM_BYTES + sum([len(entry.data) + ITEM_BYTES for entry in message.entries])
    if not bulky and not envelope.batches and not envelope.parts:
        return Parted(envelope, _control_bytes(envelope), None, 0)
    bulk = Envelope(envelope.sender, envelope.boot, envelope.to_boot)
    bulk.messages.extend(bulky)
    bulk.batches, bulk.parts = envelope.batches, envelope.parts
    size += sum([len(batch.data) + ITEM_BYTES for batch in bulk.batches])
    for made in bulk.parts:
        size += sum([len(data) + ITEM_BYTES for _, _, _, _, data in made.entries])
        size += sum([len(key) + len(value) + ITEM_BYTES for key, value in made.rows])
    envelope.batches, envelope.parts = [], []
    if bulky:
        envelope.messages = [item for item in envelope.messages if not isinstance(item[1], AppendEntries)]
    rest = _control_bytes(envelope)
    return Parted(envelope if rest else None, rest, bulk, size)


def merge(target: Envelope, more: Envelope) -> None:
    """Append what `more` says to `target`; both are from one process to one process."""
    target.messages.extend(more.messages)
    target.batches.extend(more.batches)
    target.expects.extend(more.expects)
    target.offers.extend(more.offers)
    target.accepts.extend(more.accepts)
    target.parts.extend(more.parts)
    target.part_replies.extend(more.part_replies)


def _control_bytes(envelope: Envelope) -> int:
    items = len(envelope.messages) + len(envelope.expects) + len(envelope.offers)
    return ITEM_BYTES * (items + len(envelope.accepts) + len(envelope.part_replies))


class Lane:
    """Envelopes on their way to one peer."""

    def __init__(self, bytes_max: int = LANE_BYTES_MAX) -> None:
        self.bytes_max = bytes_max
        self.bytes = 0
        self.writing = False  # the newest envelope taken is not handed to gRPC yet
        self._waiting: deque[tuple[int, Envelope]] = deque()
        self._filled = asyncio.Event()

    @property
    def is_idle(self) -> bool:
        """Nothing waits and nothing is being written."""
        return not self._waiting and not self.writing

    def put(self, envelope: Envelope, size: int) -> bool:
        """Let an envelope wait for its turn; False: there is no room, it is dropped."""
        if self._waiting and self.bytes + size > self.bytes_max:
            return False
        self._waiting.append((size, envelope))
        self.bytes += size
        self._filled.set()
        return True

    async def take(self) -> Envelope:
        """The next envelope, joined with those behind it as far as they fit."""
        self.writing = False
        while not self._waiting:
            self._filled.clear()
            await self._filled.wait()
        self.writing = True
        total, envelope = self._waiting.popleft()
        self.bytes -= total
        while self._waiting:
            size, following = self._waiting[0]
            if total + size > MERGE_BYTES_MAX or following.to_boot != envelope.to_boot:
                break
            self._waiting.popleft()
            self.bytes -= size
            total += size
            merge(envelope, following)
        return envelope

    def clear(self) -> None:
        """Forget what waits: the link is broken."""
        self._waiting.clear()
        self.bytes = 0
        self.writing = False
