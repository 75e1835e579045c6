"""The sockets of links are read by the thread that waits for them, not by gRPC's event engine (ADR 12)."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
PROGRAM = """
import asyncio

import cluster.transport
import grpc


async def main():
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        await channel.channel_ready()
    await server.stop(None)


asyncio.run(main())
"""


def stderr_of(**settings: str) -> str:
    """What gRPC says while a connection is made."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GRPC_")}
    environment |= {"PYTHONPATH": str(ROOT), **settings}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True
    )
    return done.stderr


def test_the_event_engine_is_off() -> None:
    """Each of the two ways to read a socket traces itself under its own name."""
    said = stderr_of(GRPC_VERBOSITY="DEBUG", GRPC_TRACE="tcp,event_engine_endpoint")
    assert "tcp_posix.cc" in said
    assert "posix_endpoint.cc" not in said


def test_an_operator_can_turn_it_on() -> None:
    """What is set already stands."""
    said = stderr_of(GRPC_VERBOSITY="DEBUG", GRPC_TRACE="tcp,event_engine_endpoint", GRPC_EXPERIMENTS="")
    assert "posix_endpoint.cc" in said
    assert "tcp_posix.cc" not in said


def test_the_settings_are_known_to_this_release() -> None:
    """A name that gRPC does not know would be an error line at each start of a node."""
    assert stderr_of() == ""
