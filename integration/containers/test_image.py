"""The image: small, without root and without a compiler, and it knows how it is."""

import time
from collections.abc import Iterator

import docker
import pytest

from integration.containers.engine import STOP_S_MAX, new_name, run_once
from integration.harness import wait_for

pytestmark = pytest.mark.timeout(1200)  # the first test builds the image

SIZE_BYTES_MAX = 200_000_000


@pytest.fixture
def alone(engine: docker.DockerClient, image: str) -> Iterator[object]:
    """One container without peers and ports."""
    container = engine.containers.run(image, name=new_name(), detach=True)
    yield container
    container.remove(force=True, v=True)


def ask(engine: docker.DockerClient, image: str, *command: str) -> str:
    code, output = run_once(engine, image, *command)
    assert code == 0, output
    return output.strip()


def test_it_is_small(engine: docker.DockerClient, image: str) -> None:
    assert engine.images.get(image).attrs["Size"] < SIZE_BYTES_MAX


def test_it_is_not_root(engine: docker.DockerClient, image: str) -> None:
    assert ask(engine, image, "id", "-u") == "5672"
    assert ask(engine, image, "sh", "-c", "touch /opt/warren/x /usr/x /etc/x 2>/dev/null || echo no") == "no"


def test_it_has_no_compiler(engine: docker.DockerClient, image: str) -> None:
    tools = "for tool in cc gcc g++ clang as ld make pip pip3 cython; do command -v $tool; done; true"
    assert ask(engine, image, "sh", "-c", tools) == ""


def test_it_trusts_nobody_of_the_machine_that_built_it(engine: docker.DockerClient, image: str) -> None:
    assert ask(engine, image, "sh", "-c", "ls /usr/local/share/ca-certificates 2>/dev/null; true") == ""


def test_it_runs_the_compiled_codec(engine: docker.DockerClient, image: str) -> None:
    assert ask(engine, image, "python3", "-c", "from node.wire import codec; print(codec.COMPILED)") == "True"


def test_health_and_end(alone: object) -> None:
    """The health check finds it healthy; SIGTERM ends it kindly, with exit code 0 and without being killed."""

    def health() -> bool:
        alone.reload()
        return alone.attrs["State"]["Health"]["Status"] == "healthy"

    assert wait_for(health, 30), alone.logs()
    started = time.monotonic()
    alone.stop(timeout=STOP_S_MAX)
    assert alone.wait()["StatusCode"] == 0
    assert time.monotonic() - started < STOP_S_MAX / 2


def test_a_wrong_setting_ends_it_with_one_line(engine: docker.DockerClient, image: str) -> None:
    code, output = run_once(engine, image, environment={"WARREN_SHARDS": "many"})
    assert code == 2
    assert output.count("\n") == 1 and "WARREN_SHARDS" in output
