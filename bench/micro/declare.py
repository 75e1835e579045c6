"""What changing the topology costs by itself: python -m bench.micro.declare.

`apply`: what every node does with a queue.declare that was committed. The rest is what the node does that the client
is connected to, from the bytes of a request to those of its answer, with every command applied at once. Neither may
grow with the number of queues that are there already.
"""

import gc
import time
from itertools import count

from bench.micro.deliver import Deaf
from cluster.machine import Meta
from node.broker import topology_commands
from node.broker.topology import TopologyMachine
from node.wire import methods
from node.wire.methods import Method, method_frame
from tests.session.client import Client

HEADER = bytes(18)
ARGUMENTS = {"x-queue-type": "quorum"}
REQUESTS = 500
BEST_OF = 7


def apply_us(existing: int) -> float:
    """Microseconds that a replica of the metadata takes for a declaration."""
    machine, numbers, index = TopologyMachine(1), count(), count(1)

    def declare(requests: int) -> float:
        entries = [HEADER + _command(next(numbers)) for _ in range(requests)]
        began = time.perf_counter()
        for data in entries:
            machine.apply(Meta(next(index), 0, 2), data, len(HEADER))
        return time.perf_counter() - began

    declare(existing)
    return min(declare(REQUESTS) for _ in range(BEST_OF)) / REQUESTS * 1e6


def _command(number: int) -> bytes:
    parts = topology_commands.declare_queue(
        7,
        "/",
        f"q{number}",
        durable=True,
        exclusive=False,
        auto_delete=False,
        arguments=ARGUMENTS,
        group=1,
        session=3,
    )
    return b"".join(parts)


def requests_us(existing: int) -> tuple[float, float, float]:
    """Microseconds for queue.declare, queue.bind and queue.delete of a node that all is applied on at once."""
    broker = Deaf()
    client = broker.connect().login().open()
    broker.is_deaf = True
    _ask(
        client,
        [
            methods.QueueDeclare(queue=f"old{number}", durable=True, arguments=ARGUMENTS)
            for number in range(existing)
        ],
    )
    best = [float("inf")] * 3
    for _ in range(BEST_OF):
        names = [f"new{number}" for number in range(REQUESTS)]
        asked: tuple[list[Method], ...] = (
            [methods.QueueDeclare(queue=name, durable=True, arguments=ARGUMENTS) for name in names],
            [methods.QueueBind(queue=name, exchange="amq.topic", routing_key=name) for name in names],
            [methods.QueueDelete(queue=name) for name in names],
        )
        best = [min(known, _ask(client, requests)) for known, requests in zip(best, asked, strict=True)]
    return best[0], best[1], best[2]


def _ask(client: Client, requests: list[Method]) -> float:
    frames = [method_frame(1, method) for method in requests]
    began = time.perf_counter()
    for frame in frames:
        client.write(frame)
    return (time.perf_counter() - began) / max(1, len(frames)) * 1e6


def main() -> None:
    """One line for each number of queues that are there already."""
    gc.disable()  # a node collects rarely; here it would hit whichever row is at hand
    print(f"{'queues':>8} {'apply':>9} {'declare':>9} {'bind':>9} {'delete':>9}   (us a request)")
    for existing in (0, 10_000):
        declare, bind, delete = requests_us(existing)
        print(f"{existing:>8} {apply_us(existing):>9.1f} {declare:>9.1f} {bind:>9.1f} {delete:>9.1f}")


if __name__ == "__main__":
    main()
