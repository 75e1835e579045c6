"""Every feature across a change of leader: declare and publish, SIGKILL the leader of each shard, look.

A test is a generator. What stands before its `yield` is done for all tests first, through the node that is killed next,
or by consumers on a node that stays; then the leaders of all shards are killed, one after the other; then each test
looks, through another node. So all features share the kills, and one that is hurt by another is seen as well.
"""

import calendar
import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

import pika
import pika.exceptions
import pytest
from pika.adapters.blocking_connection import BlockingChannel, BlockingConnection

from integration.harness import Cluster, Node, temporary_directory, wait_for

SHARDS = 2
WAIT_MS = 8000
"""Times to live, delays and timeouts: they begin before the kills and end after the first of them."""
ANSWER_S_MAX = 30.0

Steps = Iterator[None]
Prepare = Callable[["Scene"], Steps]

_PREPARED: dict[str, Prepare] = {}


def across_leaders(steps: Prepare) -> Callable[["Scene"], None]:
    """Make a test of a generator: up to its `yield` before the kills, the rest after them."""
    _PREPARED[steps.__name__] = steps

    @functools.wraps(steps)
    def test(scene: "Scene") -> None:
        scene.go_on(steps.__name__)

    return test


class Scene:
    """A cluster in which leaders die, and the clients of all tests.

    Attributes:
        first: a channel to the node that dies first.
        kept: a connection to a node that lives on.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.victims: list[Node] = []
        leaders = [cluster.wait_leader(group) for group in range(1, SHARDS + 1)]
        survivor = next(node for node in cluster.nodes if node not in leaders)
        self.kept = connect(survivor)
        self._dying = connect(leaders[0])
        self.first = confirming(self._dying)
        self._looking: BlockingConnection | None = None
        self._steps = {name: prepare(self) for name, prepare in _PREPARED.items()}

    def run(self) -> None:
        """Prepare all tests, then kill the leader of each shard that has not been killed yet."""
        for steps in self._steps.values():
            next(steps)
        for group in range(1, SHARDS + 1):
            leader = self.cluster.wait_leader(group)
            if leader not in self.victims or not self.victims:
                self._kill(leader)
        self._looking = connect(self.victims[-1])

    def _kill(self, node: Node) -> None:
        node.kill()
        self.victims.append(node)
        for group in range(1, SHARDS + 1):
            self.cluster.wait_leader(group)
        self.cluster.restart(node)

    def go_on(self, name: str) -> None:
        """What a test does after the kills."""
        assert next(self._steps[name], self) is self, "a test has one yield"

    def look(self) -> BlockingChannel:
        """A channel to a node that was killed and is back."""
        assert self._looking is not None
        return confirming(self._looking)

    def ready(self, queue: str) -> int | None:
        """Ready messages of a queue as another node sees them; None: it is not there."""
        found = [each for each in self.victims[-1].status()["queues"] if each["name"] == queue]
        return int(found[0]["ready"]) if found else None

    def close(self) -> None:
        """End what is left of the clients."""
        for connection in (self.kept, self._looking):
            if connection is not None and connection.is_open:
                connection.close()


class Consumer:
    """A consumer and what it got: (body, when, properties, redelivered)."""

    def __init__(self, connection: BlockingConnection, queue: str, **options: Any) -> None:
        self.channel = connection.channel()
        self.bodies: list[bytes] = []
        self.got: list[tuple[float, Any, Any]] = []
        self.cancelled_s = 0.0
        self._connection = connection
        prefetch = options.pop("prefetch", 0)
        if prefetch:
            self.channel.basic_qos(prefetch_count=prefetch)
        self.channel.add_on_cancel_callback(self._on_cancel)
        self.tag = self.channel.basic_consume(queue, self._on_message, **options)

    def _on_message(self, _channel: BlockingChannel, method: Any, properties: Any, body: bytes) -> None:
        self.bodies.append(body)
        self.got.append((time.time(), method, properties))

    def _on_cancel(self, _method: Any) -> None:
        self.cancelled_s = time.time()

    def wait(self, count: int) -> list[bytes]:
        """The bodies, once there are so many."""
        wait_until(self._connection, lambda: len(self.bodies) >= count)
        return self.bodies


def connect(node: Node) -> BlockingConnection:
    return pika.BlockingConnection(pika.URLParameters(node.url))


def confirming(connection: BlockingConnection) -> BlockingChannel:
    channel = connection.channel()
    channel.confirm_delivery()
    return channel


def wait_until(connection: BlockingConnection, condition: Callable[[], bool]) -> None:
    """Read until the condition holds, or too long."""
    deadline = time.monotonic() + ANSWER_S_MAX
    while not condition() and time.monotonic() < deadline:
        connection.process_data_events(0.05)


def declare(channel: BlockingChannel, queue: str, **arguments: object) -> None:
    """Declare a durable queue; `max_length=3` means the argument `x-max-length`."""
    named = {f"x-{name.replace('_', '-')}": value for name, value in arguments.items()}
    channel.queue_declare(queue, durable=True, arguments=named)


def send(channel: BlockingChannel, queue: str, *bodies: str, **properties: Any) -> None:
    for body in bodies:
        channel.basic_publish("", queue, body.encode(), pika.BasicProperties(**properties))


def drain(channel: BlockingChannel, queue: str) -> list[str]:
    """Take all that is ready."""
    bodies = []
    while (found := channel.basic_get(queue, auto_ack=True))[0]:
        bodies.append(found[2].decode())
    return bodies


def take_when_there(channel: BlockingChannel, queue: str) -> tuple[float, Any, Any, str]:
    """Wait for one message and take it; returns (when, method, properties, body)."""
    found = wait_for(lambda: _taken(channel.basic_get(queue, auto_ack=True)), ANSWER_S_MAX)
    assert found, f"nothing comes to {queue}"
    method, properties, body = found
    return time.time(), method, properties, body.decode()


def _taken(found: tuple[Any, Any, Any]) -> tuple[Any, Any, Any] | None:
    return found if found[0] else None


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with (
        temporary_directory() as directory,
        Cluster(directory, settings={"shards": SHARDS}) as cluster,
    ):
        found = Scene(cluster)
        try:
            found.run()
            yield found
        finally:
            found.close()


# --- publishing ---


@across_leaders
def test_confirmed_messages_are_there_in_order(scene: Scene) -> Steps:
    """What was confirmed is in the queue, once, in the order in which it was published."""
    declare(scene.first, "confirmed")
    send(scene.first, "confirmed", *[str(i) for i in range(100)])
    yield
    assert drain(scene.look(), "confirmed") == [str(i) for i in range(100)]


@across_leaders
def test_copies_are_there(scene: Scene) -> Steps:
    """CC and BCC are further routing keys; nobody is told of BCC."""
    for name in ("copy.to", "copy.cc", "copy.bcc"):
        declare(scene.first, name)
    send(scene.first, "copy.to", "x", headers={"CC": ["copy.cc"], "BCC": ["copy.bcc"]})
    yield
    channel = scene.look()
    for name in ("copy.to", "copy.cc", "copy.bcc"):
        _, _, properties, body = take_when_there(channel, name)
        assert (body, properties.headers) == ("x", {"CC": ["copy.cc"]})


@across_leaders
def test_duplicate_is_known(scene: Scene) -> Steps:
    """A publisher that sends again through another node has its message stored once."""
    declare(scene.first, "dedup")
    send(scene.first, "dedup", "a", headers={"x-dedup-id": "order-1"})
    yield
    channel = scene.look()
    send(channel, "dedup", "a", headers={"x-dedup-id": "order-1"})
    send(channel, "dedup", "b", headers={"x-dedup-id": "order-2"})
    assert drain(channel, "dedup") == ["a", "b"]


@across_leaders
def test_transaction_is_done_or_not(scene: Scene) -> Steps:
    """A commit that was answered stays; what was not committed on a node that died is not there."""
    declare(scene.first, "tx")
    channel = scene.first.connection.channel()
    channel.tx_select()
    send(channel, "tx", "committed")
    channel.tx_commit()
    send(channel, "tx", "lost with its node")
    open_still = scene.kept.channel()
    open_still.tx_select()
    send(open_still, "tx", "committed later")
    yield
    assert scene.ready("tx") == 1
    open_still.tx_commit()
    assert drain(scene.look(), "tx") == ["committed", "committed later"]


# --- routing ---


@across_leaders
def test_exchanges_and_bindings_stay(scene: Scene) -> Steps:
    """Topic and headers exchanges, and a binding between exchanges, route after it as before."""
    channel = scene.first
    channel.exchange_declare("routes.topic", "topic", durable=True)
    channel.exchange_declare("routes.headers", "headers", durable=True)
    channel.exchange_bind("routes.headers", "routes.topic", "to.headers.#")
    declare(channel, "routes.a")
    declare(channel, "routes.b")
    channel.queue_bind("routes.a", "routes.topic", "*.a")
    channel.queue_bind("routes.b", "routes.headers", arguments={"x-match": "all", "colour": "red"})
    yield
    after = scene.look()
    after.basic_publish("routes.topic", "any.a", b"1")
    red = pika.BasicProperties(headers={"colour": "red"})
    after.basic_publish("routes.topic", "to.headers", b"2", red)
    after.basic_publish("routes.topic", "to.headers", b"3")
    assert (drain(after, "routes.a"), drain(after, "routes.b")) == (["1"], ["2"])


@across_leaders
def test_alternate_exchange_takes_what_goes_nowhere(scene: Scene) -> Steps:
    """Before and after."""
    channel = scene.first
    channel.exchange_declare("alternate.to", "fanout", durable=True)
    channel.exchange_declare("alternate", durable=True, arguments={"alternate-exchange": "alternate.to"})
    declare(channel, "alternate.rest")
    channel.queue_bind("alternate.rest", "alternate.to")
    channel.basic_publish("alternate", "nowhere", b"before")
    yield
    after = scene.look()
    after.basic_publish("alternate", "nowhere", b"after")
    assert drain(after, "alternate.rest") == ["before", "after"]


# --- what becomes of messages ---


@across_leaders
def test_message_ttl_runs_on(scene: Scene) -> Steps:
    """Messages expire at their time, neither earlier nor later, and each is dead-lettered once."""
    declare(
        scene.first, "ttl", message_ttl=WAIT_MS, dead_letter_exchange="", dead_letter_routing_key="ttl.dead"
    )
    declare(scene.first, "ttl.dead")
    published = time.time()
    send(scene.first, "ttl", "a", "b")
    yield
    channel = scene.look()
    expires = published + WAIT_MS / 1000
    for body in ("a", "b"):
        _, _, properties, found = take_when_there(channel, "ttl.dead")
        (death,) = properties.headers["x-death"]
        assert (found, death["reason"], death["count"]) == (body, "expired", 1)
        assert calendar.timegm(death["time"].timetuple()) >= int(expires)
    assert (drain(channel, "ttl"), drain(channel, "ttl.dead")) == ([], [])


@across_leaders
def test_expiration_runs_on(scene: Scene) -> Steps:
    """A message's own time to live."""
    declare(scene.first, "expiration")
    published = time.time()
    send(scene.first, "expiration", "short", expiration=str(WAIT_MS))
    send(scene.first, "expiration", "long", expiration="3600000")
    yield
    assert wait_for(lambda: scene.ready("expiration") == 1, ANSWER_S_MAX)
    assert time.time() >= published + WAIT_MS / 1000
    assert drain(scene.look(), "expiration") == ["long"]


