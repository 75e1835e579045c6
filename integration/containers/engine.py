"""Warren in containers, through the Docker SDK: the image, and clusters of containers with published ports.

A cluster here offers what `integration.harness.Cluster` offers, so the traffic and the checks of
`integration.nothing_lost` work on both. Names, networks and volumes carry a prefix of their own; whatever happens,
nothing of them is left. Ports are published on loopback only.
"""

import base64
import contextlib
import json
import os
import shutil
import socket
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
from docker.errors import DockerException, NotFound
from docker.models.containers import Container
from docker.models.networks import Network

from integration.harness import HOST, READY_S_MAX, Cluster, Node, NotReady, claim_ports

ROOT = Path(__file__).parents[2]
AUTHORITIES = Path("/usr/local/share/ca-certificates")
"""Where an administrator of Debian puts the authorities that this machine trusts in addition."""
STOP_S_MAX = 20
LOGIN = base64.b64encode(b"guest:guest").decode()


def new_name() -> str:
    """A name that nobody has. It begins so that whoever ends a run by force can find what the run left."""
    return f"warren-test-{os.environ.get('TEST_RUN', 'x')}-{uuid.uuid4().hex[:8]}"


def run_once(
    client: docker.DockerClient, image: str, *command: str, environment: dict[str, str] | None = None
) -> tuple[int, str]:
    """Run a command in a container of its own instead of the node; returns exit code and output.

    Args: command: program and arguments; none: what the image runs.
    """
    container = client.containers.create(
        image,
        command[1:] or None,
        entrypoint=command[:1] or None,
        name=new_name(),
        environment=environment,
        network_mode="none",
    )
    try:
        container.start()
        code = int(container.wait(timeout=60)["StatusCode"])
        return code, bytes(container.logs()).decode()
    finally:
        container.remove(force=True, v=True)


def build(client: docker.DockerClient, tag: str) -> None:
    """Build the image as `make image` does, from a copy of the tree with the authorities of this machine in it."""
    with tempfile.TemporaryDirectory(prefix="warren-image-") as copy:
        for name in ("pyproject.toml", "README.md", ".dockerignore"):
            shutil.copy(ROOT / name, copy)
        for name in ("node", "cluster", "deploy/docker"):
            shutil.copytree(
                ROOT / name, Path(copy, name), ignore=shutil.ignore_patterns("__pycache__", "*.so")
            )
        for file in AUTHORITIES.glob("*.crt"):
            shutil.copy(file, Path(copy, "deploy/docker/trust"))
        try:
            client.images.build(
                path=copy,
                dockerfile="deploy/docker/Dockerfile",
                tag=tag,
                network_mode="host",
                rm=True,
                forcerm=True,
            )
        except docker.errors.BuildError as error:
            log = "".join(line.get("stream", "") for line in error.build_log)[-4000:]
            hint = "where no image can be pulled, deploy/docker/make-base.sh makes the base"
            raise AssertionError(f"{log}\n{error.msg} ({hint})") from error


class ContainerNode(Node):
    """One node in a container. What concerns processes is done to the container instead."""

    container: Container
    network: Network

    @property
    def is_running(self) -> bool:
        self.container.reload()
        return bool(self.container.attrs["State"]["Running"])

    @property
    def health(self) -> str:
        """`starting`, `healthy` or `unhealthy`, as the engine finds by the image's health check."""
        self.container.reload()
        return str(self.container.attrs["State"]["Health"]["Status"])

    def log(self) -> str:
        return bytes(self.container.logs()).decode(errors="replace")

    def start(self) -> None:
        self.container.start()

    def kill(self) -> None:
        self.container.kill("SIGKILL")
        self.container.wait()

    def stop(self) -> int:
        self.container.stop(timeout=STOP_S_MAX)
        return int(self.container.wait()["StatusCode"])

    def restart(self) -> None:
        self.container.restart(timeout=STOP_S_MAX)

    def cut_off(self) -> None:
        """Take the container's network away: what it sends goes nowhere, and nobody is told."""
        self.network.disconnect(self.container)

    def put_back(self) -> None:
        self.network.connect(self.container, aliases=[self.name])

    def status(self, timeout_s: float = 2.0) -> dict[str, Any]:
        request = urllib.request.Request(
            f"http://{HOST}:{self.http}/status", headers={"Authorization": f"Basic {LOGIN}"}
        )
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            result: dict[str, Any] = json.load(answer)
        return result


class Containers(Cluster):
    """Three containers on a private network, a volume each."""

    def __init__(self, client: docker.DockerClient, image: str) -> None:
        self._prefix = new_name()
        self._client = client
        self._image = image
        self._lock, base = claim_ports(3)
        self.nodes = []
        self._volumes: list[Any] = []
        self._network = client.networks.create(self._prefix, driver="bridge", check_duplicate=True)
        try:
            for i in range(3):
                self.nodes.append(self._create(f"n{i + 1}", base + i, base + 1000 + i))
        except BaseException:
            self.close()
            raise

    def _create(self, name: str, amqp: int, http: int) -> ContainerNode:
        volume = self._client.volumes.create(f"{self._prefix}-{name}")
        self._volumes.append(volume)
        node = ContainerNode(name, amqp, http, 0, Path())
        node.network = self._network
        node.container = self._client.containers.create(
            self._image,
            name=f"{self._prefix}-{name}",
            hostname=name,
            environment={
                "WARREN_NAME": name,
                "WARREN_PEERS": "n1=n1:7672,n2=n2:7672,n3=n3:7672",
                "WARREN_LOOPBACK_USERS": "",
            },
            ports={"5672/tcp": (HOST, amqp), "15672/tcp": (HOST, http)},
            volumes={volume.name: {"bind": "/data", "mode": "rw"}},
            network=self._prefix,
            networking_config={self._prefix: self._client.api.create_endpoint_config(aliases=[name])},
        )
        return node

    def close(self) -> None:
        for node in self.nodes:
            with contextlib.suppress(NotFound):
                node.container.remove(force=True, v=True)
        for volume in self._volumes:
            volume.remove(force=True)
        self._network.remove()
        self._lock.close()

    def wait_ready(self, nodes: list[Node] | None = None, timeout_s: float = READY_S_MAX) -> None:
        deadline = time.monotonic() + timeout_s
        for node in nodes or self.nodes:
            while not _serves(node):
                if not node.is_running or time.monotonic() > deadline:
                    raise NotReady(f"{node.name} does not serve:\n{node.log()[-2000:]}")
                time.sleep(0.2)


def _serves(node: Node) -> bool:
    try:
        status = node.status()
    except OSError:
        return False
    return status["is_ready"] and all(shard["leader"] for shard in status["shards"])


@contextlib.contextmanager
def engine() -> Iterator[docker.DockerClient]:
    """The engine of this machine; DockerException where none answers."""
    _probe()
    client = docker.from_env(timeout=120)
    try:
        client.ping()
        yield client
    finally:
        client.close()


def _probe() -> None:
    """Connect once: the SDK leaves its socket open where nobody listens, which Python warns of."""
    scheme, _, path = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").partition("://")
    if scheme == "unix":
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(path)
            except OSError as error:
                raise DockerException(f"{path}: {error.strerror}") from error
