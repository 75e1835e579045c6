"""What a leader knows of one peer, and how much it may send it (Raft 5.3; flow control is ours).

PROBE: where the logs match is not known; one message, then wait for an answer or a heartbeat's answer.
REPLICATE: `next_index` runs ahead of the answers, up to a window of messages and of bytes.
SNAPSHOT: what the peer needs is compacted; nothing is sent until its saved state has been shipped.
Invariant: match_index < next_index.
"""

from collections import deque
from enum import Enum

NEVER = -1 << 62


class Flow(Enum):
    """How a peer is fed."""

    PROBE = 0
    REPLICATE = 1
    SNAPSHOT = 2


class Progress:
    """One peer in the eyes of the leader of one term.

    Args:
        peer: its node id.
        next_index: first guess, the leader's last index + 1.
        is_active: whether it was heard from since the leader last checked its quorum.
    """

    __slots__ = (
        "awaited_index",
        "commit_sent",
        "fed_bytes",
        "flow",
        "id",
        "inflight_bytes",
        "inflights",
        "is_active",
        "is_lazy",
        "is_paused",
        "match_index",
        "next_index",
        "snapshot_index",
        "wants_echo",
    )

    def __init__(self, peer: int, next_index: int, *, is_active: bool = False) -> None:
        self.id = peer
        self.flow = Flow.PROBE
        self.match_index = 0
        self.next_index = next_index
        self.is_active = is_active
        self.is_lazy = False  # nobody waits there for what is committed
        self.is_paused = False  # PROBE: the one message is out
        self.wants_echo = (
            False  # send an append even if there is nothing to send: its answer shows what was lost
        )
        self.awaited_index = 0  # of the newest entry that came from there
        self.commit_sent = 0
        self.fed_bytes = NEVER  # what the leader had made in its term when nothing was left to send
        self.snapshot_index = 0
        self.inflights: deque[tuple[int, int]] = deque()  # (last index, bytes) of each append not answered
        self.inflight_bytes = 0

    def become_probe(self, *, paused: bool = False, shipped: bool = False) -> None:
        """Find out again where the logs match; after a shipped snapshot, from there on."""
        self.next_index = (max(self.match_index, self.snapshot_index) if shipped else self.match_index) + 1
        self._enter(Flow.PROBE)
        self.is_paused = paused

    def become_replicate(self) -> None:
        """The logs match up to match_index: send without waiting."""
        self.next_index = self.match_index + 1
        self._enter(Flow.REPLICATE)

    def become_snapshot(self, index: int) -> None:
        """Wait until the saved state of `index` or newer has been shipped."""
        self._enter(Flow.SNAPSHOT)
        self.snapshot_index = index

    def _enter(self, flow: Flow) -> None:
        self.flow = flow
        self.is_paused = self.wants_echo = False
        self.commit_sent = self.snapshot_index = 0
        self.fed_bytes = NEVER
        self.inflights.clear()
        self.inflight_bytes = 0  # with the window, or the peer would look busy for ever

    def sent(self, last_index: int, size_bytes: int) -> None:
        """Entries up to last_index left in REPLICATE."""
        self.next_index = last_index + 1
        self.inflights.append((last_index, size_bytes))
        self.inflight_bytes += size_bytes

    def accepted(self, index: int) -> bool:
        """The peer's log matches up to `index`, durably; whether that is news."""
        inflights = self.inflights
        while inflights and inflights[0][0] <= index:
            self.inflight_bytes -= inflights.popleft()[1]
        if index >= self.next_index:
            self.next_index = index + 1
        if index <= self.match_index:
            return False
        self.match_index = index
        return True

    def rejected(self, index: int, next_index: int) -> bool:
        """The peer's log does not match at `index`; try `next_index`. False: a late rejection, ignored."""
        if self.flow is Flow.REPLICATE:
            if index <= self.match_index:
                return False
            self.become_probe()
            return True
        if self.flow is Flow.SNAPSHOT or index != self.next_index - 1:
            return False
        self.next_index = max(min(index, next_index), self.match_index + 1)
        self.is_paused = False
        return True
