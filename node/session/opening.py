"""connection.open on a node that may have slept through changes of the metadata.

A node routes by its own replica and asks nobody, and after a restart that replica is as old as the node was
away: a client would publish past bindings that were made meanwhile, and find exclusive queues of sessions that
ended long ago. So the first ones to come wait for a barrier of the metadata group: one for all, for in a minority
it passes late, and clients come again and again.
"""

from typing import TYPE_CHECKING

from cluster.types import METADATA_GROUP

if TYPE_CHECKING:
    from node.session.ports import NodePort
    from node.session.session import Session


class CatchUp:
    """Whether this node's metadata has caught up since its process, or its epoch, began; and who waits for it."""

    __slots__ = ("_is_current", "_node", "_ticket", "_waiting")

    def __init__(self, node: "NodePort") -> None:
        self._node = node
        self._is_current = False
        self._ticket = 0  # of the barrier under way
        self._waiting: dict[int, tuple[Session, str]] = {}  # by connection

    def open(self, session: "Session", vhost: str) -> None:
        """Let a client in, now or as soon as the metadata is current."""
        if self._is_current:
            session.enter(vhost)
            return
        self._waiting[session.conn] = (session, vhost)
        self._ask()

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
            self._ticket = self._node.next_id()
            self._node.barrier(METADATA_GROUP, self._ticket)
