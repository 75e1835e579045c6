"""One client connection: from its login to the last thing that it leaves behind.

Takes the events of the protocol core, hands those of a channel to its `ChannelSession`, and answers for the
connection as a whole: login, vhost, bounds, its exclusive queues, its end.
"""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from cluster.types import METADATA_GROUP
from node.amqp.events import (
    ChannelClosed,
    ChannelClosing,
    ChannelOpened,
    ConnectionClosed,
    ConnectionClosing,
    Event,
    Login,
    Open,
    Publish,
    Request,
    Settle,
)
from node.broker import commands, topology_commands
from node.errors import AmqpError
from node.session.channel import ChannelSession
from node.session.deliver import settle_sent
from node.session.ports import CheckLogin
from node.session.publish import charged_bytes
from node.wire.methods import ConnectionOpen

if TYPE_CHECKING:
    from node.amqp import Connection
    from node.session.deliver import Consumer
    from node.session.prefetch import ChannelLimit
    from node.session.shared import Shared


class Freeing:
    """Waits for a group to free what it held for a client that says goodbye.

    Args:
        session: of the client.
        done: what to do then.
    """

    __slots__ = ("_done", "session")

    def __init__(self, session: "Session", done: Callable[[], None]) -> None:
        self.session = session
        self._done = done

    def answered(self, _value: object) -> None:
        """It is free."""
        self._done()

    def expired(self) -> None:
        """There is no deadline: the core has one for the goodbye as a whole."""
        raise AssertionError

    def abandoned(self) -> None:
        """No answer will come: the connection is closed for it."""


