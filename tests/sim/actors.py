"""Clients that use the broker, each in its own way, over AMQP bytes; connections that break are made anew.

An actor acts every few virtual milliseconds, and at once on what the server says. All that it does and hears
goes into the history.
"""

from typing import TYPE_CHECKING, Any

from node.wire import methods
from node.wire.primitives import Table
from tests.amqp_client import (
    ChannelGone,
    ClientEvent,
    Confirmed,
    ConnectionGone,
    ConnectionReady,
    Received,
    Replied,
)
from tests.sim.cluster import SimClient
from tests.sim.history import Message

if TYPE_CHECKING:
    from tests.sim.run import Run

CHANNEL = 1
UNCONFIRMED_MAX = 60
BODY_BYTES = (0, 0, 0, 40, 40, 400, 5000)
DRAIN_MS = 60
"""Those that empty the queues at the end act rarely, and do much at once: they are not what is tested."""


class Actor:
    """A client with one connection and one channel. Subclasses say what to do when it is open."""

    def __init__(self, run: "Run", name: str, nodes: tuple[int, ...] | None = None) -> None:
        """Args: nodes: where it may connect; None: anywhere."""
        self.run, self.name = run, name
        self.rng = run.rng
        self.pace_ms = run.limits.actor_ms
        self.nodes = nodes
        self.client: SimClient | None = None
        self.is_open = False  # the channel
        self.stopped = False
        run.world.after(self.rng.randint(0, 50), self._act)

    @property
    def amqp(self) -> Any:
        """The client's protocol core."""
        assert self.client is not None
        return self.client.amqp

    def stop(self) -> None:
        """Never act again; the connection ends."""
        self.stopped = True
        if self.client is not None:
            self.client.drop()

    def say(self) -> None:
        """Send what was asked of the client."""
        if self.client is not None:
            self.client.flush()

    def _act(self) -> None:
        if self.stopped:
            return
        if self.client is None:
            self._connect()
        elif self.is_open:
            self.act()
            self.say()
        self.run.world.after(self.rng.randint(1, 2 * self.pace_ms), self._act)

    def _connect(self) -> None:
        nodes = self.run.world.nodes
        up = [
            node for node in self.nodes or nodes if nodes[node].process is not None and not nodes[node].paused
        ]
        if up:
            self.is_open = False
            self.client = SimClient(self.run.cluster, self.rng.choice(up), self._on_event, self._on_gone)
            self.run.world.note(f"n{self.client.node}", "connect", self.name, self.client.conn)

    def _on_gone(self) -> None:
        self.client = None
        self.is_open = False
        self.gone()

    def _on_event(self, event: ClientEvent) -> None:
        match event:
            case ConnectionReady():
                self.amqp.open_channel(CHANNEL)
            case ConnectionGone():
                self.run.world.note("-", "told to go", self.name, event.reply_code)
                if self.client is not None:
                    self.client.drop()
            case ChannelGone():
                self.run.world.note("-", "channel gone", self.name, event.reply_code, event.reply_text)
                self.is_open = False
                self.channel_gone(event)
                self.amqp.open_channel(CHANNEL)
            case Replied(method=methods.ChannelOpenOk()):
                self.is_open = True
                self.begin()
            case Replied(method=methods.ChannelCloseOk()):
                self.is_open = False
                self.amqp.open_channel(CHANNEL)
            case _:
                self.hear(event)
        self.say()

    def begin(self) -> None:
        """The channel is open."""

    def act(self) -> None:
        """It is time to do something; the channel is open."""

    def hear(self, event: ClientEvent) -> None:
        """The server said something."""

    def channel_gone(self, event: ChannelGone) -> None:
        """The server closed the channel."""
        self.gone()

    def gone(self) -> None:
        """The connection or the channel has ended: nothing that was asked will be answered."""


class Founder(Actor):
    """Declares a durable queue, and binds it to the exchange `fan` if its name begins with an f."""

    def __init__(self, run: "Run", queue: str, arguments: Table | None = None) -> None:
        super().__init__(run, f"founder-{queue}")
        self.queue, self.arguments = queue, arguments
        self.is_done = False

    def begin(self) -> None:
        self.amqp.declare_exchange(CHANNEL, "fan", "fanout", durable=True)
        self.amqp.declare(CHANNEL, self.queue, self.arguments, durable=True)

    def hear(self, event: ClientEvent) -> None:
        if not isinstance(event, Replied):
            return
        if isinstance(event.method, methods.QueueDeclareOk) and self.queue[0] == "f":
            self.amqp.bind(CHANNEL, self.queue, "fan")
        elif isinstance(event.method, methods.QueueDeclareOk | methods.QueueBindOk):
            self.is_done = True
            self.stop()


