"""What a Raft core wants done: persist, send, apply. And the roles a member can have.

The order is the contract. In one `Ready`: `messages` may leave at once; `install`, `truncate_from`, `entries`
and `hard_state` go into ONE transaction; `messages_after_persist` leave when that transaction and all
earlier ones of the group are durable, which the host reports by `Raft.on_persisted(number)`.
"""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

from cluster.raft.rpc import Message
from cluster.types import Entry, HardState, SnapshotMeta


class Role(IntEnum):
    """Raft figure 4, with the pre-vote's stage in between."""

    FOLLOWER = 0
    PRE_CANDIDATE = 1
    CANDIDATE = 2
    LEADER = 3


MAY_BECOME: dict[Role, tuple[Role, ...]] = {
    Role.FOLLOWER: (Role.FOLLOWER, Role.PRE_CANDIDATE, Role.CANDIDATE),
    Role.PRE_CANDIDATE: (Role.FOLLOWER, Role.PRE_CANDIDATE, Role.CANDIDATE),
    Role.CANDIDATE: (Role.FOLLOWER, Role.PRE_CANDIDATE, Role.LEADER),
    Role.LEADER: (Role.FOLLOWER,),
}
"""Which role may follow which. A follower becomes a candidate directly only when its leader asks for it."""


class SoftState(NamedTuple):
    """What a member believes just now; not stored. `leader` 0: unknown."""

    leader: int
    term: int
    role: Role


@dataclass(slots=True)
class ReadState:
    """An answered read: once `index` is applied, the local state is at least as new as the question."""

    token: int
    index: int


@dataclass(slots=True)
class Ready:
    """One numbered batch of work of one group.

    Args:
        number: rises by one with each Ready of the group since its start.
        soft_state: None if unchanged since the last Ready.
        hard_state: to store; None if it need not be. A commit index that rose alone waits for the next write:
            it is only a hint after a restart, except that it must be as new as the entries stored with it.
        snapshot: install the staged state of this position: it replaces the whole log and the state machine.
        truncate_from: delete every stored entry at or above this index before storing `entries`.
        entries: to store, ascending, contiguous, may be empty.
        messages: may leave at once.
        messages_after_persist: leave when this Ready and all before it are durable.
        committed: to apply, in order; durable here. Call `on_applied` as they are done.
        read_states: answers to `read_index`.
        snapshots_wanted: peers whose next entry is compacted: ship them the newest saved state, then call
            `report_snapshot`.
    """

    number: int
    soft_state: SoftState | None = None
    hard_state: HardState | None = None
    snapshot: SnapshotMeta | None = None
    truncate_from: int | None = None
    entries: list[Entry] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    messages_after_persist: list[Message] = field(default_factory=list)
    committed: list[Entry] = field(default_factory=list)
    read_states: list[ReadState] = field(default_factory=list)
    snapshots_wanted: list[int] = field(default_factory=list)

    @property
    def must_sync(self) -> bool:
        """Whether there is anything to write; if not, it is durable as soon as the Readys before it are."""
        return bool(
            self.entries
            or self.hard_state is not None
            or self.snapshot is not None
            or self.truncate_from is not None
        )
