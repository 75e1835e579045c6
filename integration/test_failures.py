"""Nodes that die, stop or stay away: nothing confirmed is lost, and what cannot be done is said."""

import asyncio
import time
from pathlib import Path

import aio_pika
import aio_pika.exceptions
import pytest

from integration import nothing_lost
from integration.harness import Cluster, wait_for
from integration.nothing_lost import connected

NO_CONFIRM_S = 4.0
ERROR_S_MAX = 15.0
RETURN_S_MAX = 30.0


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "options",
    [
        nothing_lost.Options(messages=20_000, kills_min=3),
        nothing_lost.Options(messages=10_000, kills_min=2, kill_all=True),
        nothing_lost.Options(messages=10_000, kills_min=1, pause_leader_s=8.0),
        nothing_lost.Options(messages=24_000, rejoin_snapshot=True, queues=1, size=2048, rate=2_000),
    ],
    ids=["one-node", "all-nodes", "paused-leader", "snapshot"],
)
def test_nothing_is_lost(options: nothing_lost.Options, tmp_path: Path) -> None:
    """The long script in a size for every day; see integration/history.py for what is checked."""
    options.directory = tmp_path
    result = nothing_lost.run(options)
    print(result.line())
    assert not result.errors, "\n".join(result.errors[:20])
    assert result.history.settled > 0, "no ack was ever proved"


def test_one_node_down_everything_goes_on(tmp_path: Path) -> None:
    """Declare, publish with confirms and consume on both nodes that stay, whoever led the queue's shard."""
    with Cluster(tmp_path) as cluster:
        for number, victim in enumerate(cluster.nodes):
            queue = f"one-down-{number}"
            with connected(victim) as channel:
                channel.queue_declare(queue, durable=True)  # placed on a shard that this node leads
                channel.confirm_delivery()
                channel.basic_publish(
                    "", queue, b"before", nothing_lost.pika.BasicProperties(delivery_mode=2)
                )
            victim.kill()
            first, second = (node for node in cluster.nodes if node is not victim)
            with connected(first) as source, connected(second) as target:
                source.queue_declare(f"{queue}-new", durable=True)
                source.confirm_delivery()
                for body in (b"1", b"2"):
                    source.basic_publish("", queue, body)
                    source.basic_publish("", f"{queue}-new", body)
                for name, wanted in ((queue, [b"before", b"1", b"2"]), (f"{queue}-new", [b"1", b"2"])):
                    got = []
                    for method, _, body in target.consume(name, inactivity_timeout=10):
                        assert method is not None, f"{name}: only {got}"
                        got.append(body)
                        target.basic_ack(method.delivery_tag)
                        if len(got) == len(wanted):
                            break
                    target.cancel()
                    assert wanted == got
            cluster.restart(victim)


@pytest.mark.timeout(180)
def test_two_nodes_down_nothing_is_promised(tmp_path: Path) -> None:
    """Without a majority no confirm is given and a declaration fails clearly; both go on when a node returns."""
    with Cluster(tmp_path) as cluster:
        asyncio.run(_two_nodes_down(cluster))


async def _two_nodes_down(cluster: Cluster) -> None:
    survivor, other, third = cluster.nodes
    connection = await aio_pika.connect(survivor.url)
    async with connection:
        channel = await connection.channel(publisher_confirms=True)
        queue = await channel.declare_queue("two-down", durable=True)
        message = aio_pika.Message(b"confirmed", delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await channel.default_exchange.publish(message, queue.name)
        other.kill()
        third.kill()
        waiting = aio_pika.Message(b"waiting", delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        publish = asyncio.create_task(channel.default_exchange.publish(waiting, queue.name))
        declaring = await connection.channel()
        started = time.monotonic()
        with pytest.raises(aio_pika.exceptions.ChannelClosed, match=r"NOT_FOUND|INTERNAL_ERROR|timeout"):
            await asyncio.wait_for(declaring.declare_queue("cannot", durable=True), ERROR_S_MAX)
        assert time.monotonic() - started < ERROR_S_MAX
        await asyncio.sleep(max(0.0, NO_CONFIRM_S - (time.monotonic() - started)))
        assert not publish.done(), "a confirm without a majority"
        other.start()
        await asyncio.wait_for(publish, RETURN_S_MAX)
        again = await connection.channel()
        await asyncio.wait_for(again.declare_queue("can-again", durable=True), RETURN_S_MAX)
        await asyncio.to_thread(cluster.restart, third)
        with connected(third) as channel:
            bodies = [channel.basic_get(queue.name, auto_ack=True)[2] for _ in range(3)]
    assert bodies == [b"confirmed", b"waiting", None]


def test_all_nodes_stopped_and_started(tmp_path: Path) -> None:
    """A cluster that was ended in order has everything when it starts again."""
    with Cluster(tmp_path) as cluster:
        with connected(cluster.nodes[0]) as channel:
            channel.queue_declare("kept", durable=True)
            channel.confirm_delivery()
            for number in range(100):
                channel.basic_publish("", "kept", b"%d" % number)
        assert [node.stop() for node in cluster.nodes] == [0, 0, 0]
        for node in cluster.nodes:
            node.start()
        cluster.wait_ready()
        with connected(cluster.nodes[2]) as channel:
            assert (
                wait_for(lambda: channel.queue_declare("kept", passive=True).method.message_count, 10) == 100
            )
            got = [channel.basic_get("kept", auto_ack=True)[2] for _ in range(100)]
        assert [b"%d" % number for number in range(100)] == got
