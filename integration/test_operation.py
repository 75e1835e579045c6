"""Bad operation: one clear line, the right exit code, and nothing lost."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pika
import pika.exceptions
import pytest

from integration.harness import HOST, Cluster, wait_for
from integration.nothing_lost import connected

END_S_MAX = 20.0
DISK = "120m"


def warren(*arguments: str, variables: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "node", *arguments],
        env={**os.environ, **(variables or {})}, capture_output=True, text=True, timeout=END_S_MAX,
    )  # fmt: skip


def assert_refused(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """Exactly one line that begins with the command's name and names what is wrong."""
    assert done.returncode == code, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("warren: ")]
    assert len(lines) == 1 and len(done.stderr.splitlines()) == 1, done.stderr
    for word in words:
        assert word in lines[0]
    assert "Traceback" not in done.stderr


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago."""
    sockets = [socket.create_server((HOST, 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def serve(data: Path, *more: str, ports: Sequence[int] = ()) -> tuple[str, ...]:
    """Arguments of a node alone."""
    amqp, http, cluster = ports or free_ports(3)
    addresses = ("--amqp", f"{HOST}:{amqp}", "--http", f"{HOST}:{http}", "--cluster", f"{HOST}:{cluster}")
    return ("serve", "--name", "n1", "--data", str(data), *addresses, *more)


@pytest.mark.parametrize("taken", [0, 1, 2], ids=["amqp", "http", "cluster"])
def test_port_in_use(tmp_path: Path, taken: int) -> None:
    """The line names the address and its purpose; the port's owner is not disturbed."""
    ports = free_ports(3)
    with socket.create_server((HOST, ports[taken])):
        done = warren(*serve(tmp_path / "data", ports=ports))
    assert_refused(done, 1, f"{HOST}:{ports[taken]}", ("amqp", "http", "cluster")[taken])


def test_data_directory_in_use(tmp_path: Path) -> None:
    """A second process is refused with the first one's number, and the first one goes on."""
    with Cluster(tmp_path, nodes=1) as cluster:
        (node,) = cluster.nodes
        done = warren(*serve(node.home / "data"))
        assert_refused(done, 1, str(node.home / "data"), "in use", str(node.pid))
        with connected(node) as channel:
            channel.queue_declare("goes-on")


def test_data_directory_of_another_cluster(tmp_path: Path) -> None:
    """Nothing of it is touched, and its own cluster finds all of it."""
    cluster = Cluster(tmp_path, nodes=1, name="first")
    (node,) = cluster.nodes
    with cluster:
        with connected(node) as channel:
            channel.queue_declare("kept", durable=True)
            channel.confirm_delivery()
            channel.basic_publish("", "kept", b"x")
        assert node.stop() == 0
        foreign = serve(node.home / "data", "--cluster-name", "second")
        assert_refused(warren(*foreign), 1, str(node.home / "data"), "'first'", "'second'")
        renamed = [
            each if each != "n1" else "n7" for each in serve(node.home / "data", "--cluster-name", "first")
        ]
        assert_refused(warren(*renamed), 1, str(node.home / "data"), "'n1'", "'n7'")
        cluster.restart(node)
        with connected(node) as channel:
            assert channel.basic_get("kept", auto_ack=True)[2] == b"x"


def test_data_directory_of_something_else(tmp_path: Path) -> None:
    """A directory with other files is not used."""
    (tmp_path / "holiday.jpg").write_bytes(b"x")
    assert_refused(warren(*serve(tmp_path)), 1, str(tmp_path), "holiday.jpg")
    assert [each.name for each in tmp_path.iterdir() if not each.name.startswith("warren.")] == [
        "holiday.jpg"
    ]


def test_data_directory_is_a_file(tmp_path: Path) -> None:
    """The line names it."""
    (tmp_path / "file").write_bytes(b"")
    assert_refused(warren(*serve(tmp_path / "file")), 1, str(tmp_path / "file"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"name = ", ("cannot read configuration",)),
        (b"\xff\xfe\x00", ("cannot read configuration",)),
        (b'colour = "red"', ("unknown setting", "colour")),
        (b"shards = 0", ("shards",)),
        (b'amqp = "nowhere"', ("amqp",)),
        (b'peers = "n1=127.0.0.1:1,n1=127.0.0.1:2"', ("peers", "n1")),
        (b'name = "n9"\npeers = "n1=127.0.0.1:1"', ("peers", "n9")),
    ],
    ids=["cut", "binary", "unknown", "bounds", "address", "twice", "not-a-member"],
)
def test_bad_configuration(tmp_path: Path, text: bytes, words: Sequence[str]) -> None:
    """Exit code 2, and a line that names file or setting."""
    file = tmp_path / "warren.toml"
    file.write_bytes(text)
    assert_refused(warren("serve", "--config", str(file)), 2, *words)