class Publisher(Actor):
    """Publishes with confirms to routes that do not change."""

    def __init__(
        self,
        run: "Run",
        name: str,
        routes: list[tuple[str, str, tuple[str, ...]]],
        nodes: tuple[int, ...] | None = None,
    ) -> None:
        """Args: routes: (exchange, routing key, queues that it leads to)."""
        super().__init__(run, name, nodes)
        self.routes = routes
        self.channel = 0
        self.number = 0
        self.sent: dict[int, Message] = {}  # by confirm number
        self.confirms = 0

    def begin(self) -> None:
        self.channel, self.number = self.run.history.new_channel(), 0
        self.sent = {}
        self.amqp.confirm_select(CHANNEL)

    def act(self) -> None:
        if self.rng.random() < 0.02:
            self.amqp.close_channel(CHANNEL)
            self.is_open = False
            return
        if len(self.sent) < UNCONFIRMED_MAX:
            for _ in range(self.rng.choice((1, 1, 2, 8))):
                self.publish()

    def publish(self) -> None:
        """Publish one message."""
        exchange, key, queues = self.rng.choice(self.routes)
        self.number += 1
        message = (self.channel, self.number)
        body = self.run.history.publish(message, queues, self.rng.choice(BODY_BYTES))
        seq = self.amqp.publish(CHANNEL, exchange, key, body, mandatory=self.rng.random() < 0.3)
        self.sent[seq] = message

    def confirmed(self, message: Message) -> None:
        """The broker has one more message."""

    def hear(self, event: ClientEvent) -> None:
        match event:
            case Confirmed(ok=True):
                for seq in event.seqs:
                    message = self.sent.pop(seq)
                    self.run.history.confirm(message)
                    self.confirms += 1
                    self.confirmed(message)
            case Confirmed():
                for seq in event.seqs:
                    self.run.history.refuse(self.sent.pop(seq))
            case Received(method=methods.BasicReturn()):
                # A confirm follows, but no queue has it: the routes of this actor always lead somewhere.
                self.run.violate("returned", f"{event.body[:20]!r} to {event.method.routing_key!r}")

    def gone(self) -> None:
        self.sent = {}


