"""The server's side of one connection: bytes in, events out; replies in, bytes out (AMQP 2.2.4, 4.2.2 to
4.2.7).

Owns the channels, turns a SoftError into channel.close and a HardError into connection.close. Does no IO and
knows no queue. Whatever a client sends, nothing is raised out of `receive_data`.
"""

from node.amqp import handshake, states
from node.amqp.buffer import ReceiveBuffer, frame_end
from node.amqp.channel import Channel, Farewell, Shared
from node.amqp.events import (
    ChannelClosed,
    ChannelOpened,
    ConnectionClosed,
    ConnectionClosing,
    Event,
    Login,
    Open,
)
from node.amqp.handshake import Options
from node.amqp.states import CONNECTION_STEPS, ENDED, IGNORING, WAITING, ChannelState, ConnectionState
from node.errors import (
    AccessRefused,
    AmqpError,
    ChannelError,
    FrameError,
    HardError,
    NotAllowed,
    UnexpectedFrame,
)
from node.limits import (
    CLOSE_TIMEOUT_MS,
    HANDSHAKE_TIMEOUT_MS,
    HEARTBEATS_MISSED_MAX,
    INITIAL_FRAME_MAX_BYTES,
    LEAVING_TIMEOUT_MS,
    SILENT_CLOSE_MS,
    UNREAD_BYTES_MAX,
)
from node.wire.codec import ACK, BODY, ERROR, HEADER, HEARTBEAT, METHOD, PUBLISH, Item, scan
from node.wire.content_header import frame_fault
from node.wire.methods import (
    ConnectionClose,
    ConnectionCloseOk,
    ConnectionOpen,
    ConnectionOpenOk,
    ConnectionStartOk,
    ConnectionTuneOk,
    ConnectionUpdateSecretOk,
    Method,
    decode_method,
    method_frame,
)
from node.wire.primitives import Table, erlang_bytes

_HEARTBEAT_FRAME = b"\x08\x00\x00\x00\x00\x00\x00\xce"
_FRAME_TYPES = {METHOD: 1, PUBLISH: 1, ACK: 1, HEADER: 2, BODY: 3, HEARTBEAT: 8}
_OCTETS_SHOWN = 16
_STREAMING = (ConnectionState.RUNNING, ConnectionState.LEAVING, ConnectionState.CLOSING)


