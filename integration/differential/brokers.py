"""Both brokers on this machine: one node of RabbitMQ, three of Warren, ended by whoever started them."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.clusters import SCRATCH
from bench.rabbitmq import RabbitMq
from integration.harness import HOST, Cluster

RABBITMQ_PORT = 26360
FOLDER = SCRATCH / "warren-differential-rabbitmq"

Address = tuple[str, int]


class Missing(Exception):
    """RabbitMQ is not installed: one line."""


@contextlib.contextmanager
def both() -> Iterator[tuple[Address, list[Address]]]:
    """Start both; the addresses of RabbitMQ and of each node of Warren."""
    if shutil.which("rabbitmq-server") is None:
        raise Missing("there is no RabbitMQ to compare with: on Debian, apt-get install rabbitmq-server")
    with (
        tempfile.TemporaryDirectory(prefix="warren-differential-", dir=SCRATCH) as folder,
        RabbitMq(FOLDER, nodes=1, ports_from=RABBITMQ_PORT),
        Cluster(Path(folder)) as cluster,
    ):
        yield (HOST, RABBITMQ_PORT), [(HOST, node.amqp) for node in cluster.nodes]