class Consumer(Actor):
    """Consumes or gets from one queue; acks, requeues, lingers, cancels, dies."""

    def __init__(
        self, run: "Run", name: str, queue: str, *, mode: str = "ack", nodes: tuple[int, ...] | None = None
    ) -> None:
        """Args: mode: ack, no_ack, get or drain (always acks, never dies)."""
        super().__init__(run, name, nodes)
        self.queue, self.mode = queue, mode
        self.group = run.groups.get(queue, 0)
        self.number = 0
        self.prefetch = 0
        self.held: dict[int, Message] = {}  # by delivery tag
        self.holders: dict[int, str] = {}  # consumer tag of each delivery tag
        self.unsynced: list[Message] = []  # acks that are sent, and not known to be applied
        self.syncing: list[Message] | None = None
        self.rejects: list[Message] = []  # those of `unsynced` that were rejected for good
        self.returns: list[Message] = []  # rejected with requeue, as `unsynced`
        self.returns_syncing: list[Message] = []
        self.is_consuming = self.is_getting = self.is_recovering = False
        if mode == "drain":
            self.pace_ms = DRAIN_MS

    def begin(self) -> None:
        self.gone()
        self.number = self.run.new_number()
        if self.mode == "get":
            self.is_consuming = False
            return
        if self.mode != "no_ack":
            self.prefetch = self.rng.choice((0, 1, 3, 20)) if self.mode == "ack" else 0
            self.amqp.qos(CHANNEL, self.prefetch)
        self.consume()

    def act(self) -> None:
        chance = self.rng.random()
        if self.mode == "drain":
            self._ack(list(self.held))
        elif self.mode == "get" and not self.is_getting and chance < 0.7:
            self.get()
        elif chance < 0.02 and self.is_consuming:
            self.is_consuming = False
            self.amqp.cancel(CHANNEL, f"c{self.number}")
            self.cancelled()
        elif chance < 0.04:
            self.is_open = False
            self.amqp.close_channel(CHANNEL)
            return
        if self.held and self.mode != "drain" and not self.is_recovering:
            self._settle_some()
        if (self.unsynced or self.returns) and chance > 0.7:
            self.sync()
        if not self.is_consuming and self.mode != "get" and chance > 0.9:
            self.number = self.run.new_number()
            self.consume()

    def consume(self) -> None:
        """Have a consumer."""
        self.is_consuming = True
        self.amqp.consume(CHANNEL, self.queue, f"c{self.number}", no_ack=self.mode == "no_ack")

    def get(self) -> None:
        """Ask for one message."""
        self.is_getting = True
        self.amqp.get(CHANNEL, self.queue)
        self.asked()

    def sync(self) -> None:
        """Ask something that is answered when what was settled is applied."""
        if self.syncing is None:
            self.syncing, self.unsynced = self.unsynced, []
            self.returns_syncing, self.returns = self.returns, []
            self.amqp.declare(CHANNEL, self.queue, passive=True)

    def _settle_some(self) -> None:
        tags = sorted(self.held)
        tags = tags[: self.rng.randint(1, len(tags))]
        choice = self.rng.random()
        if choice < 0.25:
            self._ack(tags)
        elif choice < 0.5:
            self.rng.shuffle(tags)
            self._ack(tags, singly=True)
        elif choice < 0.6:
            self.amqp.nack(CHANNEL, tags[-1], multiple=True)
            self.returns += [self.held.pop(tag) for tag in tags]
        elif choice < 0.65:
            self.amqp.reject(CHANNEL, tags[0], requeue=True)
            self.returns.append(self.held.pop(tags[0]))
        elif choice < 0.68:
            self.rejects.append(self.held[tags[0]])
            self._settled(self.held.pop(tags[0]))
            self.amqp.reject(CHANNEL, tags[0], requeue=False)
        elif choice < 0.70:
            # What comes until the answer is requeued with what is held.
            self.is_recovering = True
            self.amqp.send(CHANNEL, methods.BasicRecover(requeue=True))

    def _ack(self, tags: list[int], *, singly: bool = False) -> None:
        if not tags:
            return
        if singly:
            for tag in tags:
                self.amqp.ack(CHANNEL, tag)
        else:
            self.amqp.ack(CHANNEL, tags[-1], multiple=True)
        for tag in tags:
            self._settled(self.held.pop(tag))

    def _settled(self, message: Message) -> None:
        self.run.history.acked[self.queue, message] = None
        self.unsynced.append(message)

    def hear(self, event: ClientEvent) -> None:
        match event:
            case Received(method=methods.BasicDeliver() | methods.BasicGetOk()):
                assert self.client is not None
                message = self.run.history.deliver(
                    self.number,
                    self.queue,
                    event.body,
                    redelivered=event.method.redelivered,
                    is_current=self.run.is_current(self.client, self.group),
                )
                if self.mode == "no_ack":
                    self.run.history.acked[self.queue, message] = None
                else:
                    self.held[event.method.delivery_tag] = message
                    if isinstance(event.method, methods.BasicDeliver):
                        self.holders[event.method.delivery_tag] = event.method.consumer_tag
                        if self.prefetch:
                            self._check_prefetch(event.method)
                if self.queue in self.run.watchers:
                    self.run.watchers[self.queue](self, message, event)
                self.is_getting = self.is_getting and isinstance(event.method, methods.BasicDeliver)
            case Replied(method=methods.BasicGetEmpty()):
                self.found_nothing()
                self.is_getting = False
            case Replied(method=methods.QueueDeclareOk()):
                self._synced()
            case Replied(method=methods.BasicCancel()):
                self.taken_from(event.method.consumer_tag)
            case Replied(method=methods.BasicRecoverOk()):
                self.is_recovering = False
                self.held.clear()

    def asked(self) -> None:
        """A basic.get was sent."""

    def cancelled(self) -> None:
        """basic.cancel was sent."""

    def found_nothing(self) -> None:
        """It was answered with get-empty."""

    def returned(self, message: Message) -> None:
        """A message that was rejected with requeue is in the queue again, or was given to somebody."""

    def _synced(self) -> None:
        history = self.run.history
        for message in self.syncing or ():
            history.settled[self.queue, message] = None
            if message in self.rejects:
                self.rejects.remove(message)
                history.rejected[self.queue, message] = None
        self.syncing = None
        for message in self.returns_syncing:
            history.returns[self.queue, message] = history.returns.get((self.queue, message), 0) + 1
            self.returned(message)
        self.returns_syncing = []

    def taken_from(self, consumer_tag: str) -> None:
        """The server has cancelled the consumer, and what it held is ready again."""
        self.held = {tag: held for tag, held in self.held.items() if self.holders.get(tag) != consumer_tag}
        if consumer_tag != f"c{self.number}":
            return  # one that this client has cancelled itself, and replaced
        self.is_consuming = False
        # What it settled crossed the cancel on the wire: only the log knows which of both came first.
        self.unsynced, self.rejects, self.returns, self.returns_syncing = [], [], [], []
        self.syncing = None if self.syncing is None else []

    def _check_prefetch(self, method: methods.BasicDeliver) -> None:
        """What the client settled is settled at the broker a moment later, so it never holds more than it asked for."""
        if not self.is_recovering:
            held = sum(self.holders.get(tag) == method.consumer_tag for tag in self.held)
            if held > self.prefetch:
                self.run.violate("prefetch", f"{self.name} holds {held} of {self.prefetch}")

    def gone(self) -> None:
        self.held, self.unsynced, self.syncing = {}, [], None
        self.rejects, self.returns, self.returns_syncing = [], [], []
        self.holders.clear()
        self.is_consuming = self.is_getting = self.is_recovering = False


