"""Four kinds of traffic with three client libraries, from every node to every other, to the byte."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from itertools import permutations

import pytest

from integration.clients.drivers import DRIVERS, Driver, amqplib_missing
from integration.harness import Cluster

PAIRS = [(f"n{a}", f"n{b}") for a, b in permutations((1, 2, 3), 2)]
TEXTS = ["안녕하세요, 토끼굴!", "주문이 접수되었습니다 ✓", "한글과 English와 😀", "ㄱㄴㄷ\n\t끝", ""]
BODIES = [text.encode() for text in TEXTS]


@pytest.fixture(scope="module", params=list(DRIVERS))
def drivers(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[dict[str, Driver]]:
    """One client library, connected to each node."""
    if request.param == "amqplib" and (reason := amqplib_missing()):
        pytest.skip(reason)
    with ExitStack() as stack:
        yield {
            node.name: stack.enter_context(closing(DRIVERS[request.param](node.url)))
            for node in cluster.nodes
        }


@pytest.fixture(params=PAIRS, ids=["-".join(pair) for pair in PAIRS])
def pair(request: pytest.FixtureRequest, drivers: dict[str, Driver]) -> tuple[Driver, Driver, str]:
    """Publisher's and consumer's client, and a prefix for names that no other test has."""
    source, target = request.param
    kind = type(drivers[source]).__name__
    return drivers[source], drivers[target], f"{kind}-{source}-{target}-"


def test_work_queue(pair: tuple[Driver, Driver, str]) -> None:
    """A durable queue with persistent messages and acks: all come, in order, once."""
    source, target, prefix = pair
    queue = f"{prefix}work"
    source.declare("", "", [(queue, [])])
    for body in BODIES:
        source.publish("", queue, body)
    assert target.take(queue, len(BODIES)) == BODIES
    target.publish("", queue, b"last")
    assert target.take(queue, 1) == [b"last"], "what was acked came again"


def test_publish_subscribe(pair: tuple[Driver, Driver, str]) -> None:
    """A fanout exchange: every queue gets every message."""
    source, target, prefix = pair
    exchange, queues = f"{prefix}fanout", [f"{prefix}sub{i}" for i in range(3)]
    source.declare(exchange, "fanout", [(queue, [""]) for queue in queues])
    for body in BODIES:
        source.publish(exchange, "ignored", body)
    for queue in queues:
        assert target.take(queue, len(BODIES)) == BODIES


def test_routing(pair: tuple[Driver, Driver, str]) -> None:
    """A direct exchange: each severity to a queue of its own."""
    source, target, prefix = pair
    exchange, severities = f"{prefix}direct", ("error", "info", "warning")
    source.declare(exchange, "direct", [(f"{prefix}{each}", [each]) for each in severities])
    for body in BODIES:
        for each in severities:
            source.publish(exchange, each, each.encode() + body)
    for each in severities:
        assert [each.encode() + body for body in BODIES] == target.take(f"{prefix}{each}", len(BODIES))


def test_topics(pair: tuple[Driver, Driver, str]) -> None:
    """A topic exchange: a message that matches several patterns reaches each queue, once."""
    source, target, prefix = pair
    exchange = f"{prefix}topic"
    patterns = {"user": "user.*", "system": "system.#", "errors": "*.error"}
    source.declare(exchange, "topic", [(f"{prefix}{name}", [key]) for name, key in patterns.items()])
    wanted: dict[str, list[bytes]] = {name: [] for name in patterns}
    routes = {
        "user.login": ["user"],
        "user.error": ["user", "errors"],
        "system": ["system"],
        "system.disk.full": ["system"],
        "system.error": ["system", "errors"],
        "mail.error": ["errors"],
    }
    for key, names in routes.items():
        body = f"{key}: 오류 없음".encode()
        source.publish(exchange, key, body)
        for name in names:
            wanted[name].append(body)
    for name, bodies in wanted.items():
        assert bodies == target.take(f"{prefix}{name}", len(bodies))
