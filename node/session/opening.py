"""connection.open on a node that may have slept through changes of the metadata.

A node routes by its own replica and asks nobody, and after a restart that replica is as old as the node was
away: a client would publish past bindings that were made meanwhile, and find exclusive queues of sessions that
ended long ago. So the first ones to come wait for one barrier of the metadata group.
"""

from typing import TYPE_CHECKING

from cluster.types import METADATA_GROUP
from node.errors import ConnectionForced

if TYPE_CHECKING:
    from node.session.session import Session


class Opening:
    """A connection that waits until this node's metadata is current; a `tickets.Waiter`."""

    __slots__ = ("_vhost", "session")

    def __init__(self, session: "Session", vhost: str) -> None:
        self.session = session
        self._vhost = vhost

    def ask(self) -> None:
        """Begin to wait."""
        session = self.session
        ticket = session.tickets.issue(self, METADATA_GROUP, has_deadline=True)
        session.node.barrier(METADATA_GROUP, ticket)

    def answered(self, _value: object) -> None:
        """The metadata is current."""
        self.session.shared.is_current = True
        if not self.session.ended:
            self.session.enter(self._vhost)
            self.session.touch()

    def expired(self) -> None:
        """The node is cut off from the others."""
        self.session.fail(ConnectionForced("this node does not reach a majority of the cluster"))

    def abandoned(self) -> None:
        """The session is about to be closed."""
