"""All client sessions of one node: the joint between protocol cores and the groups.

    receive -> amqp -> session -> channel -> publish / consume / declare / settle -> NodePort.submit
    on_effects -> tickets (replies, confirms), consumers (deliveries) -> amqp -> take_output -> one Write each

The shell calls in, then takes all output of the turn at once. Nothing here waits; a turn costs as much as
the runs and effects it handles, never as the connections there are.
"""

from typing import TYPE_CHECKING

from cluster.types import MEMORY_GROUP, METADATA_GROUP
from node.amqp.connection import Connection
from node.broker.effects import Cancelled, Deliver, Reply
from node.broker.topology_effects import UserChanged, VhostDeleted
from node.errors import ConnectionForced
from node.session.consume import cancelled
from node.session.deliver import deliver, flush, settle_sent
from node.session.letters import Outlets
from node.session.ports import Close, NodePort, Output, Write
from node.session.session import Session
from node.session.shared import Options, Shared

if TYPE_CHECKING:
    from collections.abc import Iterable

BEAT_MS = 1000
"""How often every connection looks at the clock: the one thing whose cost grows with their number."""


class Frontend:
    """See the module.

    Args:
        options: bounds and rules.
        node: what the sessions may ask of the node.
    """

    __slots__ = ("_next_beat_ms", "_node", "_sessions", "_shared", "letters")

    def __init__(self, options: Options, node: NodePort) -> None:
        self._node = node
        self._shared = Shared(options, node)
        self.letters = Outlets(self._shared)
        self._sessions: dict[int, Session] = {}
        self._next_beat_ms = 0

    # The shell's side: sockets and time

    def connect(self, conn: int, peer: str, *, loopback: bool) -> None:  # noqa: ARG002 - for the admin's listing
        """A socket was accepted. `conn` is the shell's number for it, never used twice."""
        amqp = Connection(self._shared.options.amqp)
        self._sessions[conn] = Session(self._shared, conn, amqp, is_loopback=loopback)

    def disconnect(self, conn: int) -> None:
        """The socket is gone, for whatever reason. Also to be called after a Close."""
        session = self._sessions.pop(conn, None)
        if session is not None:
            self._shared.dirty.pop(conn, None)
            self._shared.stalled.pop(conn, None)
            session.end()

    def receive(self, conn: int, data: bytes) -> None:
        """The client sent bytes."""
        session = self._sessions.get(conn)
        if session is not None:
            session.handle(session.amqp.receive_data(data, self._node.now_ms()))

    def writable(self, conn: int, is_writable: bool) -> None:
        """The socket's buffer has room again, or has none."""
        session = self._sessions.get(conn)
        if session is not None:
            session.set_writable(is_writable=is_writable)
            if is_writable and session.stalled:
                self._shared.stalled[conn] = session

    def tick(self) -> None:
        """Time has passed; a few times a second is enough."""
        self._shared.tickets.expire()
        for consumer in list(self._shared.untold.values()):
            settle_sent(consumer)
        now_ms = self._node.now_ms()
        if now_ms < self._next_beat_ms:
            return
        self._next_beat_ms = now_ms + BEAT_MS
        self._shared.catch_up.look(is_needed=bool(self._sessions))
        for session in list(self._sessions.values()):
            for limit in session.limits.values():
                limit.look()
            events = session.amqp.tick(now_ms)
            if events:
                session.handle(events)
            else:
                session.touch()  # a heartbeat may be due

    def login_result(self, conn: int, user: str | None) -> None:
        """Answer to CheckLogin: the user's name, or None where the password is wrong."""
        session = self._sessions.get(conn)
        if session is not None:
            session.login_result(user)

    def set_shortage(self, reason: str | None) -> None:
        """The node is short of something: publishers wait until this is called with None."""
        self._shared.pressure.set_shortage(reason)

    def close_all(self, text: str) -> None:
        """Close every connection with 320: the node stops."""
        self._force(self._sessions.values(), text)

    @property
    def has_work(self) -> bool:
        """Whether deliveries wait for nothing but the next turn: call `take_output` again soon."""
        return bool(self._shared.stalled)

    @property
    def has_output(self) -> bool:
        """Whether `take_output` would say anything."""
        return bool(self._shared.dirty or self._shared.outputs)

    @property
    def connection_count(self) -> int:
        """Open client connections."""
        return len(self._sessions)

    @property
    def channel_count(self) -> int:
        """Open channels of all connections."""
        return sum(len(session.amqp.channels) for session in self._sessions.values())

    @property
    def pending_bytes(self) -> int:
        """What publishers handed in and no group has applied yet."""
        return self._shared.pressure.pending_bytes

    @property
    def open_tickets(self) -> int:
        """Questions to groups that are not answered yet."""
        return len(self._shared.tickets)

    # The node's side: what the groups have applied

    def on_effects(self, group: int, effects: "Iterable[object]") -> None:
        """What this node's replica of `group` told, in order."""
        answer = self._shared.tickets.answer
        consumers = self._shared.consumers
        for effect in effects:
            kind = type(effect)
            if kind is Reply:
                answer(effect.ticket, effect.value)  # type: ignore[attr-defined]  # narrowed by `kind`
            elif kind is Deliver:
                consumer = consumers.get(effect.consumer)  # type: ignore[attr-defined]
                if consumer is not None:
                    deliver(consumer, effect.slices)  # type: ignore[attr-defined]
            elif kind is Cancelled:
                consumer = consumers.get(effect.consumer)  # type: ignore[attr-defined]
                if consumer is not None:
                    cancelled(consumer)
            elif group == METADATA_GROUP:
                self._on_topology(effect)

    def on_barrier(self, ticket: int) -> None:
        """The replica is current, as `NodePort.barrier` was asked."""
        if not self._shared.catch_up.passed(ticket):
            self._shared.tickets.answer(ticket, None)

    def on_group_reset(self, group: int) -> None:
        """This node's epoch in `group` has ended, with its sessions there: their clients must start anew."""
        if group == METADATA_GROUP:
            self._shared.catch_up.begin_anew()
        self._shared.forget_creations()
        found: dict[int, Session] = {}
        for waiter in self._shared.tickets.take_group(group):
            waiter.abandoned()
            if waiter.session is not None:
                found[waiter.session.id] = waiter.session
        owns_here = group in (METADATA_GROUP, MEMORY_GROUP + self._node.node_id)
        for session in self._sessions.values():
            if (owns_here and session.may_own) or session.is_known_to(group):
                found[session.id] = session
        self._force(found.values(), "the node lost its place in the cluster; connect again")

    def on_group_lost(self, group: int) -> None:
        """The node whose memory `group` was has ended: what was under way to it is gone with its queues."""
        for waiter in self._shared.tickets.take_group(group):
            waiter.answered(0)

    # Output

    def take_output(self) -> list[Output]:
        """Everything the shell has to do, in order: at most one Write a connection."""
        shared = self._shared
        if shared.stalled:
            self._flush_stalled()
        outputs: list[Output] = shared.outputs[:]
        shared.outputs.clear()
        dirty = shared.dirty
        if not dirty:
            return outputs
        room_bytes = shared.options.output_bytes_max
        for conn, session in list(dirty.items()):
            amqp = session.amqp
            chunks = amqp.data_to_send()
            session.room_bytes = room_bytes
            if conn not in self._sessions:
                continue
            if chunks:
                outputs.append(Write(conn, chunks))
                session.sent(chunks)
            if amqp.closing:
                del self._sessions[conn]
                shared.stalled.pop(conn, None)
                session.end()
                outputs.append(Close(conn))
        dirty.clear()
        return outputs

    def _flush_stalled(self) -> None:
        stalled = list(self._shared.stalled.values())
        self._shared.stalled.clear()
        for session in stalled:
            for consumer in list(session.stalled.values()):
                flush(consumer)

    def _on_topology(self, effect: object) -> None:
        if isinstance(effect, VhostDeleted):
            gone = [session for session in self._sessions.values() if session.vhost == effect.name]
            self._force(gone, f"vhost '{effect.name}' is deleted")
        elif isinstance(effect, UserChanged) and effect.deleted:
            gone = [session for session in self._sessions.values() if session.user == effect.name]
            self._force(gone, f"user '{effect.name}' is deleted")

    def _force(self, sessions: "Iterable[Session]", text: str) -> None:
        for session in list(sessions):
            session.fail(ConnectionForced(text))
