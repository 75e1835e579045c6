"""`warren dev`: a cluster that a newcomer starts with one command, and that leaves no process behind."""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pika
import pytest

from integration.harness import claim_ports

WARREN = Path(sys.executable).parent / "warren"
READY_S_MAX = 60.0


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + READY_S_MAX
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


class Dev:
    """A running `warren dev` on ports of its own."""

    def __init__(self, home: Path, base: int) -> None:
        self.home = home
        self.base = base
        self.output = home.with_suffix(".out")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        ports = [
            "--amqp-port",
            self.base,
            "--http-port",
            self.base + 1000,
            "--cluster-port",
            self.base + 2000,
        ]
        with self.output.open("wb") as output:
            self._process = subprocess.Popen(
                [str(WARREN), "dev", "--data", str(self.home), *map(str, ports)], stdout=output, stderr=output
            )
        wait_until(lambda: re.search(r"(?m)^ready", self.text()) is not None, "not ready")

    def text(self) -> str:
        return self.output.read_text()

    def end(self, number: signal.Signals) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(30)

    def pid(self, name: str) -> int:
        return int((self.home / name / "warren.pid").read_text())

    def pids(self) -> list[int]:
        return [self.pid(name) for name in ("n1", "n2", "n3")]

    @contextlib.contextmanager
    def channel(self, number: int) -> Iterator[pika.adapters.blocking_connection.BlockingChannel]:
        url = f"amqp://guest:guest@127.0.0.1:{self.base + number - 1}"
        connection = pika.BlockingConnection(pika.URLParameters(url))
        try:
            yield connection.channel()
        finally:
            connection.close()


def is_gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return True
    return state == "Z"


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[Dev]:
    lock, base = claim_ports(3)
    running = Dev(tmp_path / "data", base)
    with lock:
        running.start()
        yield running
        with contextlib.suppress(ProcessLookupError):
            running.end(signal.SIGTERM)


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(WARREN), *map(str, arguments)], capture_output=True, text=True, timeout=90)


def test_the_three_lines_to_try_work_as_they_are(dev: Dev) -> None:
    text = dev.text().split("look at the cluster:\n")[1].split("restart ")[0]
    lines = [line.strip() for line in text.splitlines() if line.startswith("  ")]
    assert len(lines) == 3
    outputs = [subprocess.check_output(shlex.split(line), text=True, timeout=60) for line in lines]
    assert outputs[1] == "b'hi'\n"
    assert "hello" in outputs[2]


def test_a_dead_node_stays_dead_until_it_is_asked_for(dev: Dev) -> None:
    victim = dev.pid("n2")
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: "node n2 ended by signal 9" in dev.text(), "the end was not told")
    result = run("dev", "--restart", "n2", "--data", dev.home)
    assert (result.returncode, result.stdout.split()[:2]) == (0, ["ready", "n2"])
    assert dev.pid("n2") != victim
    again = run("dev", "--restart", "n2", "--data", dev.home)
    assert (again.returncode, again.stderr) == (1, f"warren: node n2 is running as process {dev.pid('n2')}\n")


def test_the_line_that_it_prints_starts_a_node_by_hand(dev: Dev) -> None:
    line = next(
        line.strip() for line in dev.text().splitlines() if "serve --config" in line and "/n3/" in line
    )
    os.kill(dev.pid("n3"), signal.SIGKILL)
    wait_until(lambda: "node n3 ended" in dev.text(), "the end was not told")
    with subprocess.Popen(shlex.split(line), stderr=subprocess.DEVNULL) as node:
        try:
            wait_until(
                lambda: (dev.home / "n3/warren.pid").exists() and dev.pid("n3") == node.pid, "not started"
            )
            url = f"127.0.0.1:{dev.base + 1002}"
            wait_until(lambda: run("status", "--http", url).returncode == 0, "it does not answer")
        finally:
            node.terminate()
            assert node.wait(30) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_its_nodes_end_with_it_and_the_data_stays(dev: Dev, number: signal.Signals) -> None:
    with dev.channel(1) as channel:
        channel.confirm_delivery()
        channel.queue_declare("kept", durable=True)
        channel.basic_publish("", "kept", b"still here", pika.BasicProperties(delivery_mode=2))
    pids = dev.pids()
    code = dev.end(number)
    assert code == (-number if number is signal.SIGKILL else 0)
    for pid in pids:
        wait_until(lambda pid=pid: is_gone(pid), f"process {pid} is left")  # type: ignore[misc]
    dev.start()
    with dev.channel(3) as channel:
        assert channel.basic_get("kept", auto_ack=True)[2] == b"still here"


def test_a_second_one_on_the_same_data_is_refused(dev: Dev) -> None:
    result = run("dev", "--data", dev.home, "--amqp-port", dev.base + 5)
    assert result.returncode == 1
    assert re.fullmatch(r"warren: data directory \S+ is in use by process \d+\n", result.stderr)


def test_a_second_one_on_the_same_ports_is_refused(dev: Dev, tmp_path: Path) -> None:
    ports = ("--amqp-port", dev.base, "--http-port", dev.base + 1000, "--cluster-port", dev.base + 2000)
    result = run("dev", "--data", tmp_path / "other", *ports)
    assert result.returncode == 1
    assert re.fullmatch(r"warren: node n\d: .*(in use).*\n", result.stderr)
