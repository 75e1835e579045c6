"""One open channel: what a client's frames on it mean, and what the session may say on it (AMQP 2.2.5,
4.2.6).

Knows tags, confirms and contents; consumers, queues and permissions are the session's. A run costs the same
however many messages it has.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from node.amqp import states
from node.amqp.confirms import Confirms
from node.amqp.content import Assembly, AssemblyBudget, parse_publish
from node.amqp.events import ChannelClosing, Event, Outcome, Publish, Request, Settle
from node.amqp.states import ChannelState
from node.amqp.unacked import Deliveries, UnackedWindow
from node.errors import (
    AmqpError,
    AmqpNotImplemented,
    ChannelError,
    CommandInvalid,
    HardError,
    PreconditionFailed,
    UnexpectedFrame,
)
from node.limits import LEAVING_TIMEOUT_MS
from node.wire.codec import ACK, BODY, HEADER, METHOD, PUBLISH, Item, PublishedRun
from node.wire.methods import (
    BasicAck,
    BasicNack,
    BasicReject,
    ChannelClose,
    ChannelCloseOk,
    ChannelFlow,
    ConfirmSelect,
    Method,
    decode_method,
    method_frame,
)

_BODY_LENGTH: Final = slice(4, 8)
"""Where a packed record says how long its body is."""
_TICKET_BYTES: Final = 2


@dataclass(slots=True)
class Farewell:
    """What the client is told at the end, once all that came before is answered.

    Args:
        error: its fault, for which it gets close.
        is_asked: it has sent close itself, for which it gets close-ok.
    """

    error: AmqpError | None
    is_asked: bool


class Shared:
    """What all channels of one connection have in common.

    Args:
        message_size_bytes_max: greatest body of a message.
        fail: closes the connection.

    Attributes:
        channels: by number, but for those that the client has closed.
        leaving: channels whose end waits for answers that are due, and when it comes at the latest.
        last_leaving: the one of them that left last, by number.
        now_ms: the time of this turn.
    """

    __slots__ = ("_chunks", "_confirming", "budget", "channels", "fail", "last_leaving", "leaving", "now_ms")

    def __init__(self, message_size_bytes_max: int, fail: Callable[[AmqpError], None]) -> None:
        self.fail = fail
        self.channels: dict[int, Channel] = {}
        self.leaving: dict[Channel, int] = {}
        self.last_leaving: dict[int, Channel] = {}
        self.now_ms = 0
        self.budget = AssemblyBudget(message_size_bytes_max)
        self._chunks: list[bytes] = []
        self._confirming: list[Confirms] = []

    def write(self, data: bytes) -> None:
        """Send bytes after all that was sent before."""
        self._chunks.append(data)

    def confirm_later(self, confirms: Confirms) -> None:
        """Let the frames of `confirms` be made when the output is drained."""
        self._confirming.append(confirms)

    @property
    def has_output(self) -> bool:
        """Whether `drain` would return anything."""
        return bool(self._chunks or self._confirming)

    def drain(self) -> list[bytes]:
        """All output since the last call, confirms last: a basic.return goes before its confirm."""
        for confirms in self._confirming:
            frames = confirms.frames()
            if frames:
                self._chunks.append(frames)
        self._confirming.clear()
        chunks, self._chunks = self._chunks, []
        return chunks


class Channel:
    """One channel from channel.open-ok on. Made by the connection.

    Args:
        number: 1..65535.
        shared: of the connection.

    Attributes:
        state: see `states.ChannelState`.
        is_open: what is sent on it reaches the client.
        failed: the session has called `fail`; it skips events of this channel that come after.
        session: free for the session layer.
    """

    __slots__ = (
        "_assembly", "_confirms", "_farewell", "_shared", "_unacked", "failed", "is_open", "number", "session", "state",
    )  # fmt: skip

    def __init__(self, number: int, shared: Shared) -> None:
        self.number = number
        self.state = ChannelState.OPEN
        self.is_open = True
        self.failed = False
        self.session: Any = None
        self._shared = shared
        self._unacked = UnackedWindow()
        self._confirms: Confirms | None = None
        self._assembly: Assembly | None = None
        self._farewell: Farewell | None = None

    def __repr__(self) -> str:
        return f"Channel({self.number}, {self.state.value})"

    # For the session

    @property
    def confirm_mode(self) -> bool:
        """Whether the client has selected publisher confirms."""
        return self._confirms is not None

    @property
    def unacked_count(self) -> int:
        """Messages that the client has not settled."""
        return self._unacked.count

    @property
    def unconfirmed_count(self) -> int:
        """Published messages that the client has not been told about."""
        return self._confirms.open_count if self._confirms else 0

    def send(self, method: Method) -> None:
        """Send a method; nothing where the channel is not open any more."""
        if self.is_open:
            self._shared.write(method_frame(self.number, method))

    def send_content(self, frames: bytes) -> None:
        """Send frames made by `wire.content_frames` for this channel; nothing once it is not open."""
        if self.is_open:
            self._shared.write(frames)

    def record_delivery(self, consumer: int, first_id: int, count: int, *, no_ack: bool) -> int:
        """Take delivery tags for a run, and keep it as unacknowledged unless `no_ack`.

        Args:
            consumer: any number by which `events.Settle` shall name it.
            first_id: the session's id of the first message; the others follow without gaps.
            count: messages, at least 1.
            no_ack: the client will not acknowledge them.

        Returns:
            The first delivery tag; the others follow.
        """
        if no_ack:
            return self._unacked.skip(count)
        return self._unacked.record(consumer, first_id, count)

    def confirm(self, ranges: list[tuple[int, int]], *, ok: bool = True) -> None:
        """Confirm published messages, or refuse them; told when the output is drained. Each number comes
        once.

        Args:
            ranges: first and last confirm number, both included; not empty.
            ok: False: refuse them.
        """
        confirms = self._confirms
        if confirms is None or not self.is_open:
            return
        if confirms.gather(ranges, ok=ok):
            self._shared.confirm_later(confirms)

    def take_all(self) -> Deliveries:
        """Take all unacknowledged deliveries as (consumer, first_id, last_id): for basic.recover and at the
        end.
        """
        return self._unacked.take_all()

    def fail(self, error: AmqpError) -> None:
        """Close the channel with a soft error, the connection with a hard one; no event tells of it."""
        self.failed = True
        if isinstance(error, HardError):
            self._shared.fail(error)
        else:
            self.refuse(error)

    def finish(self) -> None:
        """Answer to ChannelClosing: all that came before is answered."""
        farewell = self._farewell
        if not self.is_open or farewell is None:
            return
        if farewell.error is not None:
            self.refuse(farewell.error)
            return
        self._write_confirms()
        self.send(ChannelCloseOk())
        self.end(ChannelState.CLOSED)

    # For the connection

    def leave(self, error: AmqpError | None, events: list[Event]) -> None:
        """End as soon as the session has answered what came before.

        Args:
            error: the client's fault; None: the client has closed the channel.
            events: where the session is told.
        """
        self._farewell = Farewell(error, is_asked=error is None)
        self._shared.leaving[self] = self._shared.now_ms + LEAVING_TIMEOUT_MS
        self._shared.last_leaving[self.number] = self
        self.state = ChannelState.LEAVING
        self._release_assembly()
        events.append(ChannelClosing(self, error))

    def refuse(self, error: AmqpError) -> None:
        """Send channel.close, and from here on ignore all but the answer."""
        if self.is_open:
            self._write_confirms()
            ids = (error.class_id, error.method_id)
            self.send(ChannelClose(error.reply_code, error.reply_text, *ids))
            if self._farewell is not None and self._farewell.is_asked:
                self.send(ChannelCloseOk())
                # Unless the client has opened it again: then its answer is ignored there.
                self._shared.channels.setdefault(self.number, self)
            self.end(ChannelState.CLOSING)

    def end(self, state: ChannelState) -> None:
        """Say nothing any more."""
        self.state = state
        self.is_open = False
        self._shared.leaving.pop(self, None)
        if self._shared.last_leaving.get(self.number) is self:
            del self._shared.last_leaving[self.number]
        self._release_assembly()

    def receive(self, item: Item, events: list[Event]) -> None:
        """Take what `scan` found on this channel, and append what it means.

        Raises:
            AmqpError: the client's fault, with the ids of the method at fault. What came before it in `item`
            was done.
        """
        if self.state is not ChannelState.OPEN:
            self._receive_closing(item)
        elif self._assembly is not None and item[0] not in (HEADER, BODY):
            raise _about(self._assembly.wrong_frame(), states.BASIC_PUBLISH)
        elif item[0] == PUBLISH:
            self._receive_publish(item[2], events)
        elif item[0] == ACK:
            self._receive_ack(item[2], item[3], item[4], events)
        elif item[0] == METHOD:
            self._receive_method(item[2], item[3], events)
        else:
            self._receive_content(item, events)

    def _receive_closing(self, item: Item) -> None:
        """The client may not have seen channel.close yet: nothing counts but its answer (AMQP 1.5.2.5)."""
        if item[0] != METHOD:
            return
        if item[2] == states.CHANNEL_CLOSE:  # both have closed at once
            if self.state is ChannelState.LEAVING:
                assert self._farewell is not None, "set when it began to leave"
                self._farewell.is_asked = True
            else:
                self._shared.write(method_frame(self.number, ChannelCloseOk()))
        elif item[2] == states.CHANNEL_CLOSE_OK and self.state is ChannelState.CLOSING:
            self.end(ChannelState.CLOSED)
            del self._shared.channels[self.number]

    def _receive_publish(self, runs: list[PublishedRun], events: list[Event]) -> None:
        budget = self._shared.budget
        size_bytes_max = budget.message_size_bytes_max
        taken = total = 0
        try:
            for args, count, packed in runs:
                parse_publish(args)
                if count == 1 and len(packed) > size_bytes_max:
                    # Of several messages none is too large: see Connection's run_bytes_max.
                    budget.check_size(int.from_bytes(packed[_BODY_LENGTH], "big"))
                taken += 1
                total += count
        except AmqpError as error:
            if taken:
                self._published(runs[:taken], total, events)
            raise _about(error, states.BASIC_PUBLISH) from None
        self._published(runs, total, events)

    def _published(self, runs: list[PublishedRun], total: int, events: list[Event]) -> None:
        first_seq = self._confirms.number(total) if self._confirms is not None else 0
        events.append(Publish(self, runs, first_seq))

    def _receive_content(self, item: Item, events: list[Event]) -> None:
        assembly = self._assembly
        if assembly is None:
            msg = "expected method frame, got non method frame instead"
            raise UnexpectedFrame(msg)
        try:
            if item[0] == HEADER:
                complete = assembly.add_header(item[2])
            else:
                assert item[0] == BODY, "heartbeats are the connection's"
                complete = assembly.add_body(item[2])
        except AmqpError as error:
            raise _about(error, states.BASIC_PUBLISH) from None
        if complete:
            self._assembly = None
            assembly.release()
            self._published([assembly.run()], 1, events)

    def _receive_ack(self, first_tag: int, last_tag: int, multiple: bool, events: list[Event]) -> None:
        try:
            self._settle(Outcome.ACK, first_tag, last_tag, events, multiple=multiple)
        except PreconditionFailed as error:
            raise _about(error, states.BASIC_ACK) from None

    def _settle(
        self, outcome: Outcome, first_tag: int, last_tag: int, events: list[Event], *, multiple: bool
    ) -> None:
        """Resolve tags. Raises 406 for an unknown one, after those before it were settled."""
        error: PreconditionFailed | None = None
        if multiple:
            deliveries = self._unacked.take_through(last_tag)
        else:
            deliveries, error = self._unacked.take(first_tag, last_tag)
        if deliveries:
            before = events[-1] if events else None
            if isinstance(before, Settle) and before.channel is self and before.outcome is outcome:
                before.deliveries += deliveries
            else:
                events.append(Settle(self, outcome, deliveries))
        if error is not None:
            raise error

    def _receive_method(self, method_id: int, args: bytes, events: list[Event]) -> None:
        try:
            if method_id in states.SESSION_METHODS:
                events.append(Request(self, decode_method(method_id, args)))
            elif method_id == states.BASIC_PUBLISH:
                args = args[_TICKET_BYTES:]
                parse_publish(args)
                self._assembly = Assembly(args, self._shared.budget)
            elif method_id == states.CHANNEL_CLOSE:
                del self._shared.channels[self.number]
                self.leave(None, events)
            elif method_id == states.CHANNEL_OPEN:
                msg = "second 'channel.open' seen"
                raise ChannelError(msg)
            elif method_id in _ANSWERED:
                self._answer(decode_method(method_id, args), events)
            elif method_id in _TRANSACTIONS:
                method = decode_method(method_id, args)
                self._transact(method_id)
                events.append(Request(self, method))
            elif method_id != states.CHANNEL_CLOSE_OK:  # a close-ok that nobody waits for harms nobody
                msg = "unimplemented method"
                raise CommandInvalid(msg)
        except AmqpError as error:
            raise _about(error, method_id) from None

    def _answer(self, method: Method, events: list[Event]) -> None:
        """Methods whose effect is here. What the client waits for is said by the session, in its turn."""
        if isinstance(method, BasicAck):
            self._receive_ack(method.delivery_tag, method.delivery_tag, method.multiple, events)
        elif isinstance(method, BasicReject):
            outcome = Outcome.REQUEUE if method.requeue else Outcome.REJECT
            self._settle(outcome, method.delivery_tag, method.delivery_tag, events, multiple=False)
        elif isinstance(method, BasicNack):
            outcome = Outcome.REQUEUE if method.requeue else Outcome.REJECT
            self._settle(outcome, method.delivery_tag, method.delivery_tag, events, multiple=method.multiple)
        elif isinstance(method, ConfirmSelect):
            if self._unacked.is_transactional:
                msg = "cannot switch from tx to confirm mode"
                raise PreconditionFailed(msg)
            if self._confirms is None:
                self._confirms = Confirms(self.number)
            events.append(Request(self, method))
        else:
            if isinstance(method, ChannelFlow) and not method.active:
                msg = "active=false"
                raise AmqpNotImplemented(msg)
            events.append(Request(self, method))

    def _transact(self, method_id: int) -> None:
        """What a transaction means for the window; what it publishes and settles is kept by the session."""
        unacked = self._unacked
        if method_id == states.TX_SELECT:
            if self._confirms is not None:
                msg = "cannot switch from confirm to tx mode"
                raise PreconditionFailed(msg)
            if not unacked.is_transactional:
                unacked.begin()
        elif not unacked.is_transactional:
            msg = "channel is not transactional"
            raise PreconditionFailed(msg)
        elif method_id == states.TX_COMMIT:
            unacked.begin()
        else:
            unacked.roll_back()

    def _release_assembly(self) -> None:
        if self._assembly is not None:
            self._assembly.release()
            self._assembly = None

    def _write_confirms(self) -> None:
        """Tell what was gathered while the channel is still open."""
        if self._confirms is not None:
            frames = self._confirms.frames()
            if frames:
                self._shared.write(frames)


_ANSWERED: Final = (
    states.BASIC_ACK,  # only where the codec found it malformed
    states.BASIC_REJECT,
    states.BASIC_NACK,
    states.CONFIRM_SELECT,
    states.CHANNEL_FLOW,
    states.ACCESS_REQUEST,
)
_TRANSACTIONS: Final = (states.TX_SELECT, states.TX_COMMIT, states.TX_ROLLBACK)


def _about(error: AmqpError, method_id: int) -> AmqpError:
    """The same error, naming the method that it happened in."""
    error.class_id, error.method_id = method_id >> 16, method_id & 0xFFFF
    return error
