"""The questions that this node's sessions have put to groups and that are not answered yet.

Each command that wants a reply carries a ticket; the effect that answers names it. A ticket is answered at
most once: after its deadline, or once its asker has gone, a late reply finds nobody and is dropped.
"""

from collections import deque
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from node.session.ports import NodePort
    from node.session.session import Session


class Waiter(Protocol):
    """Who gets the answer."""

    @property
    def session(self) -> "Session | None":
        """The client connection that waits; None: the node itself does."""

    def answered(self, value: object) -> None:
        """The reply's value, as the machine gave it."""

    def expired(self) -> None:
        """The deadline has passed; the ticket is void."""

    def abandoned(self) -> None:
        """The group will never answer, and the connection is about to be closed for it."""


class Tickets:
    """Open tickets of one node, by number.

    Args:
        node: gives the numbers and the time.
        timeout_ms: how long a ticket with a deadline stays open.
    """

    __slots__ = ("_deadlines", "_node", "_open", "_timeout_ms")

    def __init__(self, node: "NodePort", timeout_ms: int) -> None:
        self._node = node
        self._timeout_ms = timeout_ms
        self._open: dict[int, tuple[Waiter, int]] = {}
        # One timeout for all, and a clock that never falls: the order of issue is the order of expiry.
        self._deadlines: deque[tuple[int, int]] = deque()

    def __len__(self) -> int:
        return len(self._open)

    def issue(self, waiter: Waiter, group: int, *, has_deadline: bool) -> int:
        """A new ticket for one question to `group`."""
        ticket = self._node.next_id()
        self._open[ticket] = (waiter, group)
        if has_deadline:
            self._deadlines.append((self._node.now_ms() + self._timeout_ms, ticket))
        return ticket

    def answer(self, ticket: int, value: object) -> None:
        """Hand a reply to its waiter, if it still waits."""
        found = self._open.pop(ticket, None)
        if found is not None:
            found[0].answered(value)

    def drop(self, ticket: int) -> None:
        """Nobody wants this answer any more."""
        self._open.pop(ticket, None)

    def expire(self) -> None:
        """End what has waited for too long."""
        now_ms = self._node.now_ms()
        deadlines = self._deadlines
        while deadlines and (deadlines[0][0] <= now_ms or deadlines[0][1] not in self._open):
            found = self._open.pop(deadlines.popleft()[1], None)
            if found is not None:
                found[0].expired()

    def take_group(self, group: int) -> list[Waiter]:
        """Void all tickets of a group; returns their waiters in the order of issue."""
        void = [(ticket, waiter) for ticket, (waiter, asked) in self._open.items() if asked == group]
        for ticket, _ in void:
            del self._open[ticket]
        return [waiter for _, waiter in void]
