"""Transactions and direct reply-to on whole nodes: across nodes, and across a change of leader."""

import struct

import pytest

from node.wire import methods
from node.wire.properties import BasicProperties, decode_header
from tests.amqp_client import ChannelGone, Received, Replied
from tests.sim.cluster import SimClient, SimCluster
from tests.sim.test_cluster import ready_cluster, step

REPLIES = "amq.rabbitmq.reply-to"


def _opened(cluster: SimCluster, node: int) -> SimClient:
    client = SimClient(cluster, node)
    step(cluster, client)
    client.amqp.open_channel(1)
    step(cluster, client)
    return client


def _answers(client: SimClient) -> list[str]:
    return [type(event.method).__name__ for event in client.events if isinstance(event, Replied)]


def _depths(cluster: SimCluster, client: SimClient, *queues: str) -> list[int]:
    client.events.clear()
    for queue in queues:
        client.amqp.declare(1, queue, durable=True, passive=True)
    step(cluster, client)
    replies = [event.method for event in client.events if isinstance(event, Replied)]
    return [reply.message_count for reply in replies if isinstance(reply, methods.QueueDeclareOk)]


@pytest.mark.parametrize("seed", range(1, 9))
def test_commit_is_answered_though_a_leader_goes_and_is_done_once(seed: int) -> None:
    """The commands of a commit are one piece of a stream, and apply counts: nothing is lost or doubled."""
    cluster = ready_cluster(seed)
    client, names = _opened(cluster, 1), [f"q{number}" for number in range(6)]
    for name in names:
        client.amqp.declare(1, name, durable=True)
    client.amqp.publish(1, "", names[0], b"old")
    client.amqp.send(1, methods.BasicGet(queue=names[0]))
    step(cluster, client)
    client.events.clear()
    client.amqp.send(1, methods.TxSelect())
    for name in names:
        for number in range(20):
            client.amqp.publish(1, "", name, b"%d" % number)
    client.amqp.ack(1, 1)
    client.amqp.send(1, methods.TxCommit())
    client.flush()
    cluster.world.run(until_ms=cluster.world.now_ms + seed)
    cluster.crash(2 + seed % 2)
    cluster.world.run(until_ms=cluster.world.now_ms + 8000)
    assert _answers(client) == ["TxSelectOk", "TxCommitOk"], client.events
    assert _depths(cluster, client, *names) == [20] * 6


def _address(cluster: SimCluster, client: SimClient) -> str:
    """What a server on the last node is told as `reply-to` of a request."""
    server = _opened(cluster, 3)
    server.amqp.declare(1, "requests")
    step(cluster, server)
    server.amqp.consume(1, "requests", no_ack=True)
    step(cluster, server)
    client.amqp.publish(1, "", "requests", b"request", BasicProperties(reply_to=REPLIES))
    step(cluster, client)
    (request,) = [event for event in server.events if isinstance(event, Received)]
    _, properties = decode_header(struct.pack(">HHQ", 60, 0, 0) + request.properties)
    server.drop()
    assert properties.reply_to is not None
    return properties.reply_to


def test_reply_finds_its_requester_on_any_node() -> None:
    cluster = ready_cluster()
    requester = _opened(cluster, 1)
    requester.amqp.consume(1, REPLIES, "replies", no_ack=True)
    step(cluster, requester)
    address = _address(cluster, requester)
    for node in (1, 2, 3):
        server = _opened(cluster, node)
        server.amqp.declare(1, address, passive=True)
        step(cluster, server)
        assert _answers(server)[-1] == "QueueDeclareOk", server.events
        server.amqp.publish(1, "", address, b"from %d" % node)
        step(cluster, server)
    step(cluster, requester)
    received = [event for event in requester.events if isinstance(event, Received)]
    assert [event.body for event in received] == [b"from 1", b"from 2", b"from 3"]


@pytest.mark.parametrize("node", [1, 2])
def test_requester_that_has_gone_is_not_declared(node: int) -> None:
    """Also after the repairs that compare a node's memory with the metadata."""
    cluster = ready_cluster()
    requester, server = _opened(cluster, 1), _opened(cluster, node)
    requester.amqp.consume(1, REPLIES, "replies", no_ack=True)
    step(cluster, requester, 5000)
    address = _address(cluster, requester)
    server.amqp.declare(1, address, passive=True)
    step(cluster, server)
    assert _answers(server)[-1] == "QueueDeclareOk"
    requester.drop()
    step(cluster, server)
    server.amqp.declare(1, address, passive=True)
    step(cluster, server)
    assert isinstance(server.events[-1], ChannelGone)
    assert server.events[-1].reply_code == 404


def test_reply_to_a_node_that_has_gone_is_dropped() -> None:
    """And does not hold up the server's confirms for longer than it takes to notice."""
    cluster = ready_cluster()
    requester, server = _opened(cluster, 1), _opened(cluster, 2)
    requester.amqp.consume(1, REPLIES, "replies", no_ack=True)
    step(cluster, requester)
    address = _address(cluster, requester)
    cluster.crash(1)
    server.amqp.send(1, methods.TxSelect())
    server.amqp.publish(1, "", address, b"late")
    server.amqp.send(1, methods.TxCommit())
    step(cluster, server, 8000)
    assert _answers(server)[-1] == "TxCommitOk"
