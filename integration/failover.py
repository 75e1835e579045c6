"""How long confirms stand still when a queue's leader dies: python -m integration.failover [--runs 5]

One publisher with confirms, one message at a time, on a node that stays; the node that leads the queue's shard is
killed with SIGKILL. Prints the largest gap between two confirms of each run, and the median.
"""

import argparse
import itertools
import statistics
import sys
import time
from dataclasses import dataclass

import pika

from integration.harness import Cluster, temporary_directory
from integration.nothing_lost import connected

BEFORE_S = 3.0
AFTER_S = 5.0
SETTLED_S_MAX = 60.0
QUEUE = "failover"


@dataclass(slots=True)
class Gap:
    """One run: times in milliseconds, confirms and messages found in the queue at the end."""

    largest_ms: float
    median_ms: float
    after_kill_ms: float  # when the gap ended
    confirmed: int
    found: int


def measure(cluster: Cluster, *, before_s: float = BEFORE_S, after_s: float = AFTER_S) -> Gap:
    """Publish, kill the leader, go on publishing; the node is started again afterwards."""
    with connected(cluster.nodes[0]) as channel:
        channel.queue_declare(QUEUE, durable=True)
        channel.queue_purge(QUEUE)
    leader = cluster.wait_leader(cluster.group_of(QUEUE))
    survivor = next(node for node in cluster.nodes if node is not leader)
    times: list[float] = []
    killed = 0.0
    with connected(survivor) as channel:
        channel.confirm_delivery()
        started = time.monotonic()
        while (now := time.monotonic()) - started < before_s + after_s:
            if not killed and now - started > before_s:
                leader.kill()
                killed = time.monotonic()
            channel.basic_publish("", QUEUE, b"%d" % len(times), pika.BasicProperties(delivery_mode=2))
            times.append(time.monotonic())
        found = channel.queue_declare(QUEUE, passive=True).method.message_count
    gaps = [(b - a, b) for a, b in itertools.pairwise(times)]
    largest, at = max(gaps)
    cluster.restart(leader)
    median = statistics.median(gap for gap, _ in gaps)
    return Gap(largest * 1e3, median * 1e3, (at - killed) * 1e3, len(times), found)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m integration.failover", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    gaps = []
    with temporary_directory() as directory, Cluster(directory) as cluster:
        for number in range(runs):
            gap = measure(cluster)
            gaps.append(gap)
            print(
                f"run {number + 1}: largest gap {gap.largest_ms:.0f} ms, "
                f"over {gap.after_kill_ms:.0f} ms after the kill; "
                f"confirm p50 {gap.median_ms:.1f} ms; {gap.found} in the queue of {gap.confirmed} confirmed",
                flush=True,
            )
            time.sleep(6)  # leadership returns to the node that should have it
    print(f"largest gap: median {statistics.median(gap.largest_ms for gap in gaps):.0f} ms of {runs} runs")
    return 0 if all(gap.found == gap.confirmed for gap in gaps) else 1


if __name__ == "__main__":
    sys.exit(main())
