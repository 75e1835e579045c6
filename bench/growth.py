"""How Warren's cost grows with what it holds: messages, queues, connections. Each measurement starts afresh.

A measurement returns rows: what was measured, the figure as text, the target, and whether it is met.
"""

import contextlib
import operator
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bench import generator
from bench.clusters import NODES, Warren, cpu_s, folder_bytes, private_bytes, written_bytes
from bench.generator import Figures, Settings
from bench.memory import limited
from bench.workloads import Plan

MIB = 1 << 20
SMALL: Settings = {"size": 128, "window": 2000, "prefetch": 2000, "ack": 200}
NOBODY: Settings = {"consumers": 0}


@dataclass(slots=True, frozen=True)
class Row:
    """One figure of growth.

    Args:
        title: what was measured.
        figure: value in the unit of the title.
        target: bound in words.
        is_met: None where the target was not put to the test.
    """

    title: str
    figure: float
    target: str = ""
    is_met: bool | None = None


def fill(cluster: Warren, name: str, count: int, **more: str | int | float) -> Figures:
    """Publish exactly so many messages of 128 B, with nobody to take them."""
    settings: Settings = {**SMALL, **NOBODY, "name": name, "count": count, "seconds": 3600, **more}
    return generator.run("traffic", cluster.hosts, settings, timeout_s=3600)


def drain(cluster: Warren, name: str, count: int, **more: str | int | float) -> Figures:
    """Consume exactly so many."""
    settings: Settings = {**SMALL, "producers": 0, "name": name, "count": count, "seconds": 3600, **more}
    return generator.run("traffic", cluster.hosts, settings, timeout_s=3600)


def set_up(cluster: Warren, name: str, **more: str | int | float) -> None:
    """Declare queues."""
    generator.run("setup", cluster.hosts, {"name": name, **more})


def _rest(cluster: Warren) -> None:
    """Wait until checkpoints and trims have come to an end, for at most 20 s."""
    for _ in range(20):
        before = sum(cpu_s(pid) for pid in cluster.pids())
        time.sleep(1)
        if sum(cpu_s(pid) for pid in cluster.pids()) - before < 0.15:
            return


def backlog(plan: Plan) -> list[Row]:
    """Memory and restart with many messages in one queue."""
    count = 100_000 if plan.quick else 1_000_000
    with Warren() as cluster:
        set_up(cluster, "warm")
        drain_all(cluster, "warm", 20_000)
        set_up(cluster, "backlog")
        before = [private_bytes(pid) for pid in cluster.pids()]
        filled = fill(cluster, "backlog", count)
        _rest(cluster)
        grown = max(private_bytes(pid) - was for pid, was in zip(cluster.pids(), before, strict=True))
        rows = [
            Row(
                f"{count:,} messages queued: private memory of a node, MiB",
                grown / MIB,
                "<= 32",
                grown <= 32 * MIB,
            ),
            Row(f"{count:,} messages queued: publishing, msg/s", filled["confirm_rate"]),
        ]
        rows.append(_restarted(cluster, f"{count:,} messages in 1 queue"))
        rows.append(Row("then drained, msg/s", drain(cluster, "backlog", count)["consume_rate"]))
    return rows


def drain_all(cluster: Warren, name: str, count: int) -> None:
    """Let so many messages pass, so that buffers and caches have their usual size."""
    fill(cluster, name, count)
    drain(cluster, name, count)


def _restarted(cluster: Warren, what: str) -> Row:
    """Kill and start each node, one after the other; the median of what they took."""
    times = []
    for node in range(NODES):
        cluster.kill(node)
        times.append(cluster.restart(node))
        _rest(cluster)
    took_s = statistics.median(times)
    return Row(f"{what}: restart of a node until it serves, s", took_s, "<= 2", took_s <= 2)


def many_queues_full(plan: Plan) -> list[Row]:
    """Restart with the same number of messages in 1,000 queues."""
    count = 50_000 if plan.quick else 1_000_000
    with Warren() as cluster:
        spread: Settings = {"exchange": "topic", "queues": 1000, "bindings": 1000}
        set_up(cluster, "spread", **spread)
        fill(cluster, "spread", count, **spread)
        _rest(cluster)
        return [_restarted(cluster, f"{count:,} messages in 1,000 queues")]