class Purger(Publisher):
    """Publishes to a queue of its own and purges it: every message is counted by a purge, or left."""

    def __init__(self, run: "Run", name: str, queue: str) -> None:
        super().__init__(run, name, [("", queue, (queue,))])
        self.queue = queue
        run.history.may_lose[queue] = None
        run.history.is_purged[queue] = False
        self.is_asking = False

    def act(self) -> None:
        super().act()
        if self.is_open and not self.is_asking and self.rng.random() < 0.15:
            self.is_asking = True
            self.amqp.purge(CHANNEL, self.queue)

    def hear(self, event: ClientEvent) -> None:
        if isinstance(event, Replied) and isinstance(event.method, methods.QueuePurgeOk):
            self.is_asking = False
            purges = self.run.history.purges
            purges[self.queue] = purges.get(self.queue, 0) + event.method.message_count
        else:
            super().hear(event)

    def gone(self) -> None:
        super().gone()
        if self.is_asking:
            self.is_asking = False
            self.run.history.is_purged[self.queue] = True


class Owner(Consumer):
    """Has an exclusive queue, which somebody on any node publishes to through the default exchange."""

    def __init__(self, run: "Run", name: str) -> None:
        super().__init__(run, name, "", mode="no_ack")
        self.lives: list[tuple[str, SimClient]] = []  # queues it had, and the connection of each

    def begin(self) -> None:
        self.queue = f"{self.name}-{self.run.new_number()}"
        self.run.history.may_lose[self.queue] = None
        self.run.history.memory_queues[self.queue] = None
        self.amqp.declare(CHANNEL, self.queue, exclusive=True)

    def act(self) -> None:
        if self.rng.random() < 0.01 and self.client is not None:
            self.client.drop()

    def hear(self, event: ClientEvent) -> None:
        if isinstance(event, Replied) and isinstance(event.method, methods.QueueDeclareOk):
            assert self.client is not None
            self.lives.append((self.queue, self.client))
            self.number = self.run.new_number()
            self.amqp.consume(CHANNEL, self.queue, f"c{self.number}", no_ack=True)
            self.run.replies[self.name] = self.queue
        else:
            super().hear(event)

    def gone(self) -> None:
        super().gone()
        self.run.replies.pop(self.name, None)


class Replier(Publisher):
    """Publishes to whatever exclusive queues there are."""

    def __init__(self, run: "Run", name: str) -> None:
        super().__init__(run, name, [])

    def act(self) -> None:
        self.routes = [("", queue, (queue,)) for queue in self.run.replies.values()]
        if self.routes:
            super().act()

    def hear(self, event: ClientEvent) -> None:
        # The queue may have ended with its owner: then the message comes back or is dropped.
        if not isinstance(event, Received):
            super().hear(event)
