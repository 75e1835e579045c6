"""Both brokers on this machine: one node of RabbitMQ, three of Warren, ended by whoever started them."""

import contextlib
import fcntl
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.clusters import SCRATCH
from bench.rabbitmq import RabbitMq
from integration.harness import HOST, Cluster

FIRST_PORT, LAST_PORT = 27000, 28000
"""RabbitMQ's ports lie here: above those of the other tests, below those that the kernel gives to clients."""
BLOCK = 30

Address = tuple[str, int]


class Missing(Exception):
    """RabbitMQ is not installed: one line."""


@contextlib.contextmanager
def rabbitmq() -> Iterator[Address]:
    """One node of RabbitMQ, with ports and a directory that no other has; where it listens."""
    if shutil.which("rabbitmq-server") is None:
        raise Missing("there is no RabbitMQ to compare with: on Debian, apt-get install rabbitmq-server")
    with _ports() as port:
        folder = Path(tempfile.mkdtemp(prefix="warren-differential-", dir=SCRATCH))
        with RabbitMq(folder, nodes=1, ports_from=port):
            yield HOST, port


@contextlib.contextmanager
def both() -> Iterator[tuple[Address, list[Address]]]:
    """Start both; the addresses of RabbitMQ and of each node of Warren."""
    with (
        rabbitmq() as address,
        tempfile.TemporaryDirectory(prefix="warren-differential-", dir=SCRATCH) as folder,
        Cluster(Path(folder)) as cluster,
    ):
        yield address, [(HOST, node.amqp) for node in cluster.nodes]


@contextlib.contextmanager
def _ports() -> Iterator[int]:
    """The first of a block of ports that is ours until the end: two runs at once must not meet."""
    for base in range(FIRST_PORT, LAST_PORT, BLOCK):
        with open(Path(tempfile.gettempdir()) / f"warren-ports-{base}.lock", "wb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for port in (base, base + 10, base + 20):
                    with socket.socket() as probe:
                        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                        probe.bind((HOST, port))
            except OSError:
                continue
            yield base
            return
    raise Missing(f"no free ports from {FIRST_PORT} on")
