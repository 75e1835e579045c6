"""Three containers under traffic through their published ports: one killed, one cut off, all restarted."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from integration.containers.engine import ContainerNode, Containers
from integration.harness import wait_for
from integration.nothing_lost import Options, Run

pytestmark = pytest.mark.timeout(1200)

CUT_S = 12.0
"""Longer than links and sessions outlive silence, so that the cluster goes on without the node."""
DOWN_S = 2.0


class ContainerRun(Run):
    """The traffic and the checks of nothing_lost; the disturbance is of containers."""

    def _hit(self, count: int) -> None:
        leader = self.cluster.leader(self._groups[0]) or self.cluster.nodes[0]
        assert isinstance(leader, ContainerNode)
        self.result.kills += 1
        (self._kill, self._cut, self._restart)[count % 3](leader)

    def _kill(self, victim: ContainerNode) -> None:
        victim.kill()
        time.sleep(DOWN_S)
        victim.start()
        self.cluster.wait_ready()

    def _cut(self, victim: ContainerNode) -> None:
        started = time.monotonic()
        before = self.history.confirmed
        victim.cut_off()
        if not wait_for(lambda: not self._is_seen(victim), CUT_S):
            self.result.errors.append(f"{victim.name} was cut off, and the others see it still")
        time.sleep(max(0.0, started + CUT_S - time.monotonic()))
        if self.history.confirmed == before:
            self.result.errors.append("nothing was confirmed while one node was cut off")
        victim.put_back()
        if not wait_for(lambda: self._is_seen(victim), CUT_S):
            self.result.errors.append(f"{victim.name} was put back, and the others do not see it")
        # What it had ready for its sockets may still come out of it.
        self.history.pause(victim.name, started, time.monotonic())
        self.cluster.wait_ready()

    def _is_seen(self, node: ContainerNode) -> bool:
        """By another node."""
        other = next(each for each in self.cluster.nodes if each is not node)
        return bool(next(each for each in other.status()["members"] if each["name"] == node.name)["is_up"])

    def _restart(self, _leader: ContainerNode) -> None:
        with ThreadPoolExecutor() as pool:
            list(pool.map(ContainerNode.restart, self.cluster.nodes))
        self.cluster.wait_ready()


def test_killed_cut_off_and_restarted(containers: Containers) -> None:
    options = Options(
        messages=12_000, kill_every_s=3.0, kills_min=3, queues=3, publishers=3, consumers=3, rate=300.0
    )
    run = ContainerRun(containers, options)
    result = asyncio.run(run.main())
    print(result.line())
    assert result.errors == []
    assert result.kills >= 3
    assert wait_for(lambda: all(node.health == "healthy" for node in containers.nodes), 30)
