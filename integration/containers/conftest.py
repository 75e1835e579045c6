"""An engine, the image built once, and a cluster of containers for each test that asks for one.

Without an engine the tests are skipped, except in CI, which starts one.
"""

import os
from collections.abc import Iterator

import docker
import pytest

from integration.containers import engine as containers_engine
from integration.containers.engine import Containers

IMAGE = "warren:test"


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.DockerClient]:
    try:
        with containers_engine.engine() as client:
            yield client
    except docker.errors.DockerException as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no container engine answers: {error}")


@pytest.fixture(scope="session")
def image(engine: docker.DockerClient) -> str:
    """The image of this tree."""
    containers_engine.build(engine, IMAGE)
    return IMAGE


@pytest.fixture
def containers(engine: docker.DockerClient, image: str) -> Iterator[Containers]:
    """Three containers that serve."""
    with Containers(engine, image) as cluster:
        yield cluster
