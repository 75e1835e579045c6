"""deploy/compose/ as it is, brought up by compose, serves the example of README.md."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator

import docker
import pytest

from integration.containers.engine import ROOT, new_name
from integration.harness import claim_ports, wait_for

pytestmark = pytest.mark.timeout(1200)

FILE = ROOT / "deploy/compose/docker-compose.yml"
PORTS = (("AMQP", 0), ("HTTP", 1000))


def tool() -> list[str]:
    """Compose as a part of docker, or the older program of its own."""
    if (
        shutil.which("docker")
        and subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0
    ):
        return ["docker", "compose"]
    assert shutil.which("docker-compose"), "neither `docker compose` nor docker-compose is installed"
    return ["docker-compose"]


@pytest.fixture
def project(image: str) -> Iterator[tuple[str, int]]:
    """The name of a running project, and the AMQP port of its first node."""
    name = new_name()
    lock, base = claim_ports(3)
    ports = {f"WARREN_PORT_{kind}_{i}": str(base + shift + i - 1) for kind, shift in PORTS for i in (1, 2, 3)}
    compose = [*tool(), "-p", name, "-f", str(FILE)]
    environment = {**os.environ, **ports, "WARREN_IMAGE": image}
    with lock:
        try:
            subprocess.run([*compose, "up", "-d"], env=environment, check=True, timeout=120)
            yield name, base
        finally:
            subprocess.run([*compose, "down", "-v", "-t", "20"], env=environment, check=True, timeout=120)


def example(base: int) -> str:
    """The first Python program of README.md, on these ports instead of the usual ones."""
    found = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert found is not None
    return re.sub(r"127\.0\.0\.1:567(\d)", lambda match: f"127.0.0.1:{base + int(match[1]) - 2}", found[1])


def test_serves_the_example_of_the_readme(project: tuple[str, int], engine: docker.DockerClient) -> None:
    name, base = project
    containers = engine.containers.list(filters={"label": f"com.docker.compose.project={name}"})
    assert len(containers) == 3

    def healthy() -> bool:
        for container in containers:
            container.reload()
        return all(container.attrs["State"]["Health"]["Status"] == "healthy" for container in containers)

    assert wait_for(healthy, 60), [container.logs() for container in containers]
    for _ in range(2):
        result = subprocess.run(
            [sys.executable, "-c", example(base)], capture_output=True, text=True, timeout=60
        )
        assert result.returncode == 0, result.stderr
        assert result.stdout == "b'two cups, one pot'\n"
        # The data is in the volumes: restarted, all go on.
        for container in containers:
            container.restart(timeout=20)
        assert wait_for(healthy, 60)