class Session:
    """The broker's side of one connection.

    Args:
        shared: what all connections of the node share.
        conn: the shell's number for the socket.
        amqp: the protocol core.
        is_loopback: True: the client is on this host.
    """

    __slots__ = (
        "_beginning",
        "_closing",
        "_unread_bytes",
        "amqp",
        "channels",
        "conn",
        "ended",
        "id",
        "is_loopback",
        "kept_bytes",
        "limits",
        "may_own",
        "node",
        "pending_bytes",
        "plans",
        "room_bytes",
        "shared",
        "stalled",
        "tickets",
        "user",
        "vhost",
        "writable",
    )  # fmt: skip

    def __init__(self, shared: "Shared", conn: int, amqp: "Connection", *, is_loopback: bool) -> None:
        self.shared = shared
        self.node = shared.node
        self.tickets = shared.tickets
        self.conn = conn
        self.amqp = amqp
        self.is_loopback = is_loopback
        self.id = shared.node.next_id()
        self.user = ""
        self.vhost = ""
        self.plans = shared.plans_of("", "")
        self.ended = False
        self._closing: ConnectionClosing | None = None
        self._beginning: deque[ChannelSession] = deque()
        self.kept_bytes = 0  # in transactions
        self.limits: dict[int, ChannelLimit] = {}  # by channel, where one was ever set
        self.may_own = False  # True: it has asked for an exclusive queue
        self.channels: dict[int, ChannelSession] = {}
        self.pending_bytes = 0
        self.writable = True
        self._unread_bytes = 0  # sent to a socket that had no room
        self.room_bytes = shared.options.output_bytes_max
        self.stalled: dict[int, Consumer] = {}  # consumers with deliveries that are not written yet

    # Events

    def handle(self, events: list[Event]) -> None:
        """Do what the client asked, in its order."""
        for event in events:
            if self.ended:
                break
            kind = type(event)
            if kind is Publish or kind is Settle or kind is Request:
                channel: ChannelSession = event.channel.session  # type: ignore[union-attr]  # narrowed by `kind`
                if channel.gone:
                    continue
                if kind is Publish:
                    self.charge(charged_bytes(event.runs))  # type: ignore[union-attr]
                channel.handle(event)  # type: ignore[arg-type]
            else:
                self._control(event)
        if self.amqp.has_output:
            self.touch()

    def login_result(self, user: str | None) -> None:
        """The shell has checked the password: the user's name, or None."""
        if self.ended:
            return
        if user is None:
            self.amqp.login_refused("")
        else:
            self.user = user
            self.amqp.login_accepted(user)
            self.handle(self._held_back())
        self.touch()

    def fail(self, error: AmqpError) -> None:
        """Close the connection and give up all that it has not finished."""
        if not self.ended:
            self.amqp.fail(error)
            self.touch()
        self._stop()
        channels = list(self.channels.values())
        for channel in channels:
            channel.gone = True
        for channel in channels:
            channel.close()
        self._finish()

    def end(self) -> None:
        """The client has gone: finish what it sent, answer nothing, free the rest."""
        if self.ended:
            return
        self._stop()
        for channel in list(self.channels.values()):
            channel.leave()
        self._finish()

    def channel_closed(self, channel: ChannelSession) -> None:
        """A channel has nothing more to do."""
        if self.channels.pop(channel.id, None) is None:
            return
        self.free(channel, is_awaited=False)
        self._finish()

    def free(self, channel: ChannelSession, *, is_awaited: bool) -> None:
        """Free what a channel holds, here and in the groups.

        Args:
            channel: which gets no deliveries any more.
            is_awaited: what the groups have to do is under way for the channel until they have done it.
        """
        self.limits.pop(channel.id, None)
        for consumer in channel.consumers.values():
            self.shared.consumers.pop(consumer.id, None)
            self.stalled.pop(consumer.id, None)
            settle_sent(consumer)
            if consumer.backlog:
                # No failure of the client, who never saw it. Detached first, lest it be assigned again.
                unsent = commands.unsent(consumer.id, consumer.take_unsent(0))
                self.node.submit(consumer.group, commands.detach(0, consumer.id) + unsent)
        channel.consumers.clear()
        for group in channel.groups:
            ticket = 0
            if is_awaited:
                channel.under_way += 1
                freeing = Freeing(self, channel.one_done)
                ticket = self.tickets.issue(freeing, group, has_deadline=False)
            self.node.submit(group, commands.close_session(ticket, channel.id))
        channel.groups.clear()

    def begin(self, channel: ChannelSession) -> None:
        """A channel that has waited for its number may begin. One may end at once and let the next begin, and so on."""
        self._beginning.append(channel)
        if len(self._beginning) == 1:
            while self._beginning:
                self._beginning[0].answered(None)
                self._beginning.popleft()

    def is_known_to(self, group: int) -> bool:
        """Whether a channel has a session in the group."""
        return any(group in channel.groups for channel in self.channels.values())

    # Bounds

    def charge(self, size_bytes: int) -> None:
        """The client has handed in `size_bytes`."""
        self.shared.pressure.charge(self, size_bytes)

    def release(self, size_bytes: int) -> None:
        """`size_bytes` of what the client handed in are done with."""
        self.shared.pressure.release(self, size_bytes)

    def send_frames(self, channel: ChannelSession, frames: bytes) -> None:
        """Send messages to the client."""
        channel.amqp.send_content(frames)
        self.room_bytes -= len(frames)
        self.touch()

    def sent(self, chunks: list[bytes]) -> None:
        """These go to the socket now.

        What goes to one without room (answers, returned messages) counts as handed in by the client: one that
        asks and does not read is not read either.
        """
        if not self.writable and not self.ended:
            size_bytes = sum([len(chunk) for chunk in chunks])
            self._unread_bytes += size_bytes
            self.charge(size_bytes)

    def set_writable(self, *, is_writable: bool) -> None:
        """The socket has room again, or has none."""
        self.writable = is_writable
        if is_writable and self._unread_bytes:
            unread_bytes, self._unread_bytes = self._unread_bytes, 0
            self.release(unread_bytes)

    def touch(self) -> None:
        """There may be something to send to the client."""
        self.shared.dirty[self.conn] = self

    def _control(self, event: Event) -> None:
        match event:
            case ChannelOpened(channel, before):
                opened = ChannelSession(self, channel)
                channel.session = opened
                self.channels[opened.id] = opened
                opened.open(before.session if before is not None else None)
            case ChannelClosing(channel):
                if not channel.session.gone:
                    channel.session.handle(event)
            case ChannelClosed(channel):
                channel.session.leave()
            case Login(mechanism, user, password):
                self._login(mechanism, user, password)
            case Open(vhost):
                self._open(vhost)
            case ConnectionClosing():
                self._close(event)
            case ConnectionClosed():
                self.end()
            case _:
                msg = f"unexpected event {event!r}"
                raise AssertionError(msg)

    def _login(self, mechanism: str, user: str, password: str) -> None:
        if user in self.shared.options.loopback_users and not self.is_loopback:
            self.login_result(None)
            return
        self.shared.outputs.append(CheckLogin(self.conn, mechanism, user, password))

    def _open(self, vhost: str) -> None:
        self.shared.catch_up.open(self, vhost)

    def enter(self, vhost: str) -> None:
        """Let the client into a vhost, or close the connection."""
        error = self.node.topology.check_vhost_access(self.user, vhost)
        if error is not None:
            error.class_id, error.method_id = ConnectionOpen.class_id, ConnectionOpen.method_id
            self.fail(error)
            return
        self.vhost = vhost
        self.plans = self.shared.plans_of(vhost, self.user)
        self.amqp.open_accepted()
        self.handle(self._held_back())

    def _held_back(self) -> list[Event]:
        """What the client sent while the core waited for an answer of ours."""
        return self.amqp.receive_data(b"", self.node.now_ms())

    def _close(self, closing: ConnectionClosing) -> None:
        """Say goodbye once all channels have done what they were asked before."""
        self._closing = closing
        is_wished = closing.error is None
        channels = list(self.channels.values())
        for channel in channels:
            channel.handle(ChannelClosing(channel.amqp, None) if is_wished else ChannelClosed(channel.amqp))
        if not channels:
            self._finish()

    def _finish(self) -> None:
        """Once the connection is to end and its last channel is done, its exclusive queues go, and then the client."""
        if self.channels or not (self.ended or self._closing):
            return
        if self.may_own:
            self.may_own = False
            ticket = 0
            if not self.ended and self._closing is not None and self._closing.error is None:
                freeing = Freeing(self, self._say_goodbye)
                ticket = self.tickets.issue(freeing, METADATA_GROUP, has_deadline=False)
            self.node.submit(METADATA_GROUP, topology_commands.close_session(ticket, self.id))
            if ticket:
                return
        self._say_goodbye()

    def _say_goodbye(self) -> None:
        if not self.ended:
            self._stop()
            self.amqp.finish()
            self.touch()

    def _stop(self) -> None:
        """From here on no event counts, and no bound is kept for its sake."""
        self.ended = True
        self.stalled.clear()
        self.set_writable(is_writable=True)
        self.shared.pressure.forget(self)
        self.shared.catch_up.forget(self)