def depth(plan: Plan) -> list[Row]:
    """Rates with many messages queued, in turns with a cluster that is empty but for what is measured."""
    count = 200_000 if plan.quick else 5_000_000
    probe = count // 10
    published, drained = [], []
    with Warren() as full, Warren(is_beside=True) as empty:
        for cluster in (full, empty):
            set_up(cluster, "deep")
            drain_all(cluster, "deep", probe)
        fill(full, "deep", count)
        for _ in range(3):
            rates = [fill(cluster, "deep", probe)["confirm_rate"] for cluster in (full, empty)]
            published.append(rates[0] / rates[1])
            drain(empty, "deep", probe)
        for _ in range(10):
            fill(empty, "deep", probe)
            rates = [drain(cluster, "deep", probe)["consume_rate"] for cluster in (full, empty)]
            drained.append(rates[0] / rates[1])
    ratios = {"publishing": statistics.median(published), "draining": statistics.median(drained)}
    return [
        Row(f"{what} with {count:,} queued / empty", ratio, ">= 0.8", ratio >= 0.8)
        for what, ratio in ratios.items()
    ]


def small_node(plan: Plan) -> list[Row]:
    """Nodes with little memory take far more messages than fit into it, and give them back."""
    count = 500_000 if plan.quick else 10_000_000
    bytes_max = (256 if plan.quick else 512) * MIB
    with Warren() as cluster, limited(cluster.pids(), bytes_max):
        set_up(cluster, "many")
        filled = fill(cluster, "many", count)
        private = max(private_bytes(pid) for pid in cluster.pids())
        drained = drain(cluster, "many", count)
    complete = filled["confirmed"] == count and drained["consumed"] == count
    title = f"{count:,} messages through nodes limited to {bytes_max // MIB} MiB"
    return [
        Row(f"{title}: consumed", drained["consumed"], f"= {count:,}", complete),
        Row(f"{title}: private memory when full, MiB", private / MIB),
        Row(f"{title}: publishing, msg/s", filled["confirm_rate"]),
        Row(f"{title}: draining, msg/s", drained["consume_rate"]),
    ]


def _in_turns(one: Warren, other: Warren, load: Settings, plan: Plan) -> tuple[list[float], list[float]]:
    """The rates of both clusters under the same load, round by round."""
    rates: dict[Warren, list[float]] = {one: [], other: []}
    for turn in range(plan.rounds):
        for cluster in (other, one) if turn % 2 else (one, other):
            rates[cluster].append(generator.run("traffic", cluster.hosts, load)["rate"])
    return rates[one], rates[other]


def _ratio(rates: list[float], others: list[float]) -> float:
    """The median of the rounds' ratios."""
    return statistics.median(map(operator.truediv, rates, others))


def queues(plan: Plan) -> list[Row]:
    """Rate over 10 busy queues while others exist, in turns with a cluster that has the 10 only."""
    busy: Settings = {"size": 256, "producers": 10, "consumers": 10, "queues": 10}
    numbers = (10, 100, 1000) if plan.quick else (10, 100, 1000, 10_000)
    load: Settings = {**busy, "name": "busy", "seconds": plan.seconds, "warmup": plan.warmup}
    rows, ratios = [], []
    with Warren() as few, Warren(is_beside=True) as many:
        for cluster in (few, many):
            set_up(cluster, "busy", queues=10)
            # Until the journal was full once nothing is carried into the store, so the first run is the fastest.
            generator.run("traffic", cluster.hosts, load)
        for number in numbers:
            if number > 10:
                set_up(many, "other", queues=number - 10)
            rates, others = _in_turns(many, few, load, plan)
            rows.append(Row(f"{number:,} queues exist, 10 busy: msg/s", statistics.median(rates)))
            ratios.append(_ratio(rates, others))
    flat = min(ratios) / max(ratios)
    title = "slowest / fastest of these, each by its ratio to a cluster with 10 queues measured in turns"
    return [*rows, Row(title, flat, ">= 0.85", flat >= 0.85)]


def idle(plan: Plan) -> list[Row]:
    """CPU of a cluster that does nothing."""
    span_s = 5 if plan.quick else 30
    with Warren() as cluster:
        time.sleep(3)
        before = [cpu_s(pid) for pid in cluster.pids()]
        time.sleep(span_s)
        used = [cpu_s(pid) - was for pid, was in zip(cluster.pids(), before, strict=True)]
    percent = 100 * max(used) / span_s
    return [Row("idle cluster: CPU of a node, % of a core", percent, "<= 2", percent <= 2)]


