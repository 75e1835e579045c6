"""Clusters of real processes for the tests and scripts of this directory.

Each node is an ordinary `warren serve` with a file of its own, started and ended here by its process id. Ports lie
below the range from which the kernel gives ports to clients, so that a node which was killed finds its own again.
"""

import contextlib
import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"
FIRST_PORT = int(os.environ.get("WARREN_TEST_PORTS", "21000"))
"""AMQP ports begin here, HTTP 1000 and cluster ports 2000 above."""
BLOCK = 10
READY_S_MAX = 60.0
END_S_MAX = 15.0


class NotReady(Exception):
    """A node ended, or took too long."""


@dataclass(slots=True)
class Node:
    """One node and its process, if it runs."""

    name: str
    amqp: int
    http: int
    cluster: int
    home: Path
    process: subprocess.Popen[bytes] | None = None
    paused: bool = field(default=False)

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@{HOST}:{self.amqp}/%2F"

    @property
    def file(self) -> Path:
        return self.home / "warren.toml"

    @property
    def pid(self) -> int:
        assert self.process is not None, f"{self.name} does not run"
        return self.process.pid

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def log(self) -> str:
        """All that the node ever printed."""
        return (self.home / "warren.log").read_text(errors="replace")

    def start(self) -> None:
        """Start the process; does not wait."""
        self.home.mkdir(parents=True, exist_ok=True)
        self.paused = False
        with (self.home / "warren.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "node", "serve", "--config", str(self.file)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                process_group=0,  # Ctrl-C ends the test, which then ends its nodes
            )  # fmt: skip

    def kill(self) -> None:
        """SIGKILL, and wait until the process is gone."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.process, self.paused = None, False

    def stop(self) -> int:
        """SIGTERM, and wait; returns the exit code."""
        assert self.process is not None
        self.resume()
        self.process.terminate()
        try:
            return self.process.wait(END_S_MAX)
        finally:
            self.process = None

    def pause(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)
        self.paused = True

    def resume(self) -> None:
        if self.is_running:
            os.kill(self.pid, signal.SIGCONT)
        self.paused = False

    def status(self, timeout_s: float = 2.0) -> dict[str, Any]:
        """The node's /status; OSError where it does not answer."""
        with urllib.request.urlopen(f"http://{HOST}:{self.http}/status", timeout=timeout_s) as answer:
            result: dict[str, Any] = json.load(answer)
        return result

    def metric(self, name: str) -> float:
        """The sum of a metric's samples; 0.0 where there are none."""
        with urllib.request.urlopen(f"http://{HOST}:{self.http}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if re.match(rf"{name}[{{ ]", line))

    def rss_bytes(self) -> int:
        """Memory that the process holds now."""
        with open(f"/proc/{self.pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Cluster:
    """Nodes n1, n2 ... on this machine. Use as a context: whatever happens, no process is left."""

    def __init__(
        self,
        directory: Path,
        nodes: int = 3,
        settings: Mapping[str, object] | None = None,
        name: str = "test",
    ) -> None:
        """Args: directory: for data, files and logs; settings: more lines for every node's file."""
        self.directory = directory
        self._lock, base = claim_ports(nodes)
        self.nodes = [
            Node(f"n{i + 1}", base + i, base + 1000 + i, base + 2000 + i, directory / f"n{i + 1}")
            for i in range(nodes)
        ]
        for node in self.nodes:
            self._write(node, {"cluster_name": name, **(settings or {})})

    def _write(self, node: Node, settings: Mapping[str, object]) -> None:
        peers = ",".join(f"{each.name}={HOST}:{each.cluster}" for each in self.nodes)
        lines = {
            "name": node.name,
            "data": str(node.home / "data"),
            "amqp": f"{HOST}:{node.amqp}",
            "http": f"{HOST}:{node.http}",
            "cluster": f"{HOST}:{node.cluster}",
            "peers": peers,
            **settings,
        }
        node.home.mkdir(parents=True, exist_ok=True)
        # JSON writes texts and numbers as TOML does.
        node.file.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in lines.items()))

    def __enter__(self) -> "Cluster":
        try:
            for node in self.nodes:
                node.start()
            self.wait_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End every process: kindly first, surely in the end."""
        running = [node for node in self.nodes if node.is_running]
        for node in running:
            assert node.process is not None
            node.resume()
            node.process.terminate()
        deadline = time.monotonic() + END_S_MAX
        for node in running:
            assert node.process is not None
            try:
                node.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                node.process.kill()
                node.process.wait()
            node.process = None
        self._lock.close()

    def __getitem__(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)

    def restart(self, node: Node) -> None:
        """Start a node that is down, and wait until it serves."""
        node.start()
        self.wait_ready([node])

    def wait_ready(self, nodes: list[Node] | None = None, timeout_s: float = READY_S_MAX) -> None:
        """Wait until the nodes serve and know a leader of every group."""
        deadline = time.monotonic() + timeout_s
        wanted = nodes or self.nodes
        for node in wanted:
            while not _is_ready(node):
                ended = next((each for each in wanted if not each.is_running), None)
                if ended is not None:
                    raise NotReady(f"{ended.name} ended:\n{ended.log()[-2000:]}")
                if time.monotonic() > deadline:
                    logs = "\n".join(f"{each.name}: {each.log()[-2000:]}" for each in self.nodes)
                    raise NotReady(f"{node.name} is not ready after {timeout_s:.0f} s; {_seen(node)}\n{logs}")
                time.sleep(0.05)

    def group_of(self, queue: str) -> int:
        """The shard that a queue lives in."""
        found = [each for each in self._ask()["queues"] if each["name"] == queue]
        assert found, f"there is no queue {queue}"
        return int(found[0]["shard"])

    def leader(self, group: int) -> Node | None:
        """The node that most nodes take for the leader of a group; None where nobody knows one."""
        votes: dict[str, int] = {}
        for node in self.nodes:
            if node.is_running and not node.paused:
                with contextlib.suppress(OSError):
                    name = _shard(node.status(), group)["leader"]
                    if name:
                        votes[name] = votes.get(name, 0) + 1
        return self[max(votes, key=lambda name: votes[name])] if votes else None

    def wait_leader(self, group: int, timeout_s: float = 20.0) -> Node:
        """The leader of a group, once there is one."""
        found = wait_for(lambda: self.leader(group), timeout_s)
        assert found is not None, f"group {group} has no leader after {timeout_s:.0f} s"
        return found

    def wait_level(self, group: int, node: Node, timeout_s: float = 60.0) -> bool:
        """Wait until a node has applied as much of a group as its leader; False if it does not."""

        def is_level() -> bool:
            leader = self.leader(group)
            if leader is None:
                return False
            return int(_shard(node.status(), group)["applied"]) >= int(
                _shard(leader.status(), group)["commit"]
            )

        return bool(wait_for(is_level, timeout_s))

    def counts(self, queue: str, node: Node) -> tuple[int, int]:
        """(ready, unacked) of a queue as a node sees them."""
        found = next(each for each in node.status()["queues"] if each["name"] == queue)
        return int(found["ready"]), int(found["unacked"])

    def _ask(self) -> dict[str, Any]:
        for node in self.nodes:
            if node.is_running and not node.paused:
                with contextlib.suppress(OSError):
                    return node.status()
        raise NotReady("no node answers")


def wait_for(condition: Any, timeout_s: float, every_s: float = 0.05) -> Any:
    """The first true value that the function returns, or its last value. An OSError counts as not yet."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = None
        with contextlib.suppress(OSError):
            value = condition()
        if value or time.monotonic() > deadline:
            return value
        time.sleep(every_s)


@contextlib.contextmanager
def temporary_directory() -> Iterator[Path]:
    """A directory that goes when the block ends."""
    with tempfile.TemporaryDirectory(prefix="warren-") as name:
        yield Path(name)


def _shard(status: dict[str, Any], group: int) -> dict[str, Any]:
    found: dict[str, Any] = next(shard for shard in status["shards"] if shard["group"] == group)
    return found


def _seen(node: Node) -> str:
    """What a node knows of the others, for a message."""
    try:
        status = node.status()
    except OSError as error:
        return f"it does not answer: {error}"
    up = [member["name"] for member in status["members"] if member["is_up"]]
    leaderless = [shard["group"] for shard in status["shards"] if not shard["leader"]]
    return f"up: {up}; without leader: {leaderless}"


def _is_ready(node: Node) -> bool:
    try:
        status = node.status()
    except OSError:
        return False
    is_ours = status["pid"] == (node.process.pid if node.process else None)
    return is_ours and status["is_ready"] and all(shard["leader"] for shard in status["shards"])


def claim_ports(nodes: int) -> tuple[Any, int]:
    """A block of ports that nobody uses, locked for as long as the returned file is open."""
    for base in range(FIRST_PORT, FIRST_PORT + 1000, BLOCK):
        lock = open(Path(tempfile.gettempdir()) / f"warren-ports-{base}.lock", "wb")  # noqa: SIM115 - kept open
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for port in (base + kind + i for kind in (0, 1000, 2000) for i in range(nodes)):
                with socket.socket() as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind((HOST, port))
        except OSError:
            lock.close()
            continue
        return lock, base
    raise NotReady(f"no free ports from {FIRST_PORT} on")
