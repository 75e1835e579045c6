"""What the queue machine costs: time and memory per run, checkpoint and restore of a long queue.

python -m bench.micro.queue
"""

import gc
import time
import tracemalloc
from collections.abc import Callable

from cluster.machine import Meta
from node.broker import commands
from node.broker.commands import Parts, QueueConfig
from node.broker.queue import QueueMachine

HEADER = bytes(18)
MESSAGES = 64
RECORDS = (b"\0\0\0\0\0\0\0\0") * MESSAGES
ONE = commands.targets([1])  # the one queue
ROUNDS = 20_000
BEST_OF = 3


class Replica:
    """A machine with its log position."""

    def __init__(self, queues: int) -> None:
        self.machine = QueueMachine(1)
        self.index = 0
        for uid in range(1, queues + 1):
            self.apply(commands.create_queue(0, uid, QueueConfig().encode()))

    def apply(self, *batch: Parts) -> None:
        """Apply one entry."""
        self.apply_data(HEADER + b"".join([part for parts in batch for part in parts]))

    def apply_data(self, data: bytes) -> None:
        """Apply one entry that is encoded already."""
        self.index += 1
        self.machine.apply(Meta(self.index, 0, 1), data, 18)

    def attach(self, consumer: int, uid: int, prefetch: int) -> None:
        """Attach a consumer in session 1."""
        self.apply(
            commands.attach(0, 1, consumer, uid, prefetch=prefetch, no_ack=False, exclusive=False, priority=0)
        )


def best(measure: Callable[[], float]) -> float:
    """Return the smallest of some measurements, in microseconds."""
    return min(measure() for _ in range(BEST_OF)) * 1e6


def run_through(per_entry: int) -> float:
    """Seconds per run of enqueue + assignment + settle, with `per_entry` runs in an entry."""
    replica = Replica(1)
    replica.attach(1, 1, 0)
    enqueues = b"".join(commands.enqueue(5, ONE, MESSAGES, [RECORDS])) * per_entry
    rounds = ROUNDS // per_entry
    settles = [
        HEADER + commands.settle(1, [(n * MESSAGES * per_entry + 1, (n + 1) * MESSAGES * per_entry)])[0]
        for n in range(rounds)
    ]
    start = time.perf_counter()
    for settle in settles:
        replica.apply_data(HEADER + enqueues)
        replica.apply_data(settle)
    spent = time.perf_counter() - start
    assert replica.machine.counts(1) == (0, 0, 1)
    return spent / (rounds * per_entry)


def fanout(queues: int) -> float:
    """Seconds per queue to enqueue one run into many queues without consumers."""
    replica = Replica(queues)
    data = HEADER + b"".join(commands.enqueue(5, commands.targets(range(1, queues + 1)), MESSAGES, [RECORDS]))
    rounds = ROUNDS // queues
    start = time.perf_counter()
    for _ in range(rounds):
        replica.apply_data(data)
    return (time.perf_counter() - start) / (rounds * queues)


def memory(messages: int, runs: int) -> float:
    """Bytes per run of an entry each, waiting in a queue (with its part of `live`)."""
    replica = Replica(1)
    data = HEADER + b"".join(commands.enqueue(0, ONE, messages, [RECORDS[: 8 * messages]]))
    tracemalloc.start()
    for _ in range(runs):
        replica.apply_data(data)
    gc.collect()
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return used / runs


def long_queue(runs: int) -> None:
    """Print what saving, loading and serving a queue of many one-message runs takes."""
    replica = Replica(1)
    data = HEADER + b"".join(commands.enqueue(0, ONE, 1, [RECORDS[:8]]))
    for _ in range(runs):
        replica.apply_data(data)
    steps: list[tuple[str, Callable[[], object]]] = [
        ("first checkpoint", lambda: replica.machine.checkpoint(full=False)),
        ("full checkpoint", lambda: replica.machine.checkpoint(full=True)),
        ("restore", lambda: QueueMachine(1).restore(rows)),
        ("enqueue", lambda: replica.apply_data(data)),
        ("checkpoint after it", lambda: replica.machine.checkpoint(full=False)),
        ("attach, no limit", lambda: replica.attach(1, 1, 0)),
        ("purge", lambda: replica.apply(commands.purge(0, 1))),
    ]
    rows: list[tuple[bytes, bytes]] = []
    for name, step in steps:
        start = time.perf_counter()
        result = step()
        spent = time.perf_counter() - start
        if name == "full checkpoint":
            assert isinstance(result, list)
            rows = result
        print(f"{runs} runs of 1: {name:22} {spent * 1000:8.1f} ms")


def main() -> None:
    """Print all figures."""
    print(
        f"1 run an entry, enqueue + assign + settle: {best(lambda: run_through(1)):6.2f} us/run of {MESSAGES}"
    )
    print(f"16 runs an entry, enqueue + assign + settle: {best(lambda: run_through(16)):6.2f} us/run")
    print(f"fanout to 100 queues:                         {best(lambda: fanout(100)):6.2f} us/queue")
    batched, single = memory(MESSAGES, ROUNDS), memory(1, ROUNDS)
    print(f"memory, runs of {MESSAGES}: {batched:.0f} B/run, {batched / MESSAGES:.1f} B/message")
    print(f"memory, runs of 1: {single:.0f} B/run")
    long_queue(1_000_000)


if __name__ == "__main__":
    main()