class Connection:
    """The protocol state of one client connection, from the first byte to the last.

    After each call that may have made output, take it with `data_to_send`; when `closing` is true, close the
    socket after that output has gone.

    Args:
        options: what the operator decided.

    Attributes:
        state: see `states.ConnectionState`.
        failed: the session has called `fail` with an error that ended the connection: it skips events that
            come after.
        channels: channels by number, but for those that the client has closed.
        frame_max: the negotiated size in bytes, 0 for no limit; for `wire.content_frames`.
        channel_max: the negotiated number of channels, 0 for no limit.
        heartbeat_ms: the negotiated interval, 0 for none.
        client_properties, capabilities: what the client said of itself; empty until Login.
        mechanism: what the client logs in with.
        reading_paused: set by whoever stops reading the socket, so that the silence is not held against the
            client.
    """

    __slots__ = (
        "_buffer", "_closing_at_ms", "_farewell", "_first_ms", "_is_deaf", "_options", "_received_ms",
        "_run_bytes_max", "_sent_ms", "_shared", "capabilities", "channel_max", "channels", "client_properties",
        "failed", "frame_max", "heartbeat_ms", "mechanism", "reading_paused", "state",
    )  # fmt: skip

    def __init__(self, options: Options) -> None:
        self.state = ConnectionState.HANDSHAKE
        self.failed = False
        self.frame_max = INITIAL_FRAME_MAX_BYTES
        self.channel_max = options.channel_max
        self.heartbeat_ms = 0
        self.client_properties: Table = {}
        self.capabilities: Table = {}
        self.mechanism = ""
        self.reading_paused = False
        self._options = options
        self._shared = Shared(options.message_size_bytes_max, self.fail)
        self.channels = self._shared.channels
        # So a run of several messages never has one that is too large: only single ones need the check.
        self._run_bytes_max = min(options.run_bytes_max, options.message_size_bytes_max)
        self._buffer = ReceiveBuffer()
        self._farewell: Farewell | None = None
        self._is_deaf = False  # nothing that comes can mean anything any more
        self._first_ms: int | None = None
        self._received_ms = 0
        self._sent_ms = 0
        self._closing_at_ms = 0

    # For the shell, by way of the session

    @property
    def closing(self) -> bool:
        """True: close the socket when the output has gone."""
        return self.state is ConnectionState.CLOSED

    @property
    def has_output(self) -> bool:
        """Whether there is anything to send, or the socket is to be closed."""
        return self._shared.has_output or self.closing

    def receive_data(self, data: bytes, now_ms: int) -> list[Event]:
        """Take bytes from the client; what they mean, in its order.

        While a Login or Open event has no answer, bytes are kept: call this again, with no bytes, after the
        answer.

        Args:
            data: what the socket gave; may be empty.
            now_ms: a clock that never falls.
        """
        self._advance(now_ms)
        events: list[Event] = []
        if data:
            self._received_ms = now_ms
            self._buffer.add(data)
        self._read(events)
        return events

    def tick(self, now_ms: int) -> list[Event]:
        """Let time pass: send heartbeats, notice a silent client, end what takes too long. Call it every
        second or so.
        """
        self._advance(now_ms)
        events: list[Event] = []
        if self.state in (ConnectionState.CLOSING, ConnectionState.DEAF):
            if now_ms >= self._closing_at_ms:
                self._end(ConnectionState.CLOSED)
        elif self.state is ConnectionState.LEAVING:
            if now_ms >= self._closing_at_ms:
                self.finish()
                events.append(ConnectionClosed("what came before its end was not answered in time"))
        elif self.state is ConnectionState.RUNNING:
            self._read(events)
            self._end_late_channels(events)
            self._beat(events)
        elif self.state is not ConnectionState.CLOSED:
            self._read(events)
            if self._first_ms is not None and now_ms - self._first_ms >= HANDSHAKE_TIMEOUT_MS:
                self._lose("handshake_timeout", events)
        return events

    def data_to_send(self) -> list[bytes]:
        """All output since the last call, in order; confirms that were gathered in between come last."""
        chunks = self._shared.drain()
        if chunks:
            self._sent_ms = self._shared.now_ms
        return chunks

    # For the session

    def login_accepted(self, user: str) -> None:
        """Answer to Login: the client is `user`."""
        assert user, "the session checks the user"
        if self.state is ConnectionState.SECURING:
            self._write(handshake.tune(self._options))
            self.state = ConnectionState.TUNING

    def login_refused(self, text: str) -> None:
        """Answer to Login: no. The client learns no reason, and learns of it at all only if it can tell.

        Args:
            text: the reason, for the log; not shown to the client.
        """
        del text
        if self.state is not ConnectionState.SECURING:
            return
        self.failed = True
        if self.capabilities.get("authentication_failure_close") is True:
            self._close(
                AccessRefused(
                    f"Login was refused using authentication mechanism {self.mechanism}. "
                    "For details see the broker logfile."
                )
            )
        else:
            self._go_deaf()

    def open_accepted(self) -> None:
        """Answer to Open: the client may work in that virtual host. To refuse, call `fail`."""
        if self.state is ConnectionState.OPENING:
            self._write(ConnectionOpenOk())
            self.state = ConnectionState.RUNNING

    def finish(self) -> None:
        """Answer to ConnectionClosing: all that came before is answered."""
        farewell = self._farewell
        if self.state is not ConnectionState.LEAVING or farewell is None:
            return
        if farewell.error is not None:
            self._close(farewell.error)
            return
        self._flush_confirms()
        self._write(ConnectionCloseOk())
        self._end(ConnectionState.CLOSED)

    def fail(self, error: AmqpError, channel: int = 0) -> None:
        """Close the channel with a soft error; with a hard one, or on channel 0, the connection. No event
        tells of it.
        """
        found = self.channels.get(channel)
        if found is not None and not isinstance(error, HardError):
            found.fail(error)
        elif channel == 0 or isinstance(error, HardError):
            self.failed = True
            if self.state not in ENDED:
                self._close(error)

    def send(self, channel: int, method: Method) -> None:
        """Send a method on an open channel, or on channel 0; nothing where the channel or the connection has
        ended.
        """
        if channel == 0:
            if self.state not in ENDED:
                self._write(method)
        elif channel in self.channels:
            self.channels[channel].send(method)

    def send_content(self, channel: int, frames: bytes) -> None:
        """Send the frames that `wire.content_frames` made for an open channel."""
        if channel in self.channels:
            self.channels[channel].send_content(frames)

    # Reading

    def _advance(self, now_ms: int) -> None:
        self._shared.now_ms = now_ms
        if self._first_ms is None:
            self._first_ms = self._received_ms = self._sent_ms = now_ms

    def _read(self, events: list[Event]) -> None:
        """Understand as much of the buffer as the state allows."""
        while self.state not in WAITING:
            data = self._buffer.take()
            if not data or self._is_deaf:
                return
            if self.state is ConnectionState.HANDSHAKE:
                offset = self._read_header(data, events)
            elif self.state in _STREAMING:
                items, offset = scan(data, self.frame_max, self._run_bytes_max)
                for item in items:
                    self._receive(item, events)
                self._buffer.put_back_incomplete(data, offset)
                return
            else:
                # One frame at a time: what follows may have to wait, or may be larger than is allowed yet.
                items, offset = scan(data[: frame_end(data, 0)], self.frame_max, self._run_bytes_max)
                for item in items:
                    self._receive(item, events)
            self._buffer.put_back(data, offset)
            if not offset:
                return
        if self._buffer.size_bytes > UNREAD_BYTES_MAX:
            self._refuse(ChannelError(f"unexpected method in connection state {self.state.value}"), 0, events)

    def _read_header(self, data: bytes, events: list[Event]) -> int:
        """Take the protocol header; how many bytes it took, 0 where it is incomplete."""
        header = data[: len(handshake.HEADER)]
        if handshake.is_wrong_header(header):
            self._shared.write(handshake.HEADER)
            self._lose(f"bad protocol header {erlang_bytes(header)}", events)
            return len(data)
        if len(header) < len(handshake.HEADER):
            return 0
        self._shared.write(handshake.start_frame(self._options))
        self.state = ConnectionState.STARTING
        return len(header)

    def _receive(self, item: Item, events: list[Event]) -> None:
        number = item[1]
        try:
            if item[0] == ERROR:
                raise AmqpError.by_reply_code[item[2]](item[3])
            if number == 0:
                self._receive_control(item, events)
            elif self.state is ConnectionState.RUNNING:
                channel = self.channels.get(number)
                if item[0] == HEARTBEAT:
                    raise _unexpected(item)
                if channel is not None:
                    channel.receive(item, events)
                else:
                    self._open_channel(item, events)
            elif self.state not in IGNORING:
                raise _unexpected(item)
        except AmqpError as error:
            self._refuse(error, number, events)
            if item[0] == ERROR:
                # What follows in the stream cannot be told apart: the client's close-ok would not be found.
                self._is_deaf = True
                if self.state is ConnectionState.CLOSING:
                    self._go_deaf()

    def _open_channel(self, item: Item, events: list[Event]) -> None:
        """Only channel.open is right on a channel that is not open."""
        number = item[1]
        if item[0] in (HEADER, BODY):
            msg = "expected method frame, got non method frame instead"
            raise UnexpectedFrame(msg)
        if item[0] != METHOD or item[2] != states.CHANNEL_OPEN:
            msg = "expected 'channel.open'"
            raise ChannelError(msg, *_ids(item))
        if self.channel_max and len(self.channels) >= self.channel_max:
            msg = (
                f"number of channels opened ({len(self.channels)}) "
                f"has reached the negotiated channel_max ({self.channel_max})"
            )
            raise NotAllowed(msg)  # of no method, as in RabbitMQ
        decode_method(item[2], item[3])
        channel = self.channels[number] = Channel(number, self._shared)
        events.append(ChannelOpened(channel, self._shared.last_leaving.get(number)))

    # Channel 0

    def _receive_control(self, item: Item, events: list[Event]) -> None:
        """What comes on channel 0. Once the connection has ended, all is ignored but what the table names."""
        if item[0] == HEARTBEAT:
            if item[2] and self.state not in IGNORING:
                raise FrameError(frame_fault(_FRAME_TYPES[HEARTBEAT], item[2], "unknown_frame"))
            return
        if item[0] in (HEADER, BODY) and self.state not in IGNORING:
            raise _unexpected(item)
        follows = CONNECTION_STEPS[self.state].get(item[2]) if item[0] == METHOD else None
        if follows is None or item[0] != METHOD:
            if self.state not in IGNORING:
                msg = f"unexpected method in connection state {self.state.value}"
                raise ChannelError(msg, *_ids(item))
            return
        method = decode_method(item[2], item[3])
        if isinstance(method, ConnectionStartOk):
            self._start_ok(method, events)
        elif isinstance(method, ConnectionTuneOk):
            self._tune_ok(method)
        elif isinstance(method, ConnectionOpen):
            events.append(Open(method.virtual_host))
        elif isinstance(method, ConnectionClose):
            self._closed_by_client(method, events)
        elif isinstance(method, ConnectionCloseOk):
            self._end(ConnectionState.CLOSED)
        elif item[2] == states.UPDATE_SECRET:
            self._write(ConnectionUpdateSecretOk())
        self.state = follows

    def _start_ok(self, start_ok: ConnectionStartOk, events: list[Event]) -> None:
        user, password = handshake.credentials(self._options, start_ok.mechanism, start_ok.response)
        self.mechanism = start_ok.mechanism
        self.client_properties = start_ok.client_properties
        capabilities = start_ok.client_properties.get("capabilities")
        self.capabilities = capabilities if isinstance(capabilities, dict) else {}
        events.append(Login(start_ok.mechanism, user, password))

    def _tune_ok(self, tune_ok: ConnectionTuneOk) -> None:
        handshake.check_tune_ok(self._options, tune_ok)
        self.frame_max = tune_ok.frame_max
        self.channel_max = tune_ok.channel_max
        self.heartbeat_ms = tune_ok.heartbeat * 1000

    def _closed_by_client(self, close: ConnectionClose, events: list[Event]) -> None:
        if self.state is ConnectionState.CLOSING:  # both have closed at once
            self._write(ConnectionCloseOk())
            self._end(ConnectionState.CLOSED)
        elif self._farewell is not None:
            self._farewell.is_asked = True
        else:
            reason = f"closed by the client: {close.reply_code} {close.reply_text}"
            self._leave(None, reason, events)
        self._is_deaf = True

    # Ending

    def _leave(self, error: AmqpError | None, reason: str, events: list[Event]) -> None:
        """End as soon as the session has answered what came before."""
        self._farewell = Farewell(error, is_asked=error is None)
        self._closing_at_ms = self._shared.now_ms + LEAVING_TIMEOUT_MS
        self.state = ConnectionState.LEAVING
        events.append(ConnectionClosing(error, reason))

    def _refuse(self, error: AmqpError, number: int, events: list[Event]) -> None:
        """Answer a fault of the client that was found here."""
        channel = self.channels.get(number)
        if channel is not None and not isinstance(error, HardError):
            channel.leave(error, events)
        elif self.state not in IGNORING:
            self._leave(error, str(error), events)

    def _close(self, error: AmqpError) -> None:
        """Send connection.close, and from here on wait for the answer only."""
        if self.state is ConnectionState.HANDSHAKE:  # no method may go before connection.start
            self._end(ConnectionState.CLOSED)
            return
        self._flush_confirms()
        self._write(ConnectionClose(error.reply_code, error.reply_text, error.class_id, error.method_id))
        if self._farewell is not None and self._farewell.is_asked:
            self._write(ConnectionCloseOk())
            self._end(ConnectionState.CLOSED)
        elif self._is_deaf:
            self._go_deaf()
        else:
            self._end(ConnectionState.CLOSING)
            self._closing_at_ms = self._shared.now_ms + CLOSE_TIMEOUT_MS

    def _go_deaf(self) -> None:
        """Nothing that comes is looked at; the client has a moment to read what it was sent."""
        self._end(ConnectionState.DEAF)
        self._closing_at_ms = self._shared.now_ms + SILENT_CLOSE_MS

    def _lose(self, reason: str, events: list[Event]) -> None:
        """End without a word."""
        self._end(ConnectionState.CLOSED)
        events.append(ConnectionClosed(reason))

    def _end(self, state: ConnectionState) -> None:
        self.state = state
        for channel in [*self.channels.values(), *self._shared.leaving]:
            channel.end(ChannelState.CLOSED)
        self.channels.clear()
        if state is not ConnectionState.CLOSING:
            self._is_deaf = True
            self._buffer.clear()

    def _end_late_channels(self, events: list[Event]) -> None:
        """Channels whose end has waited long enough."""
        for channel, until_ms in list(self._shared.leaving.items()):
            if self._shared.now_ms >= until_ms:
                channel.finish()
                events.append(ChannelClosed(channel))

    def _flush_confirms(self) -> None:
        """What was confirmed is told before the goodbye."""
        for chunk in self._shared.drain():
            self._shared.write(chunk)

    def _write(self, method: Method) -> None:
        self._shared.write(method_frame(0, method))

    def _beat(self, events: list[Event]) -> None:
        """Heartbeats in both directions (AMQP 4.2.7)."""
        if not self.heartbeat_ms or self.state is not ConnectionState.RUNNING:
            return
        if self.reading_paused:
            self._received_ms = self._shared.now_ms
        if self._shared.now_ms - self._received_ms >= HEARTBEATS_MISSED_MAX * self.heartbeat_ms:
            self._lose(f"missed heartbeats from client, timeout: {self.heartbeat_ms // 1000}s", events)
        elif self._shared.now_ms - self._sent_ms >= self.heartbeat_ms // 2:
            self._shared.write(_HEARTBEAT_FRAME)


def _unexpected(item: Item) -> UnexpectedFrame:
    """The error for a frame where none of its kind may be."""
    if item[0] == METHOD:
        payload = item[2].to_bytes(4, "big") + item[3]
    elif item[0] in (HEADER, BODY, HEARTBEAT):
        payload = item[2]
    else:
        payload = b""
    extent = "all" if len(payload) <= _OCTETS_SHOWN else f"first {_OCTETS_SHOWN}"
    shown = erlang_bytes(payload[:_OCTETS_SHOWN])
    return UnexpectedFrame(f"type {_FRAME_TYPES[item[0]]}, {extent} octets = {shown}")


def _ids(item: Item) -> tuple[int, int]:
    """Class and method of an item that is a method."""
    method_id = {PUBLISH: states.BASIC_PUBLISH, ACK: states.BASIC_ACK}.get(item[0])
    if method_id is None:
        assert item[0] == METHOD, "the other kinds are no methods"
        method_id = item[2]
    return method_id >> 16, method_id & 0xFFFF
