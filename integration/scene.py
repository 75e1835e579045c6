"""What tests share that look at features across a change of leader: clients, kills, and the steps of all tests."""

import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

import pika
import pika.exceptions
from pika.adapters.blocking_connection import BlockingChannel, BlockingConnection

from integration.harness import Cluster, Node, wait_for

SHARDS = 2
"""More than one, so that dead letters go from one to another."""
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
        self._leaders: list[Node] = []
        for group in range(1, SHARDS + 1):
            leader = cluster.wait_leader(group)
            if leader not in self._leaders:
                self._leaders.append(leader)
        self.kept = connect(next(node for node in cluster.nodes if node not in self._leaders))
        self._dying = connect(self._leaders[0])
        self.first = confirming(self._dying)
        self._looking: BlockingConnection | None = None
        self._steps = {name: prepare(self) for name, prepare in _PREPARED.items()}

    def run(self) -> None:
        """Prepare all tests, then kill each node that leads a shard, and start it again."""
        for steps in self._steps.values():
            next(steps)
        for leader in self._leaders:
            self._kill(leader)
        with contextlib.suppress(pika.exceptions.AMQPError):
            self._dying.process_data_events(0)
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
    """A consumer, the bodies that it got, and when it was cancelled (0.0: it was not)."""

    def __init__(self, connection: BlockingConnection, queue: str, **options: Any) -> None:
        self.channel = connection.channel()
        self.bodies: list[bytes] = []
        self.cancelled_s = 0.0
        self._connection = connection
        prefetch, is_global = options.pop("prefetch", 0), options.pop("global_qos", False)
        if prefetch:
            self.channel.basic_qos(prefetch_count=prefetch, global_qos=is_global)
        self.channel.add_on_cancel_callback(self._on_cancel)
        self.tag = self.channel.basic_consume(queue, self._on_message, **options)

    def _on_message(self, _channel: BlockingChannel, _method: Any, _properties: Any, body: bytes) -> None:
        self.bodies.append(body)

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
