"""Back-pressure: what publishers handed in and no group has applied is bounded, per connection and per node.

A connection over its bound is not read any more, which pushes back on that client by TCP and on nobody else.
Over the node's bound, whoever goes on publishing is not read. Reading goes on below half of the bound, so
that a socket is not switched for every run. What transactions keep is bounded in the same way, but ends with an error.
While the node is short of something (its disk), whoever publishes
is told so by connection.blocked and not read until it is over; consumers that do not publish notice nothing.
"""

from typing import TYPE_CHECKING

from node.session.ports import Output, PauseReading, ResumeReading
from node.wire.methods import ConnectionBlocked, ConnectionUnblocked

if TYPE_CHECKING:
    from node.session.session import Session


class Pressure:
    """Bytes handed in and not applied, of one node.

    Args:
        connection_bytes_max: bound of one connection.
        node_bytes_max: bound of all together.
        outputs: where PauseReading and ResumeReading go.
    """

    __slots__ = (
        "_connection_bytes_max", "_full", "_node_bytes_max", "_outputs", "_told", "kept_bytes", "paused",
        "pending_bytes", "shortage",
    )  # fmt: skip

    def __init__(self, connection_bytes_max: int, node_bytes_max: int, outputs: list[Output]) -> None:
        self._connection_bytes_max = connection_bytes_max
        self._node_bytes_max = node_bytes_max
        self._outputs = outputs
        self._full = False
        self._told: dict[int, Session] = {}  # clients that know of the shortage
        self.shortage: str | None = None
        self.pending_bytes = 0
        self.kept_bytes = 0
        self.paused: dict[int, Session] = {}

    def charge(self, session: "Session", size_bytes: int) -> None:
        """`session` has handed in `size_bytes`."""
        session.pending_bytes += size_bytes
        self.pending_bytes += size_bytes
        if self.pending_bytes > self._node_bytes_max:
            self._full = True
        over = self._full or session.pending_bytes > self._connection_bytes_max
        if self.shortage is not None:
            over = True
            self._tell(session, self.shortage)
        if over and session.conn not in self.paused and not session.ended:
            self.paused[session.conn] = session
            session.amqp.reading_paused = True
            self._outputs.append(PauseReading(session.conn))

    def release(self, session: "Session", size_bytes: int) -> None:
        """`size_bytes` of `session` are applied, or given up."""
        session.pending_bytes -= size_bytes
        self.pending_bytes -= size_bytes
        if self._full and self.pending_bytes * 2 < self._node_bytes_max:
            self._full = False
            for paused in list(self.paused.values()):
                self._resume(paused)
        elif self.paused:
            self._resume(session)

    def keep(self, session: "Session", size_bytes: int) -> bool:
        """Count what waits for a commit. False: there was too much already.

        This does not stop the reading: it could never go on, since the commit is yet to be read.
        """
        is_room = session.kept_bytes <= self._connection_bytes_max and self.kept_bytes <= self._node_bytes_max
        session.kept_bytes += size_bytes
        self.kept_bytes += size_bytes
        return is_room

    def let_go(self, session: "Session", size_bytes: int) -> None:
        """What waited for a commit waits no more."""
        session.kept_bytes -= size_bytes
        self.kept_bytes -= size_bytes

    def set_shortage(self, reason: str | None) -> None:
        """The node is short of something, or (None) no longer."""
        if reason == self.shortage:
            return
        self.shortage = reason
        if reason is None:
            for session in self._told.values():
                session.amqp.send(0, ConnectionUnblocked())
                session.touch()
            self._told.clear()
            for session in list(self.paused.values()):
                self._resume(session)

    def _tell(self, session: "Session", reason: str) -> None:
        if session.conn not in self._told and session.amqp.capabilities.get("connection.blocked") is True:
            self._told[session.conn] = session
            session.amqp.send(0, ConnectionBlocked(reason=reason))
            session.touch()

    def forget(self, session: "Session") -> None:
        """The connection is gone: there is no socket to read from."""
        self.paused.pop(session.conn, None)
        self._told.pop(session.conn, None)

    def _resume(self, session: "Session") -> None:
        if self._full or self.shortage is not None or session.pending_bytes * 2 >= self._connection_bytes_max:
            return
        if self.paused.get(session.conn) is session:
            del self.paused[session.conn]
            session.amqp.reading_paused = False
            self._outputs.append(ResumeReading(session.conn))
