"""The clusters that are measured: a Warren started here, or any that runs somewhere."""

import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

NODES = 3
# Below the ports that Linux gives to clients: there, who polls a port that nobody holds may connect to itself.
AMQP_PORT = 26410
HTTP_PORT = 26420
CLUSTER_PORT = 26430
BESIDE = 200
"""How far above these the ports of a second cluster are."""
READY_S_MAX = 90.0
END_S_MAX = 30.0
TICKS = os.sysconf("SC_CLK_TCK")
SCRATCH = Path("/var/tmp")
"""Where data goes: kept over a reboot, so never a file system in memory, on which fsync costs nothing."""


class ClusterError(Exception):
    """A cluster did not start: one line."""


class Cluster(Protocol):
    """What the benchmark knows of a cluster."""

    name: str
    hosts: list[str]

    def pids(self) -> list[int]:
        """Processes of the nodes, as far as they run here and are known."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Remote:
    """A cluster that somebody else runs."""

    def __init__(self, name: str, hosts: list[str]) -> None:
        self.name = name
        self.hosts = hosts

    def pids(self) -> list[int]:
        """Unknown."""
        return []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave it running."""


class Warren:
    """Three nodes of this checkout on this machine, with data of their own that goes with them."""

    def __init__(self, settings: dict[str, str] | None = None, *, is_beside: bool = False) -> None:
        """`settings`: of every node, by the name of the variable without its prefix; `is_beside`: another one runs."""
        self.name = "warren"
        self._above = BESIDE if is_beside else 0
        self.hosts = [f"127.0.0.1:{AMQP_PORT + self._above + i}" for i in range(NODES)]
        self._settings = settings or {}
        self._folder = tempfile.TemporaryDirectory(
            prefix="warren-bench-", dir=SCRATCH, ignore_cleanup_errors=True
        )
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> Path:
        """Data directory of the cluster."""
        return Path(self._folder.name) / "data"

    def pids(self) -> list[int]:
        """Process of each node."""
        return [self.pid(node) for node in range(NODES)]

    def pid(self, node: int) -> int:
        """Process of a node, from 0."""
        return int((self.data / f"n{node + 1}" / "warren.pid").read_text())

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._folder.cleanup()

    def start(self) -> None:
        """Start all nodes and wait until they serve."""
        log = Path(self._folder.name) / "warren.log"
        variables = {f"WARREN_{key.upper()}": value for key, value in self._settings.items()}
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command(),
                stdout=output,
                stderr=output,
                env={**os.environ, **variables},
                process_group=0,
            )
        deadline = time.monotonic() + READY_S_MAX
        while not all(self.is_ready(node) for node in range(NODES)):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise ClusterError(f"Warren did not start: {log.read_text(errors='replace').strip()[-300:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End all nodes; the data stays."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(END_S_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def kill(self, node: int) -> None:
        """Kill one node, from 0."""
        os.kill(self.pid(node), signal.SIGKILL)
        while self.status(node) is not None:
            time.sleep(0.01)

    def restart(self, node: int) -> float:
        """Start a dead node; how old its process was when it served, in seconds."""
        old = self.pid(node)
        process = subprocess.Popen([*self._command(), "--restart", f"n{node + 1}"], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + READY_S_MAX
        while not ((pid := self.pid(node)) != old and self.is_ready(node)):
            if time.monotonic() > deadline:
                raise ClusterError(f"node {node + 1} did not start again")
            time.sleep(0.01)
        age_s = process_age_s(pid)
        process.wait()
        return age_s

    def is_ready(self, node: int) -> bool:
        """Whether a node serves, and knows a leader of every shard."""
        status = self.status(node)
        return status is not None and bool(status["is_ready"]) and all(s["leader"] for s in status["shards"])

    def status(self, node: int) -> dict[str, Any] | None:
        """What a node says of itself; None if it says nothing."""
        url = f"http://127.0.0.1:{HTTP_PORT + self._above + node}/status?queues=0"
        try:
            with urllib.request.urlopen(url, timeout=1) as answer:
                status: dict[str, Any] = json.load(answer)
        except (OSError, ValueError, http.client.HTTPException):
            return None
        return status

    def _command(self) -> list[str]:
        ports = (("--amqp-port", AMQP_PORT), ("--http-port", HTTP_PORT), ("--cluster-port", CLUSTER_PORT))
        given = [text for flag, first in ports for text in (flag, str(first + self._above))]
        return [sys.executable, "-m", "node", "dev", "--data", str(self.data), *given]


def process_age_s(pid: int) -> float:
    """How long ago a process began."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(_stat(pid)[19]) / TICKS


def cpu_s(pid: int) -> float:
    """CPU time that a process has used."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / TICKS


def private_bytes(pid: int) -> int:
    """Resident memory of the process alone; pages of the store's file map are page cache and not counted."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) * 1024
    raise ClusterError("the kernel tells no private memory")


def written_bytes(pid: int) -> int:
    """Bytes that a process has caused to be written to disk."""
    lines = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return int(lines["write_bytes"])


def folder_bytes(folder: Path) -> int:
    """Disk space that a folder takes."""
    return sum(file.stat().st_blocks * 512 for file in folder.rglob("*") if file.is_file())


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the third on: index 0 is `state`."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
