"""One channel as the broker sees it: events in the client's order, one question at a time.

A request that needs a group runs as a script: a generator that submits, yields, and is sent the answer. While
a script waits, later events of the channel wait behind it, so that a client's requests, publishes and acks of
one channel take effect in its order (AMQP 0-9-1, 4.7). Other channels go on.
"""

from collections import deque
from typing import TYPE_CHECKING

from node.amqp.events import ChannelClosed, ChannelClosing, Publish, Request, Settle
from node.errors import AmqpError, HardError, NotFound
from node.session.publish import charged_bytes, publish
from node.session.requests import start, subject_of
from node.session.script import Script
from node.session.settle import settle
from node.wire.methods import BasicPublish, ChannelOpenOk, QueueDelete

if TYPE_CHECKING:
    from node.amqp.channel import Channel
    from node.session.deliver import Consumer
    from node.session.direct_reply import ReplyConsumer
    from node.session.prefetch import ChannelLimit
    from node.session.session import Session
    from node.session.transaction import Transaction
    from node.wire.methods import Method

Event = Publish | Settle | Request | ChannelClosing | ChannelClosed

WAITING_EVENT_BYTES = 256
"""What a waiting event other than a publish counts for in its connection's bound."""


class ChannelSession:
    """The broker's side of one channel.

    Args:
        session: the connection it belongs to.
        amqp: the protocol's side.
    """

    __slots__ = (
        "_is_parting", "_notices", "_script", "_successor", "_ticket", "_waiting",
        "amqp", "consumers", "getters", "gone", "groups", "held_bytes", "holders", "id", "last_queue",
        "limit", "method", "prefetch", "reply_consumer", "session", "transaction", "under_way",
    )  # fmt: skip

    def __init__(self, session: "Session", amqp: "Channel") -> None:
        self.session = session
        self.amqp = amqp
        self.id = session.node.next_id()
        self.gone = False  # True: the client hears no answer of this channel any more
        self.last_queue = ""
        self.prefetch = 0
        self.limit: ChannelLimit | None = None
        self.transaction: Transaction | None = None
        self.reply_consumer: ReplyConsumer | None = None
        self.consumers: dict[str, Consumer] = {}
        self.holders: dict[int, int] = {}  # id under which a group holds messages for this channel -> group
        self.getters: dict[int, int] = {}  # uid -> the id that holds what basic.get took from that queue
        self.held_bytes = 0  # of the burst that a script waits to route
        self.groups: dict[int, None] = {}  # where this session has state
        self.under_way = 0  # what it has published or freed, and no group has answered yet
        self._is_parting = False  # True: all else is done, and its end waits for what is under way
        self._successor: ChannelSession | None = None  # has its number, and begins when it ends
        self._script: Script | None = None
        self.method: Method | None = None  # what is being done; None: a publish
        self._ticket = 0
        self._waiting: deque[Event] = deque()
        self._notices: list[Method] = []  # what the client did not ask for, and hears after an answer

    # Events

    def handle(self, event: Event) -> None:
        """Do what the client asked, now or once all before it is done."""
        if self._script is None:
            self._dispatch(event)
            return
        self.session.charge(WAITING_EVENT_BYTES)
        self._waiting.append(event)

    def open(self, before: "ChannelSession | None") -> None:
        """Tell the client that the channel is open, once the one `before` it under the same number has ended."""
        if before is None or not before.precede(self):
            self.send(ChannelOpenOk())
        else:
            self.run(self._open_later(), None)

    def precede(self, successor: "ChannelSession") -> bool:
        """Let `successor` begin at the end of this one. False: it may begin now."""
        if self.gone:
            return False
        self._successor = successor
        return True

    def leave(self) -> None:
        """The client has left the channel: finish what it sent before, answer nothing, then free all."""
        if self.gone:
            return
        self.gone = True
        if self._is_parting:
            self.close()
            return
        self._make_way()
        self.handle(ChannelClosed(self.amqp))

    def fail(self, error: AmqpError) -> None:
        """Close the channel (or the connection, for a hard error) and free all that it holds."""
        if not error.class_id:
            method = self.method or BasicPublish
            error.class_id, error.method_id = method.class_id, method.method_id
        if isinstance(error, HardError):
            self.session.fail(error)
            return
        if not self.gone:
            self.session.touch()
            self.amqp.fail(error)
        self.close()

    def abandoned(self) -> None:
        """No answer will come: the session ends this channel with its connection."""

    def close(self) -> None:
        """Free all: waiting events, tickets, consumers, and what the groups hold for this session."""
        self.gone = True
        self._forget_script()
        for event in self._waiting:
            burst_bytes = charged_bytes(event.runs) if type(event) is Publish else 0
            self.session.release(WAITING_EVENT_BYTES + burst_bytes)
        self._waiting.clear()
        self.session.release(self.held_bytes)
        self.held_bytes = 0
        if self.transaction is not None:
            self.transaction.forget()
        self.session.channel_closed(self)
        self._make_way()

    def one_done(self) -> None:
        """A group has answered something that was under way."""
        self.under_way -= 1
        if self._is_parting and not self.under_way and self._script is not None:
            self.answered(None)

    def forget_holders(self) -> None:
        """Forget the ids that hold nothing any more, once nothing waits: an ack may, of what the core has let go."""
        if self._waiting or self.amqp.unacked_count or (self.transaction and self.transaction.size_bytes):
            return
        kept = [consumer.id for consumer in self.consumers.values()]
        self.holders = {holder: self.holders[holder] for holder in (*kept, *self.getters.values())}

    # Scripts

    @property
    def is_busy(self) -> bool:
        """Whether a script waits for an answer."""
        return self._script is not None

    def ask(self, group: int, *, has_deadline: bool = True) -> int:
        """A ticket for the question that the running script is about to submit to `group`."""
        self._ticket = self.session.tickets.issue(self, group, has_deadline=has_deadline)
        return self._ticket

    def run(self, script: Script, method: "Method | None") -> None:
        """Start a script; it goes as far as it can without an answer."""
        self._script = script
        self.method = method
        self._step(None)

    def answered(self, value: object) -> None:
        """The reply to the running script's question."""
        self._step(value)
        while self._waiting and self._script is None:
            self.session.release(WAITING_EVENT_BYTES)
            self._dispatch(self._waiting.popleft())

    def expired(self) -> None:
        """The running script's question has had no answer within the deadline."""
        subject = subject_of(self, self.method)
        self.fail(NotFound(f"failed to perform operation on {subject} due to timeout"))

    def send(self, method: "Method") -> None:
        """A reply to the client, unless it has left."""
        if not self.gone:
            self.amqp.send(method)
            self.session.touch()

    def notify(self, method: "Method") -> None:
        """What the client did not ask for. Who deletes a queue hears that it is done before hearing that its
        consumers are gone: some clients leave at the second.
        """
        if self._script is not None and type(self.method) is QueueDelete:
            self._notices.append(method)
        else:
            self.send(method)

    def _dispatch(self, event: Event) -> None:
        kind = type(event)
        try:
            self.method = None
            if kind is Publish:
                # Narrowed by `kind`: isinstance costs on this path.
                publish(self, event.runs, event.first_seq)  # type: ignore[union-attr]
            elif kind is Settle:
                settle(self, event)  # type: ignore[arg-type]
            elif kind is Request:
                start(self, event.method)  # type: ignore[union-attr]
            elif kind is ChannelClosing:
                self._part(event.error)  # type: ignore[union-attr]
            else:
                self.close()
            if self.transaction is not None:
                self.transaction.check()
        except AmqpError as error:
            self.fail(error)

    def _part(self, error: AmqpError | None) -> None:
        """All that the client asked for is answered; how it ends."""
        if self.gone:
            self.close()
        elif error is None:
            self.run(self._end_when_done(), None)
        else:
            self._end()

    def _end_when_done(self) -> Script:
        """Who is told of the end finds the messages that were published, and those that were given back."""
        self._is_parting = True
        self.session.free(self, is_awaited=True)
        if self.under_way:
            yield
        self._end()

    def _end(self) -> None:
        self.amqp.finish()
        self.session.touch()
        self.close()

    def _open_later(self) -> Script:
        yield
        self.send(ChannelOpenOk())

    def _make_way(self) -> None:
        successor, self._successor = self._successor, None
        if successor is not None and not successor.gone:
            self.session.begin(successor)

    def _step(self, value: object) -> None:
        script = self._script
        assert script is not None, "an answer without a question"
        try:
            script.send(value)
        except StopIteration:
            self._forget_script()
        except AmqpError as error:
            self._forget_script()
            self.fail(error)

    def _forget_script(self) -> None:
        self.session.tickets.drop(self._ticket)
        self._script = None
        if self._notices:
            notices, self._notices = self._notices, []
            for notice in notices:
                self.send(notice)
