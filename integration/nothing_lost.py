"""Nothing lost: a cluster under traffic whose nodes are killed, and the history of every message checked.

    python -m integration.nothing_lost [--messages 200000] [--kill-every 5] [--kill-all] [--pause-leader 10]
                                       [--rejoin-snapshot]

Publishers with confirms and consumers with acks work on all nodes. Every few seconds a node is killed with SIGKILL and
started again: one at random, and every third time the leader of the first queue's shard; with --kill-all all nodes at
once; with --pause-leader that leader is stopped by SIGSTOP for so many seconds instead. With --rejoin-snapshot one
follower stays away until the log no longer reaches back to where it was, and then has to carry a majority.

Prints one line of figures; exit code 1 if a rule of integration.history was broken.
"""

import argparse
import asyncio
import contextlib
import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pika

from integration.harness import HOST, Cluster, Node, temporary_directory
from integration.history import History, Link
from integration.traffic import Consumer, Publisher, decode

DRAIN_S_MAX = 120.0
DOWN_S = 1.0
CONNECTION_FORCED = 320
"""A node that was killed is started again after this."""
TAIL_SHARE = 0.95
"""Without disturbance for the last of the messages: what is lost then was lost, not late."""


@dataclass(slots=True)
class Options:
    """What happens to the cluster, and for how long."""

    messages: int = 200_000
    kill_every_s: float = 5.0
    kills_min: int = 10  # traffic goes on until there were so many
    kill_all: bool = False
    pause_leader_s: float = 0.0
    rejoin_snapshot: bool = False
    nodes: int = 3
    queues: int = 4
    publishers: int = 6
    consumers: int = 6
    size: int = 256
    rate: float = 0.0  # messages a second; 0: so that the kills have their time
    seed: int = 1
    directory: Path | None = None

    def paced(self) -> float:
        """Messages a second of all publishers."""
        seconds = max(10.0, (self.kills_min + 1) * (self.kill_every_s + self.pause_leader_s))
        return self.rate or self.messages / seconds


@dataclass(slots=True)
class Result:
    """How it went."""

    history: History
    errors: list[str]
    kills: int = 0
    leader_kills: int = 0
    seconds: float = 0.0
    snapshots: int = 0

    def line(self) -> str:
        figures = self.history.line()
        figures |= {"kills": self.kills, "of_leader": self.leader_kills, "acks_proved": self.history.settled}
        figures |= {"snapshots": self.snapshots} if self.snapshots else {}
        figures |= {
            "excused": self.history.excused,
            "errors": len(self.errors),
            "seconds": round(self.seconds),
        }
        return " ".join(f"{name}={value}" for name, value in figures.items())