@across_leaders
def test_unused_queue_expires(scene: Scene) -> Steps:
    """At its time and not before."""
    declare(scene.first, "expires", expires=WAIT_MS)
    declared = time.time()
    yield
    assert wait_for(lambda: scene.ready("expires") is None, ANSWER_S_MAX)
    assert time.time() >= declared + WAIT_MS / 1000 - 0.1


@across_leaders
def test_length_limits_drop_the_oldest(scene: Scene) -> Steps:
    """Limits of messages and of bytes are exact with what was there before."""
    declare(scene.first, "length", max_length=3)
    declare(scene.first, "bytes", max_length_bytes=10)
    send(scene.first, "length", "1", "2", "3", "4")
    send(scene.first, "bytes", "11111", "22222")
    yield
    channel = scene.look()
    assert scene.ready("length") == 3
    send(channel, "length", "5")
    send(channel, "bytes", "33333")
    assert drain(channel, "length") == ["3", "4", "5"]
    assert drain(channel, "bytes") == ["22222", "33333"]


@across_leaders
def test_full_queue_refuses(scene: Scene) -> Steps:
    """With reject-publish a publish is nacked; with reject-publish-dlx it is dead-lettered too."""
    declare(scene.first, "refuse", max_length=2, overflow="reject-publish")
    dead = {"dead_letter_exchange": "", "dead_letter_routing_key": "refuse.dead"}
    declare(scene.first, "refuse.dlx", max_length=1, overflow="reject-publish-dlx", **dead)
    declare(scene.first, "refuse.dead")
    send(scene.first, "refuse", "1", "2")
    send(scene.first, "refuse.dlx", "1")
    with pytest.raises(pika.exceptions.NackError):
        send(scene.first, "refuse", "before")
    yield
    channel = scene.look()
    for queue in ("refuse", "refuse.dlx"):
        with pytest.raises(pika.exceptions.NackError):
            send(channel, queue, "after")
    assert drain(channel, "refuse") == ["1", "2"]
    assert drain(channel, "refuse.dlx") == ["1"]
    assert take_when_there(channel, "refuse.dead")[3] == "after"