@contextlib.contextmanager
def held(cluster: Warren, name: str, connections: int, prefetch: int) -> Iterator[None]:
    """Connections with a consumer each, on the first node, that take up to `prefetch` and settle nothing."""
    settings: Settings = {"name": name, "connections": connections, "prefetch": prefetch}
    process = subprocess.Popen(
        generator.arguments("idle", cluster.hosts[:1], settings),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stdin is not None
    try:
        if not process.stdout.readline():
            raise generator.LoadError(f"cannot hold {connections} connections")
        yield
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def connections(plan: Plan) -> list[Row]:
    """Memory of idle connections with a consumer each, and the rate beside them, in turns with a cluster without."""
    count = 1000 if plan.quick else 5000
    load: Settings = {"name": "load", "seconds": plan.seconds, "warmup": plan.warmup}
    with Warren() as cluster, Warren(is_beside=True) as empty:
        for made in (cluster, empty):
            set_up(made, "load")
        set_up(cluster, "idle")
        calm = _ratio(*_in_turns(cluster, empty, load, plan))
        before = private_bytes(cluster.pid(0))
        with held(cluster, "idle", count, 1):
            time.sleep(1)
            each = (private_bytes(cluster.pid(0)) - before) / count
            crowded = _ratio(*_in_turns(cluster, empty, load, plan))
    return [
        Row(f"{count:,} idle connections with a consumer: KiB each", each / 1024, "<= 40", each <= 40 * 1024),
        Row("rate beside them / without", crowded / calm, ">= 0.95", crowded >= 0.95 * calm),
    ]


def disk(plan: Plan) -> list[Row]:
    """Bytes written for a byte published and consumed, and whether the file stops growing."""
    count = 50_000 if plan.quick else 500_000
    passing: Settings = {"name": "disk", "count": count, "seconds": 600}
    with Warren() as cluster:
        set_up(cluster, "disk")
        generator.run("traffic", cluster.hosts, passing)
        first = folder_bytes(cluster.data / "n1")
        before = [written_bytes(pid) for pid in cluster.pids()]
        generator.run("traffic", cluster.hosts, passing)
        _rest(cluster)
        wrote = max(written_bytes(pid) - was for pid, was in zip(cluster.pids(), before, strict=True))
        grown = folder_bytes(cluster.data / "n1") - first
    share = wrote / (count * 1024)
    return [
        Row("bytes written per byte of 1 KiB messages, per replica", share, "<= 1.6", share <= 1.6),
        Row(f"growth of the store over the second {count:,} messages, MiB", grown / MIB),
    ]


def pinned(plan: Plan) -> list[Row]:
    """One old message stays unacknowledged while many pass."""
    count = 200_000 if plan.quick else 10_000_000
    with Warren() as cluster:
        set_up(cluster, "pinned")
        fill(cluster, "pinned", 1)
        with held(cluster, "pinned", 1, 1):
            settings: Settings = {**SMALL, "name": "pinned", "count": count, "seconds": 3600}
            # The one that is held is never consumed here, so the run must not wait for it.
            generator.run("traffic", cluster.hosts, settings, timeout_s=3600)
            _rest(cluster)
            size = max(folder_bytes(cluster.data / f"n{node + 1}") for node in range(NODES))
    return [
        Row(
            f"1 message unacknowledged while {count:,} pass: store, MiB",
            size / MIB,
            "< 200",
            size < 200 * MIB,
        )
    ]


def compaction(plan: Plan) -> list[Row]:
    """End-to-end latency while the rows of many messages that were just consumed are taken off the disk."""
    count = 100_000 if plan.quick else 1_000_000
    steady: Settings = {"name": "steady", "rate": 2000, "seconds": max(plan.seconds, 6), "warmup": 1}
    with Warren() as cluster:
        set_up(cluster, "steady")
        set_up(cluster, "gone")
        calm = generator.run("traffic", cluster.hosts[:1], steady)["p99_ms"]
        fill(cluster, "gone", count)
        drain(cluster, "gone", count)
        busy = generator.run("traffic", cluster.hosts[:1], steady)["p99_ms"]
    ratio = busy / calm
    return [Row(f"p99 while {count:,} consumed messages are compacted / calm", ratio, "<= 2", ratio <= 2)]


def rejoin(plan: Plan) -> list[Row]:
    """End-to-end latency while a node that missed much catches up, against the calm."""
    missed = 100_000 if plan.quick else 1_000_000
    steady: Settings = {"name": "rejoin", "rate": 2000, "seconds": max(plan.seconds, 6), "warmup": 1}
    with Warren() as cluster:
        set_up(cluster, "rejoin")
        set_up(cluster, "missed")
        calm = generator.run("traffic", cluster.hosts[:1], steady)["p99_ms"]
        cluster.kill(NODES - 1)
        fill(cluster, "missed", missed)
        back = threading.Timer(2.0, lambda: cluster.restart(NODES - 1))
        back.start()
        busy = generator.run("traffic", cluster.hosts[:1], steady)["p99_ms"]
        back.join()
    ratio = busy / calm
    return [
        Row("p99 at 2,000 msg/s, calm, ms", calm),
        Row(f"p99 while a node returns that missed {missed:,} / calm", ratio, "<= 2", ratio <= 2),
    ]


GROWTH: dict[str, Callable[[Plan], list[Row]]] = {
    "backlog": backlog,
    "spread": many_queues_full,
    "depth": depth,
    "limited": small_node,
    "queues": queues,
    "idle": idle,
    "connections": connections,
    "disk": disk,
    "pinned": pinned,
    "compaction": compaction,
    "rejoin": rejoin,
}