class Run:
    """One cluster, its clients, and what is done to it."""

    def __init__(self, cluster: Cluster, options: Options) -> None:
        self.cluster = cluster
        self.options = options
        self.history = History()
        self.result = Result(self.history, [])
        self._random = random.Random(options.seed)
        self._queues = [f"nothing-lost-{i}" for i in range(options.queues)]
        self._publishers: list[Publisher] = []
        self._consumers: list[Consumer] = []
        self._groups: list[int] = []
        self._target = options.messages  # confirms that are enough, once there were enough kills
        self._kills_min = 2 if options.rejoin_snapshot else options.kills_min

    async def main(self) -> Result:
        """Declare, publish, disturb, drain, check."""
        started = time.monotonic()
        asyncio.get_running_loop().set_exception_handler(_report)
        await asyncio.to_thread(self._declare)
        self._start_clients()
        try:
            await self._disturb()
            await self._wait(
                self._has_enough, DRAIN_S_MAX + self.options.messages / 500, "messages were confirmed"
            )
            for publisher in self._publishers:
                await publisher.stop()
            await self._wait(self._is_drained, DRAIN_S_MAX, "messages were consumed and acked")
        finally:
            for client in [*self._publishers, *self._consumers]:
                await client.stop()
        await asyncio.to_thread(self._drain)
        self.result.errors += self.history.check()
        self.result.seconds = time.monotonic() - started
        return self.result

    # -- clients ---------------------------------------------------------------------------------------

    def _declare(self) -> None:
        nodes = self.cluster.nodes
        for i, queue in enumerate(self._queues):
            with connected(nodes[i % len(nodes)]) as channel:
                channel.queue_declare(queue, durable=True)
        self._groups = [self.cluster.group_of(queue) for queue in self._queues]

    def _start_clients(self) -> None:
        options, nodes = self.options, self.cluster.nodes
        rate = options.paced() / options.publishers
        for i in range(options.publishers):
            queue = self._queues[i % len(self._queues)]
            publisher = Publisher(f"p{i}", queue, nodes, i, self.history, size=options.size, rate=rate)
            publisher.enough = self._is_enough_under_way
            self._publishers.append(publisher)
        for i in range(options.consumers):
            # Shifted, so that a queue is published on one node and consumed on others.
            self._consumers.append(Consumer(self._queues[i % len(self._queues)], nodes, i + 1, self.history))
        for client in [*self._publishers, *self._consumers]:
            client.start()

    def _is_enough_under_way(self) -> bool:
        if self.result.kills < self._kills_min:
            return False
        under_way = sum(publisher.unconfirmed for publisher in self._publishers)
        return self.history.confirmed + under_way >= self._target

    def _has_enough(self) -> bool:
        return self.result.kills >= self._kills_min and self.history.confirmed >= self._target

    def _is_drained(self) -> bool:
        return not self.history.lost and all(
            self.cluster.counts(queue, self.cluster.nodes[0]) == (0, 0) for queue in self._queues
        )

    async def _wait(self, condition: object, timeout_s: float, what: str) -> None:
        assert callable(condition)
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, StopIteration):
                if await asyncio.to_thread(condition):
                    return
            await asyncio.sleep(0.2)
        self.result.errors.append(f"not all {what} within {timeout_s:.0f} s")

    def _drain(self) -> None:
        """Whatever is left, on every node in turn."""
        for node in self.cluster.nodes:
            for queue in self._queues:
                try:
                    self._drain_queue(node, queue)
                except pika.exceptions.ConnectionClosedByBroker as error:
                    # A node that was cut off until now learns, group by group, that it was taken for dead, and
                    # sends its clients away once. Twice would be a fault.
                    if error.reply_code != CONNECTION_FORCED:
                        raise
                    self._drain_queue(node, queue)

    def _drain_queue(self, node: Node, queue: str) -> None:
        with connected(node) as channel:
            link = Link(node.name, time.monotonic())
            while (got := channel.basic_get(queue))[0] is not None:
                method, _, body = got
                message = decode(body)
                self.history.deliver(message, link, time.monotonic(), redelivered=method.redelivered)
                channel.basic_ack(method.delivery_tag)
            left = channel.queue_declare(queue, passive=True).method.message_count
            if left:
                self.result.errors.append(f"{left} messages are left in {queue} on {node.name}")

    # -- disturbance -----------------------------------------------------------------------------------

    async def _disturb(self) -> None:
        if self.options.rejoin_snapshot:
            await self._rejoin()
            return
        count = 0
        last_at = time.monotonic()
        last = self.options.messages * TAIL_SHARE
        while self.history.confirmed < last or self.result.kills < self._kills_min:
            await asyncio.sleep(max(0.0, last_at + self.options.kill_every_s - time.monotonic()))
            if self._has_enough():
                break
            last_at = time.monotonic()
            await asyncio.to_thread(self._hit, count)
            count += 1
            if self.options.kill_all or self.options.pause_leader_s:
                last_at = time.monotonic()  # some traffic between one standstill and the next

    def _hit(self, count: int) -> None:
        nodes = self.cluster.nodes
        leader = self.cluster.leader(self._groups[0])
        if self.options.pause_leader_s:
            if leader is not None:
                self._pause(leader)
            return
        if self.options.kill_all:
            victims = nodes
        elif leader is not None and count % 3 == 0:
            victims = [leader]
        else:
            victims = [self._random.choice(nodes)]
        self.result.kills += 1
        self.result.leader_kills += leader in victims
        for victim in victims:
            victim.kill()
        time.sleep(DOWN_S)
        for victim in victims:
            victim.start()
        self.cluster.wait_ready(list(victims))

    def _pause(self, leader: Node) -> None:
        self.result.kills += 1
        self.result.leader_kills += 1
        started = time.monotonic()
        leader.pause()
        time.sleep(self.options.pause_leader_s)
        leader.resume()
        self.history.pause(leader.name, started, time.monotonic())

    async def _rejoin(self) -> None:
        """One follower away for most of the run; then it must carry a majority with one other."""
        cluster, group = self.cluster, self._groups[0]
        leader = await asyncio.to_thread(cluster.wait_leader, group)
        follower = next(node for node in cluster.nodes if node is not leader)
        follower.kill()
        self.result.kills += 1
        most = self.options.messages * 0.8
        await self._wait(
            lambda: self.history.confirmed >= most, DRAIN_S_MAX + most / 500, "messages were confirmed"
        )
        await asyncio.to_thread(cluster.restart, follower)
        for each in sorted({0, *self._groups}):
            if not await asyncio.to_thread(cluster.wait_level, each, follower):
                self.result.errors.append(f"{follower.name} does not come level in group {each}")
        self.result.snapshots = int(
            await asyncio.to_thread(follower.metric, "warren_snapshots_installed_total")
        )
        if not self.result.snapshots:
            self.result.errors.append(f"{follower.name} came level by the log alone: publish more")
        # The third one goes: from here on nothing is confirmed without the follower that came back.
        other = next(node for node in cluster.nodes if node not in (leader, follower))
        self._target = max(self._target, self.history.confirmed + self.options.messages // 10)
        other.kill()
        self.result.kills += 1
        await self._wait(
            self._has_enough, DRAIN_S_MAX, "messages were confirmed with the node that came back"
        )
        await asyncio.to_thread(cluster.restart, other)


def _report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Pika asserts that nobody gives up a connection while it is being made, as must be done with a paused node."""
    if "AMQPConnectionWorkflowAborted" not in str(context.get("exception")):
        loop.default_exception_handler(context)


@contextlib.contextmanager
def connected(node: Node):  # type: ignore[no-untyped-def]  # pika has no types
    """A blocking channel."""
    connection = pika.BlockingConnection(pika.ConnectionParameters(HOST, node.amqp, heartbeat=30))
    try:
        yield connection.channel()
    finally:
        if connection.is_open:
            connection.close()


def run(options: Options) -> Result:
    """Form a cluster, run, and end it."""
    with contextlib.ExitStack() as stack:
        directory = options.directory or stack.enter_context(temporary_directory())
        cluster = stack.enter_context(Cluster(directory, options.nodes))
        return asyncio.run(Run(cluster, options).main())


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m integration.nothing_lost", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--messages", type=int, default=200_000)
    parser.add_argument("--kill-every", type=float, default=5.0, metavar="SECONDS")
    parser.add_argument(
        "--kills", type=int, default=10, help="at least so many; the traffic is paced to last as long"
    )
    parser.add_argument("--kill-all", action="store_true", help="all nodes at once")
    parser.add_argument(
        "--pause-leader", type=float, default=0.0, metavar="SECONDS", help="SIGSTOP instead of SIGKILL"
    )
    parser.add_argument(
        "--rejoin-snapshot", action="store_true", help="one follower is away for most of the run"
    )
    parser.add_argument("--size", type=int, default=256, help="bytes of a body")
    parser.add_argument(
        "--rate", type=float, default=0.0, help="messages a second; default: as the kills need"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the choice of nodes")
    parser.add_argument("--data", type=Path, help="keep data and logs here")
    given = parser.parse_args()
    options = Options(
        messages=given.messages, kill_every_s=given.kill_every, kills_min=given.kills, kill_all=given.kill_all,
        pause_leader_s=given.pause_leader, rejoin_snapshot=given.rejoin_snapshot, size=given.size, rate=given.rate,
        seed=given.seed, directory=given.data,
    )  # fmt: skip
    result = run(options)
    for error in result.errors[:20]:
        print(f"ERROR {error}")
    print(result.line())
    return 1 if result.errors else 0


if __name__ == "__main__":
    sys.exit(main())
