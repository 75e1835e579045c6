"""Takes the place of aio-pika's client for a container engine: the broker runs already, at BROKER_PORT."""

import os
from dataclasses import dataclass

# TLS is asked for at a port where nothing listens.
NO_PORT = 1


class DockerNotAvailableError(Exception):
    """Never raised."""


class DockerHostInfo:
    """Nothing is known of an engine."""


@dataclass
class ContainerInfo:
    id: str
    ports: dict[str, int]
    host: str


def check_docker_available() -> DockerHostInfo:
    return DockerHostInfo()


class DockerClient:
    def __init__(self, info: DockerHostInfo | None = None) -> None:
        """Needs nothing."""

    def run(self, image: str, ports: list[str], environment: dict[str, str] | None = None) -> ContainerInfo:
        return ContainerInfo(
            "none", {"5672/tcp": int(os.environ["BROKER_PORT"]), "5671/tcp": NO_PORT}, "127.0.0.1"
        )

    def kill(self, container: str) -> None:
        """There is none."""

    def remove(self, container: str) -> None:
        """There is none."""