@across_leaders
def test_dead_letter_that_no_queue_takes_waits(scene: Scene) -> Steps:
    """At-least-once: it comes as soon as there is a queue for it."""
    dead = {"dead_letter_exchange": "", "dead_letter_routing_key": "waits.dead"}
    declare(scene.first, "waits", dead_letter_strategy="at-least-once", overflow="reject-publish", **dead)
    send(scene.first, "waits", "x")
    method, _, _ = scene.first.basic_get("waits")
    scene.first.basic_reject(method.delivery_tag, requeue=False)
    yield
    channel = scene.look()
    declare(channel, "waits.dead")
    assert take_when_there(channel, "waits.dead")[3] == "x"
    assert drain(channel, "waits.dead") == []


@across_leaders
def test_priorities_stay(scene: Scene) -> Steps:
    """Higher ones first, in order within each, whether published before or after."""
    declare(scene.first, "priority", max_priority=9)
    for priority in (1, 5, 9, 5):
        send(scene.first, "priority", f"{priority} before", priority=priority)
    yield
    channel = scene.look()
    send(channel, "priority", "5 after", priority=5)
    expected = ["9 before", "5 before", "5 before", "5 after", "1 before"]
    assert drain(channel, "priority") == expected


@across_leaders
def test_delayed_messages_come_at_their_time(scene: Scene) -> Steps:
    """Each once, and none early: x-delay and x-deliver-at."""
    declare(scene.first, "delay")
    published = time.time()
    due_ms = int((published + WAIT_MS / 1000 + 0.5) * 1000)
    send(scene.first, "delay", "x-delay", headers={"x-delay": WAIT_MS})
    send(scene.first, "delay", "x-deliver-at", headers={"x-deliver-at": due_ms})
    send(scene.first, "delay", "at once")
    yield
    channel = scene.look()
    assert take_when_there(channel, "delay")[3] == "at once"
    came, _, _, body = take_when_there(channel, "delay")
    assert body == "x-delay" and came >= published + WAIT_MS / 1000
    came, _, _, body = take_when_there(channel, "delay")
    assert body == "x-deliver-at" and came >= due_ms / 1000
    assert drain(channel, "delay") == []


