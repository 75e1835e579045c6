"""What propose, replicate, commit and apply cost in CPU: python -m bench.micro.consensus.

Three hosts in one process, with stores in memory that are durable at once and a machine that does nothing, so that
only origin streams, Raft and the host are measured. Each round submits the commands of one turn at one node
and goes on until all three have applied them: three nodes' work.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from bench.micro.timing import best_us
from cluster.envelope import Envelope
from cluster.host import Host, HostOptions
from cluster.machine import Meta, Row
from cluster.placement import first_configuration
from cluster.types import MEMORY_GROUP, GroupId
from tests.sim.disk import Disk

NODES = (1, 2, 3)
TICK_MS = 50
HEARTBEATS_TICKS = 8
ELECTED_TICKS_MAX = 400


class Counter:
    """Counts entries; wants none of them kept."""

    version = 1

    def __init__(self) -> None:
        self.applied = 0
        self._dead: list[int] = []

    def apply(self, meta: Meta, data: bytes, offset: int) -> list[Any]:
        """Count."""
        self.applied += 1
        self._dead.append(meta.index)
        return []

    def origin_gone(self, meta: Meta) -> list[Any]:
        """Nothing to do."""
        return []

    def live(self) -> Mapping[int, int]:
        """Nothing."""
        return {}

    def serves(self) -> bool:
        return False

    def take_dead(self) -> list[int]:
        """All since the last call."""
        dead, self._dead = self._dead, []
        return dead

    def checkpoint(self, *, full: bool) -> list[Row]:
        """One row."""
        return [(b"n", self.applied.to_bytes(8, "big"))]

    def restore(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Start at nothing."""


class Cluster:
    """Three hosts, moved by hand."""

    def __init__(self, groups: int) -> None:
        self.groups = range(groups)
        self.now_ms = 1_000_000
        self.disks = {node: Disk() for node in NODES}
        self.machines: dict[int, dict[GroupId, Any]] = {}
        self.hosts: dict[int, Host] = {}
        for node in NODES:
            for group in self.groups:
                self.disks[node].form(group, first_configuration(group, NODES, 3))
            machines: dict[GroupId, Any] = {GroupId(group): Counter() for group in self.groups}
            machines[GroupId(MEMORY_GROUP + node)] = Counter()
            self.machines[node] = machines
            # Timeouts differ by the node's number: one of them is first, without chance.
            self.hosts[node] = Host(
                HostOptions(node, NODES, 1), self.disks[node], machines, lambda low, high: low, self.now_ms
            )
        for node in NODES:
            for other in NODES:
                if other != node:
                    self.hosts[node].peer_up(other, 1)
        self._elect()

    def _elect(self) -> None:
        for _ in range(ELECTED_TICKS_MAX):
            self.tick()
            if all(self._leader(group) for group in self.groups):
                return
        raise AssertionError("no leader")

    def _leader(self, group: int) -> int:
        return next((node for node, host in self.hosts.items() if host.groups[group].leads), 0)

    def leader_host(self, group: int) -> Host:
        """The host that leads a group."""
        return self.hosts[self._leader(group)]

    def tick(self) -> None:
        """Let 50 ms pass on every node."""
        self.now_ms += TICK_MS
        for host in self.hosts.values():
            host.tick(self.now_ms)
            self.run()

    def run(self) -> None:
        """Turns until nothing moves."""
        sent: list[tuple[int, Envelope]] = []
        moved = True
        while moved:
            moved = False
            for host in self.hosts.values():
                if not host.has_news():
                    continue
                moved = True
                turn = host.flush(self.now_ms)
                sent += turn.envelopes.items()
                if turn.writes:
                    host.persisted(turn.number)
            for target, envelope in sent:
                self.hosts[target].receive(envelope)
                moved = True
            sent.clear()


def cost_us(groups: int, commands: int, size_bytes: int) -> float:
    """Of `commands` commands in each of so many groups, applied on all nodes."""
    cluster = Cluster(groups)
    command = (bytes(size_bytes),)
    leaders = [(group, cluster.leader_host(group)) for group in cluster.groups]

    def once() -> None:
        for group, host in leaders:
            for _ in range(commands):
                host.submit(group, command)
        cluster.run()

    cost = best_us(once)
    for _ in range(HEARTBEATS_TICKS):
        cluster.tick()  # whom nobody waits for learns of the last commit by a heartbeat
    counts = {tuple(m.applied for m in machines.values()) for machines in cluster.machines.values()}
    assert len(counts) == 1, "a replica has fallen behind"
    return cost


def main() -> None:
    """One line for each shape of a turn."""
    print(f"{'groups':>6} {'commands':>9} {'bytes':>7}   (us a turn, three nodes together)")
    for groups, commands, size_bytes in (
        (1, 1, 200),
        (1, 1, 65536),
        (1, 16, 4096),
        (4, 1, 65536),
        (16, 1, 4096),
    ):
        print(f"{groups:>6} {commands:>9} {size_bytes:>7} {cost_us(groups, commands, size_bytes):>9.0f}")


if __name__ == "__main__":
    main()
