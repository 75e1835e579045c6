"""Real links on 127.0.0.1: handshake, ups and downs, order, bounds."""

import asyncio
import functools
import logging
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cluster.envelope import Batch, Envelope
from cluster.raft.rpc import Heartbeat
from cluster.transport import link
from cluster.transport.hello import Identity, TransportError
from cluster.transport.lane import Lane
from cluster.transport.link import LinkEvents
from cluster.transport.network import Network

ROOT = Path(__file__).parents[3]


class End:
    """One node's network, and what it was told."""

    def __init__(
        self, node: int, peers: dict[int, tuple[str, int]], port: int, boot: int, cluster: str
    ) -> None:
        self.received: list[Envelope] = []
        self.ups: list[tuple[int, int]] = []
        self.downs: list[tuple[int, bool]] = []
        events = LinkEvents(
            lambda peer, peer_boot: self.ups.append((peer, peer_boot)),
            lambda peer, refused: self.downs.append((peer, refused)),
        )
        identity = Identity(cluster, node, boot)
        self.network = Network(identity, ("127.0.0.1", port), peers, self.received.append, events)


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for made in sockets:
        made.bind(("127.0.0.1", 0))
    ports = [int(made.getsockname()[1]) for made in sockets]
    for made in sockets:
        made.close()
    return ports


async def until(condition: Callable[[], bool], timeout_s: float = 5) -> float:
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < timeout_s, "it did not happen"
        await asyncio.sleep(0.002)
    return time.monotonic() - start


@asynccontextmanager
async def pair(cluster_2: str = "c") -> AsyncIterator[tuple[End, End]]:
    ports = free_ports(2)
    one = End(1, {2: ("127.0.0.1", ports[1])}, ports[0], 11, "c")
    two = End(2, {1: ("127.0.0.1", ports[0])}, ports[1], 22, cluster_2)
    await one.network.start()
    await two.network.start()
    try:
        yield one, two
    finally:
        await one.network.close()
        await two.network.close()


def test_links_come_up_and_carry_envelopes_in_order() -> None:
    """Each lane keeps its order; sender and boot are those of the hello."""

    async def run() -> None:
        async with pair() as (one, two):
            await until(lambda: bool(one.ups) and bool(two.ups))
            assert (one.ups, two.ups) == ([(2, 22)], [(1, 11)])
            for number in range(200):
                envelope = Envelope(
                    1, 11, 22, [(0, Heartbeat(1, 2, 1, number))], [Batch(1, b"%d" % number * 5000)]
                )
                assert one.network.send(2, envelope)
            await until(lambda: sum(len(e.batches) for e in two.received) == 200)
            await until(lambda: sum(len(e.messages) for e in two.received) == 200)
            assert [b.data for e in two.received for b in e.batches] == [b"%d" % n * 5000 for n in range(200)]
            assert {(e.sender, e.boot, e.to_boot) for e in two.received} == {(1, 11, 22)}
            assert len(two.received) < 200, "what waits is joined"
            big = Envelope(1, 11, 22, batches=[Batch(1, b"x" * 50_000_000)])
            assert one.network.send(2, big)
            await until(
                lambda: (
                    len(two.received[-1].batches[-1:]) == 1 and len(two.received[-1].batches[-1].data) > 1e7
                )
            )

    asyncio.run(run())


def test_control_overtakes_bulk() -> None:
    """A heartbeat must not wait behind megabytes of entries."""

    async def run() -> None:
        async with pair() as (one, two):
            await until(lambda: bool(one.ups))
            for _ in range(20):
                one.network.send(2, Envelope(1, 11, 22, batches=[Batch(1, b"x" * 2_000_000)]))
            one.network.send(2, Envelope(1, 11, 22, [(0, Heartbeat(1, 2, 1, 5))]))
            await until(lambda: any(e.messages for e in two.received))
            assert sum(len(e.batches) for e in two.received) < 20
            await until(lambda: sum(len(e.batches) for e in two.received) == 20)

    asyncio.run(run())