@across_leaders
def test_delivery_limit_counts_on(scene: Scene) -> Steps:
    """Failures before and after count together; a delivery says how many there were."""
    dead = {"dead_letter_exchange": "", "dead_letter_routing_key": "limit.dead"}
    declare(scene.first, "limit", delivery_limit=2, **dead)
    declare(scene.first, "limit.dead")
    send(scene.first, "limit", "poison")
    for _ in range(2):
        method, _, _ = scene.first.basic_get("limit")
        scene.first.basic_nack(method.delivery_tag, requeue=True)
    yield
    channel = scene.look()
    method, properties, _ = channel.basic_get("limit")
    assert (method.redelivered, properties.headers["x-delivery-count"]) == (True, 2)
    channel.basic_nack(method.delivery_tag, requeue=True)
    _, _, properties, body = take_when_there(channel, "limit.dead")
    assert (body, properties.headers["x-first-death-reason"]) == ("poison", "delivery_limit")
    assert drain(channel, "limit") == []


@across_leaders
def test_delayed_retry_waits_on(scene: Scene) -> Steps:
    """What failed comes again at its time, marked redelivered."""
    declare(scene.first, "retry", delayed_retry_type="all", delayed_retry_min=WAIT_MS)
    send(scene.first, "retry", "again")
    method, _, _ = scene.first.basic_get("retry")
    failed = time.time()
    scene.first.basic_nack(method.delivery_tag, requeue=True)
    yield
    came, method, _, body = take_when_there(scene.look(), "retry")
    assert (body, method.redelivered) == ("again", True)
    assert came >= failed + WAIT_MS / 1000


# --- consumers ---


@across_leaders
def test_unacked_messages_of_a_dead_node_come_again(scene: Scene) -> Steps:
    """In their old order, marked redelivered; those of a node that lives stay where they are."""
    declare(scene.first, "unacked")
    send(scene.first, "unacked", "dying", "kept", "next")
    scene.first.basic_get("unacked")
    kept = scene.kept.channel()
    method, _, body = kept.basic_get("unacked")
    assert body == b"kept"
    yield
    channel = scene.look()
    _, again, _, body = take_when_there(channel, "unacked")
    assert (body, again.redelivered) == ("dying", True)
    _, after, _, body = take_when_there(channel, "unacked")
    assert (body, after.redelivered) == ("next", False)
    kept.basic_ack(method.delivery_tag)
    kept.close()
    assert drain(channel, "unacked") == []


