"""Whole nodes together, without faults: a client anywhere reaches a queue anywhere."""

import pytest

from cluster.types import METADATA_GROUP
from tests.amqp_client import Confirmed, ConnectionReady, Received, Replied
from tests.sim.cluster import SimClient, SimCluster


def ready_cluster(seed: int = 1) -> SimCluster:
    """Three nodes that have elected their leaders."""
    cluster = SimCluster(seed)
    cluster.world.run(until_ms=cluster.world.now_ms + 4000)
    return cluster


def step(cluster: SimCluster, client: SimClient, ms: int = 500) -> None:
    """Send what the client has to say, and let time pass."""
    client.flush()
    cluster.world.run(until_ms=cluster.world.now_ms + ms)


@pytest.mark.parametrize(("producer", "consumer"), [(1, 2), (2, 3), (3, 1), (1, 1)])
def test_publish_on_one_node_consume_on_another(producer: int, consumer: int) -> None:
    """Every ordered pair of nodes serves a queue declared on either."""
    cluster = ready_cluster()
    one, other = SimClient(cluster, producer), SimClient(cluster, consumer)
    step(cluster, one)
    for client in (one, other):
        client.amqp.open_channel(1)
        step(cluster, client)
    one.amqp.declare(1, "q", durable=True)
    one.amqp.confirm_select(1)
    step(cluster, one)
    for i in range(10):
        one.amqp.publish(1, "", "q", b"message %d" % i)
    step(cluster, one)
    confirmed = [seq for e in one.events if isinstance(e, Confirmed) and e.ok for seq in e.seqs]
    assert confirmed == list(range(1, 11)), one.events
    other.amqp.qos(1, 5)
    other.amqp.consume(1, "q")
    step(cluster, other)
    received = [e for e in other.events if isinstance(e, Received)]
    assert [e.body for e in received] == [b"message %d" % i for i in range(5)], other.events
    other.amqp.ack(1, 5, multiple=True)
    step(cluster, other)
    received = [e for e in other.events if isinstance(e, Received)]
    assert [e.body for e in received] == [b"message %d" % i for i in range(10)]
    other.drop()
    step(cluster, one)
    one.amqp.declare(1, "q", durable=True, passive=True)
    step(cluster, one)
    declared = [e for e in one.events if isinstance(e, Replied)][-1].method
    assert (declared.message_count, declared.consumer_count) == (5, 0)  # type: ignore[attr-defined]


def test_node_without_clients_knows_a_new_queue_when_the_first_one_comes() -> None:
    """It hears of the declaration with a heartbeat; who opens a connection there before that waits for it."""
    cluster = ready_cluster()
    leader = next(n for n, core in cluster.cores.items() if core.host.groups[METADATA_GROUP].leads)
    others = [node for node in cluster.cores if node != leader]
    one = SimClient(cluster, leader)
    step(cluster, one)
    one.amqp.open_channel(1)
    step(cluster, one)
    one.amqp.declare(1, "q", durable=True)
    one.flush()
    while not (isinstance(one.events[-1], Replied) and "Declare" in type(one.events[-1].method).__name__):
        cluster.world.run(until_ms=cluster.world.now_ms + 1)
    knows = [cluster.cores[node].topology.queue("/", "q") is not None for node in others]
    assert not all(knows), "each node was told at once"
    behind = others[knows.index(False)]
    other = SimClient(cluster, behind)
    while not other.events:
        cluster.world.run(until_ms=cluster.world.now_ms + 1)
    assert isinstance(other.events[-1], ConnectionReady)
    assert cluster.cores[behind].topology.queue("/", "q") is not None
    assert cluster.cores[behind].topology.serves()
