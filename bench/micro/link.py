"""What a link costs, by the size of an entry: python -m bench.micro.link.

Two networks in two processes on 127.0.0.1. One sends appends, the other answers each, as a follower whose disk costs
nothing: alone, one after the other, which gives the time there and back; and so many at a time that they are joined.
"""

import asyncio
import statistics
import subprocess
import sys
import time

import uvloop

from cluster.envelope import Envelope
from cluster.raft.rpc import AppendEntries, AppendReply
from cluster.transport.hello import Identity
from cluster.transport.link import LinkEvents
from cluster.transport.network import Network
from cluster.types import Entry
from tests.cluster.transport.test_network import free_ports

HERE, THERE = 1, 2
ROUND_S = 0.5
ROUNDS = 3
AT_ONCE = 16


class Leader:
    """Sends appends, and counts the answers."""

    def __init__(self, ports: list[int]) -> None:
        self._up = asyncio.Event()
        self._answered = asyncio.Event()
        self._missing = 0
        events = LinkEvents(lambda _node, _boot: self._up.set(), lambda _node, _refused: None)
        address = ("127.0.0.1", ports[0])
        peers = {THERE: ("127.0.0.1", ports[1])}
        self.network = Network(Identity("bench", HERE, 1), address, peers, self._receive, events)

    async def start(self) -> None:
        """Come up, and wait for the link."""
        await self.network.start()
        await self._up.wait()

    def _receive(self, envelope: Envelope) -> None:
        self._missing -= len(envelope.messages)
        if self._missing <= 0:
            self._answered.set()

    async def there_and_back(self, data: bytes, count: int) -> None:
        """So many appends of one entry each, in envelopes of their own, and all the answers."""
        self._missing = count
        self._answered.clear()
        for index in range(count):
            append = AppendEntries(HERE, THERE, 3, index, 3, index, (Entry(index + 1, 3, 1, 1 << 40, data),))
            assert self.network.send(THERE, Envelope(HERE, 1, 1, [(5, append)]))
        await self._answered.wait()


async def follow(ports: list[int]) -> None:
    """Answer every append until the end of the process."""

    def receive(envelope: Envelope) -> None:
        replies = [
            (group, AppendReply(THERE, HERE, append.term, append.prev_log_index + 1))
            for group, append in envelope.messages
            if isinstance(append, AppendEntries)
        ]
        network.send(HERE, Envelope(THERE, 1, 1, list(replies)))

    events = LinkEvents(lambda _node, _boot: None, lambda _node, _refused: None)
    peers = {HERE: ("127.0.0.1", ports[0])}
    network = Network(Identity("bench", THERE, 1), ("127.0.0.1", ports[1]), peers, receive, events)
    await network.start()
    await asyncio.Event().wait()


async def measure(leader: Leader, size_bytes: int, at_once: int) -> tuple[float, float]:
    """Microseconds and microseconds of this process's CPU for an append, in the best of a few rounds."""
    data = bytes(size_bytes)
    best, best_cpu = float("inf"), float("inf")
    for _ in range(ROUNDS):
        times = []
        end = time.perf_counter() + ROUND_S
        cpu = time.process_time()
        while (began := time.perf_counter()) < end:
            await leader.there_and_back(data, at_once)
            times.append(time.perf_counter() - began)
        best = min(best, statistics.median(times))
        best_cpu = min(best_cpu, (time.process_time() - cpu) / len(times))
    return best / at_once * 1e6, best_cpu / at_once * 1e6


async def lead(ports: list[int]) -> None:
    """One line for each size of an entry."""
    leader = Leader(ports)
    await leader.start()
    print(f"{'bytes':>8} {'us':>7} {'us CPU':>7}   {AT_ONCE} at once: {'us':>7} {'us CPU':>7} {'MB/s':>6}")
    for size_bytes in (64, 4096, 65536, 262144, 1 << 20):
        alone = await measure(leader, size_bytes, 1)
        many = await measure(leader, size_bytes, AT_ONCE)
        print(
            f"{size_bytes:>8} {alone[0]:>7.0f} {alone[1]:>7.0f}   "
            f"{'':>10} {many[0]:>7.0f} {many[1]:>7.0f} {size_bytes / many[0]:>6.0f}"
        )
    await leader.network.close()


def main() -> None:
    """Start the other end, and measure."""
    ports = [int(port) for port in sys.argv[1:]]
    if ports:
        uvloop.run(follow(ports))
        return
    ports = free_ports(2)
    command = [sys.executable, "-m", "bench.micro.link", *map(str, ports)]
    with subprocess.Popen(command) as follower:
        try:
            uvloop.run(lead(ports))
        finally:
            follower.kill()


if __name__ == "__main__":
    main()
