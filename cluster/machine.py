"""What a replicated state machine offers to the cluster, and what it is told.

The cluster never looks into commands: to it they are bytes. A machine is driven only by `apply` and
`origin_gone`, in log order, on every member, so it must be deterministic: no clock, no chance, no set
order. All that a machine wants done outside of itself it returns as effects.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol


class Meta(NamedTuple):
    """Where a batch of commands stands: the only source of ids and of time in `apply`.

    Args:
        index: index of the log entry; together with an offset in its data it names a message.
        ts: leader's time in milliseconds, never falling.
        origin: the node that submitted the batch.
    """

    index: int  # type: ignore[assignment]  # the word of the log; tuple.index is not used
    ts: int
    origin: int


Row = tuple[bytes, bytes | None]
"""A row of saved state: key and value, or None where the row is gone."""


class StateMachine(Protocol):
    """A replicated state machine. `apply` is total: no command of a client makes it raise."""

    version: int

    def apply(self, meta: Meta, data: bytes, offset: int) -> list[Any]:
        """Run the commands in `data[offset:]`; returns the effects that concern this node."""

    def origin_gone(self, meta: Meta) -> list[Any]:
        """The process that was `meta.origin` has ended, with all its sessions."""

    def serves(self) -> bool:
        """Whether a session of this node has state here, and so wants to know at once what is committed."""

    def live(self) -> Mapping[int, int]:
        """Index of every log entry whose data is still needed, with the number of its uses."""

    def take_dead(self) -> list[int]:
        """Indexes that left `live()` since the last call."""

    def checkpoint(self, *, full: bool) -> list[Row]:
        """The rows that changed since the last call (all rows if `full`)."""

    def restore(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Become the state that the rows describe, forgetting what was."""
