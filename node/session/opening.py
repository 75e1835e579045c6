"""Whoever routes here first after a while waits until this node's metadata is current.

A node routes by its own replica and asks nobody. After a restart that replica is as old as the node was away, and
where nobody routes it is told of changes with the next heartbeat only: a client would publish past bindings that
were made meanwhile, and find exclusive queues of sessions that ended long ago. So the first ones to come wait for a
barrier of the metadata group: one for all, for in a minority it passes late, and clients come again and again.
"""

from typing import TYPE_CHECKING

from cluster.types import METADATA_GROUP

if TYPE_CHECKING:
    from node.session.ports import NodePort
    from node.session.session import Session


LINGER_MS = 10_000
"""How long after the last client has left each change is still told at once: the next one may be there soon."""


class CatchUp:
    """Whether this node's metadata has caught up, and is told of each change at once since; and who waits for it."""

    __slots__ = ("_is_current", "_needed_ms", "_node", "_ticket", "_waiting")

    def __init__(self, node: "NodePort") -> None:
        self._is_current = False
        self._node = node
        self._needed_ms = 0
        self._ticket = 0  # of the barrier under way
        self._waiting: dict[int, tuple[Session, str]] = {}  # by connection

    def open(self, session: "Session", vhost: str) -> None:
        """Let a client in, now or as soon as the metadata is current."""
        if self.need():
            session.enter(vhost)
        else:
            self._waiting[session.conn] = (session, vhost)

    def need(self) -> bool:
        """Somebody is about to route: whether the metadata is current. If not it soon is, until `look` lets it go."""
        self._needed_ms = self._node.now_ms()
        if not self._is_current:
            self._ask()
        return self._is_current

    def look(self, *, is_needed: bool) -> None:
        """From time to time: whether there are clients. Whoever sends letters calls `need` each time."""
        if is_needed:
            self._needed_ms = self._node.now_ms()
        elif self._is_current and self._node.now_ms() - self._needed_ms >= LINGER_MS:
            self._is_current = False
            self._node.heed_metadata(is_needed=False)

    def forget(self, session: "Session") -> None:
        """The connection has ended."""
        self._waiting.pop(session.conn, None)

    def passed(self, ticket: int) -> bool:
        """A barrier has passed; whether it was this one."""
        if ticket != self._ticket:
            return False
        self._ticket, self._is_current = 0, True
        waiting, self._waiting = self._waiting, {}
        for session, vhost in waiting.values():
            session.enter(vhost)
            session.touch()
        return True

    def begin_anew(self) -> None:
        """The node was cut off for long; the barrier under way, if there was one, is void."""
        self._ticket, self._is_current = 0, False
        if self._waiting:
            self._ask()

    def _ask(self) -> None:
        if not self._ticket:
            self._node.heed_metadata(is_needed=True)
            self._ticket = self._node.next_id()
            self._node.barrier(METADATA_GROUP, self._ticket)