def test_full_lane_drops_instead_of_growing() -> None:
    """Sending never waits, and memory is bounded; a single envelope always fits."""

    async def run() -> None:
        lane = Lane(bytes_max=1000)
        assert lane.put(Envelope(1, 1, 1), 5000)
        assert not lane.put(Envelope(1, 1, 1), 1)
        await lane.take()
        assert lane.put(Envelope(1, 1, 1), 900)
        assert lane.put(Envelope(1, 1, 1), 100)
        assert not lane.put(Envelope(1, 1, 1), 100)

    asyncio.run(run())


def test_mismatch_is_refused_with_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """Nodes of two clusters that share an address list must not mix."""

    async def run() -> None:
        async with pair(cluster_2="other") as (one, two):
            await until(lambda: len(caplog.records) >= 4)
            await asyncio.sleep(0.4)
            assert not one.ups and not two.ups
            assert not one.network.send(2, Envelope(1, 11, 22))

    with caplog.at_level(logging.WARNING):
        asyncio.run(run())
    texts = sorted(record.getMessage().replace("127.0.0.1", "HOST") for record in caplog.records)
    assert len(texts) == 4, texts
    assert any("refuses this node: it is of cluster 'c', this is 'other'" in text for text in texts)
    assert any("refused node 1" in text and "it is of cluster 'c', this is 'other'" in text for text in texts)


def test_unknown_name_is_one_line_and_looked_up_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container that is gone has no name; when it is back it has another number."""
    known: list[str] = []
    asked: list[str] = []

    async def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        if not known:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return known

    async def run() -> None:
        ports = free_ports(2)
        one = End(1, {2: ("localhost", ports[1])}, ports[0], 11, "c")
        two = End(2, {1: ("127.0.0.1", ports[0])}, ports[1], 22, "c")
        await one.network.start()
        await until(lambda: asked.count("localhost") >= 3)
        assert not one.downs  # nothing is known of its process
        await two.network.start()
        known[:] = ["::1", "127.0.0.1"]  # nobody listens on the first
        await until(lambda: one.ups == [(2, 22)] and two.ups == [(1, 11)])
        await one.network.close()
        await two.network.close()

    monkeypatch.setattr(link, "_resolve", resolve)
    with caplog.at_level(logging.WARNING):
        asyncio.run(run())
    (text,) = [record.getMessage() for record in caplog.records if record.name == link.__name__]
    assert text.startswith("the name 'localhost' of node 2 is not known")


def test_end_of_a_process_is_known_within_milliseconds() -> None:
    """SIGKILL: the stream breaks and the address refuses; a new process has a new boot."""

    async def run() -> list[float]:
        ports = free_ports(2)
        one = End(1, {2: ("127.0.0.1", ports[1])}, ports[0], 11, "c")
        await one.network.start()
        times = []
        for boot in (100, 101):
            command = [sys.executable, __file__, str(ports[1]), str(ports[0]), str(boot)]
            process = subprocess.Popen(command, env={"PYTHONPATH": str(ROOT)})
            await until(functools.partial(lambda wanted: (2, wanted) in one.ups, boot), 10)
            one.downs.clear()
            process.kill()
            broken_s = await until(lambda: (2, False) in one.downs)
            refused_s = await until(lambda: (2, True) in one.downs)
            times += [broken_s, broken_s + refused_s]
            assert (one.downs[0], one.downs[-1]) == ((2, False), (2, True))
            process.wait()
        await one.network.close()
        return times

    times = asyncio.run(run())
    assert max(times) < 0.5, times


def test_port_in_use_is_one_clear_line() -> None:
    """The user reads which address it was."""

    async def run() -> None:
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            port = other.getsockname()[1]
            with pytest.raises(
                TransportError, match=f"cluster address 127.0.0.1:{port} cannot be listened on"
            ):
                await End(1, {}, port, 1, "c").network.start()

    asyncio.run(run())


async def serve(port: int, peer_port: int, boot: int) -> None:
    end = End(2, {1: ("127.0.0.1", peer_port)}, port, boot, "c")
    await end.network.start()
    await asyncio.sleep(60)


if __name__ == "__main__":
    asyncio.run(serve(*[int(argument) for argument in sys.argv[1:]]))