def test_configuration_missing(tmp_path: Path) -> None:
    """A file that is not there, and one that may not be read."""
    assert_refused(warren("serve", "--config", str(tmp_path / "none")), 2, str(tmp_path / "none"))
    assert_refused(warren("serve", "--config", str(tmp_path)), 2, str(tmp_path))


def test_bad_variable(tmp_path: Path) -> None:
    """The line names the variable."""
    done = warren(*serve(tmp_path / "data"), variables={"WARREN_SHARDS": "many"})
    assert_refused(done, 2, "WARREN_SHARDS")


def test_bad_usage() -> None:
    """A wrong flag, and a command that does not exist."""
    assert_refused(warren("serve", "--colour", "red"), 2, "--colour")
    assert_refused(warren("dance"), 2, "dance")


def test_nobody_answers_status() -> None:
    """`warren status` of a node that is not there."""
    (port,) = free_ports(1)
    assert_refused(warren("status", "--http", f"http://{HOST}:{port}"), 1, str(port))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own that fills up soon."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("a full disk needs root, to mount a small one")
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "warren-test", str(place)],
        capture_output=True,
        text=True,
    )
    if mounted.returncode:
        pytest.skip(f"a full disk needs a small file system: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.timeout(180)
def test_full_disk(tmp_path: Path, small_disk: Path) -> None:
    """One node's disk fills up: that node ends with one line and code 1; the cluster goes on and has everything.

    With room again the node comes back and has it too.
    """
    cluster = Cluster(tmp_path / "cluster", settings={"disk_free_bytes_min": 0})
    victim, other, third = cluster.nodes
    victim.home.mkdir(parents=True, exist_ok=True)
    (victim.home / "data").symlink_to(small_disk)
    with cluster:
        confirmed = []
        with connected(other) as channel:
            channel.queue_declare("full-disk", durable=True)
            group = cluster.group_of("full-disk")
            channel.confirm_delivery()
            for number in range(400):
                body = b"%d:" % number + b"x" * 300_000
                channel.basic_publish("", "full-disk", body, pika.BasicProperties(delivery_mode=2))
                confirmed.append(body)
        assert wait_for(lambda: not victim.is_running, 30), "the node with the full disk still runs"
        assert victim.process is not None and victim.process.returncode == 1
        lines = [line for line in victim.log().splitlines() if line.startswith("warren: ")]
        assert len(lines) == 1 and "full" in lines[0] and str(victim.home / "data") in lines[0], victim.log()
        assert "Traceback" not in victim.log()
        subprocess.run(["mount", "-o", "remount,size=400m", str(small_disk)], check=True)
        cluster.restart(victim)
        assert cluster.wait_level(0, victim) and cluster.wait_level(group, victim)
        third.kill()
        got = []
        with connected(victim) as channel:
            for method, _, body in channel.consume("full-disk", inactivity_timeout=15):
                if method is None:
                    break
                got.append(body)
                channel.basic_ack(method.delivery_tag)
                if len(got) == len(confirmed):
                    break
        assert confirmed == got


def test_full_disk_at_the_start(small_disk: Path) -> None:
    """A node that cannot even begin says so."""
    (small_disk / "warren.ballast").write_bytes(b"")
    with (small_disk / "warren.ballast").open("wb") as file:
        try:
            while True:
                file.write(b"x" * 65536)
                file.flush()
        except OSError:
            pass
    done = warren(*serve(small_disk))
    assert_refused(done, 1, str(small_disk))


def test_terminated_in_the_middle_of_traffic(tmp_path: Path) -> None:
    """SIGTERM: clients are told with 320, the exit code is 0, and what was confirmed is there."""
    with Cluster(tmp_path) as cluster:
        node = cluster.nodes[0]
        assert node.process is not None
        process, confirmed, closed = node.process, 0, ""
        with connected(node) as channel:
            channel.queue_declare("terminated", durable=True)
            channel.confirm_delivery()
            deadline = time.monotonic() + END_S_MAX
            try:
                while time.monotonic() < deadline:
                    channel.basic_publish("", "terminated", b"%d" % confirmed)
                    confirmed += 1
                    if confirmed == 100:
                        process.terminate()
            except pika.exceptions.AMQPError as error:
                closed = repr(error)
        assert "320" in closed, closed
        assert process.wait(END_S_MAX) == 0
        with connected(cluster.nodes[1]) as channel:
            assert channel.queue_declare("terminated", passive=True).method.message_count >= confirmed