@across_leaders
def test_one_consumer_stays_active(scene: Scene) -> Steps:
    """The one that was served is served on; the other one when it leaves."""
    declare(scene.first, "single", single_active_consumer=True)
    one = Consumer(scene.kept, "single", auto_ack=True)
    other = Consumer(scene.kept, "single", auto_ack=True)
    send(scene.first, "single", "before")
    assert one.wait(1) == [b"before"]
    yield
    channel = scene.look()
    send(channel, "single", "after")
    assert one.wait(2) == [b"before", b"after"]
    one.channel.basic_cancel(one.tag)
    send(channel, "single", "last")
    assert other.wait(1) == [b"last"]
    other.channel.close()


@across_leaders
def test_consumer_priorities_stay(scene: Scene) -> Steps:
    """The consumer of the higher priority is served while it takes more."""
    declare(scene.first, "consumers")
    low = Consumer(scene.kept, "consumers", arguments={"x-priority": 1})
    high = Consumer(scene.kept, "consumers", arguments={"x-priority": 10}, prefetch=2)
    yield
    send(scene.look(), "consumers", "1", "2", "3")
    assert (high.wait(2), low.wait(1)) == ([b"1", b"2"], [b"3"])
    high.channel.close()
    low.channel.close()


@across_leaders
def test_exclusive_consumer_stays_alone(scene: Scene) -> Steps:
    """403 for any other."""
    declare(scene.first, "alone")
    alone = Consumer(scene.kept, "alone", exclusive=True)
    yield
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as raised:
        scene.look().basic_consume("alone", lambda *_: None)
    assert raised.value.reply_code == 403
    alone.channel.close()


@across_leaders
def test_consumer_timeout_runs_on(scene: Scene) -> Steps:
    """At its time the consumer is cancelled, and another one gets its message."""
    declare(scene.first, "timeout", consumer_timeout=WAIT_MS)
    send(scene.first, "timeout", "x")
    got = time.time()
    slow = Consumer(scene.kept, "timeout")
    assert slow.wait(1) == [b"x"]
    yield
    wait_until(scene.kept, lambda: slow.cancelled_s > 0)
    assert slow.cancelled_s >= got + WAIT_MS / 1000
    _, method, _, body = take_when_there(scene.look(), "timeout")
    assert (body, method.redelivered) == ("x", True)
    assert slow.channel.is_open
    slow.channel.close()


@across_leaders
def test_direct_reply_finds_its_requester(scene: Scene) -> Steps:
    """The request is in a queue; the reply goes through another node to where the requester waits."""
    declare(scene.first, "requests")
    requester = Consumer(scene.kept, "amq.rabbitmq.reply-to", auto_ack=True)
    send(requester.channel, "requests", "2 + 2", reply_to="amq.rabbitmq.reply-to")
    wait_until(scene.kept, lambda: scene.cluster.counts("requests", scene.cluster.nodes[0])[0] == 1)
    yield
    channel = scene.look()
    _, _, properties, _ = take_when_there(channel, "requests")
    send(channel, properties.reply_to, "4")
    assert requester.wait(1) == [b"4"]
    requester.channel.close()


# Last, so that the letters are under way when the leader dies.
@across_leaders
def test_dead_letters_come_once(scene: Scene) -> Steps:
    """Rejected right before the leader dies: all are there, each once, in their order."""
    dead = {"dead_letter_exchange": "", "dead_letter_routing_key": "rejected.dead"}
    declare(scene.first, "rejected", **dead)
    declare(scene.first, "rejected.dead")
    send(scene.first, "rejected", *[str(i) for i in range(100)])
    reader = Consumer(scene.kept, "rejected")
    reader.wait(100)
    reader.channel.basic_nack(0, multiple=True, requeue=False)
    scene.kept.process_data_events(0)
    yield
    channel = scene.look()
    assert wait_for(lambda: scene.ready("rejected.dead") == 100, ANSWER_S_MAX), scene.ready("rejected.dead")
    assert drain(channel, "rejected.dead") == [str(i) for i in range(100)]
    assert drain(channel, "rejected") == []
    reader.channel.close()
