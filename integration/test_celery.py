"""Celery on three nodes: workers as people start them, and a node that dies under one."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, group

from integration.clients.celery_tasks import make_app
from integration.harness import Cluster, Node, wait_for

WAIT_S_MAX = 30.0
READY_S_MAX = 60.0
MODULE = "integration.clients.celery_tasks"
ROOT = Path(__file__).parent.parent

pytestmark = [pytest.mark.timeout(180)]


def _brokers(cluster: Cluster, first: Node) -> str:
    """All nodes, from one on: who loses one takes the next."""
    place = cluster.nodes.index(first)
    return ";".join(node.url for node in cluster.nodes[place:] + cluster.nodes[:place])


@contextmanager
def worker(
    brokers: str, name: str, log: Path, *, queues: str = "classic"
) -> Iterator[subprocess.Popen[bytes]]:
    """One worker process that does one task at a time in its own thread."""
    environment = {**os.environ, "WARREN_CELERY_BROKERS": brokers, "WARREN_CELERY_QUEUES": queues}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                sys.executable, "-m", "celery", "-A", MODULE, "worker", "-n", f"{name}@host",
                "--pool", "solo", "--loglevel", "INFO",
            ],
            cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        ready = wait_for(lambda: b" ready." in log.read_bytes() or process.poll() is not None, READY_S_MAX)
        assert ready and process.poll() is None, log.read_text()
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def client(brokers: str, queues: str = "classic") -> Iterator[Celery]:
    """The application at the side that asks."""
    app = make_app(brokers, queues)
    try:
        yield app
    finally:
        app.backend.result_consumer.stop()
        app.close()


@pytest.fixture(scope="module")
def app(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Celery]:
    """A client at n1 and a worker at n2."""
    log = tmp_path_factory.mktemp("worker") / "w1.log"
    brokers = _brokers(cluster, cluster.nodes[1])
    with worker(brokers, "w1", log), client(_brokers(cluster, cluster.nodes[0])) as running:
        yield running


def _ask(app: Celery, task: str, *arguments: Any, **options: Any) -> Any:
    return app.send_task(f"{MODULE}.{task}", arguments, **options)


def test_results_come_back(app: Celery) -> None:
    """rpc://: one reply queue a client; a group's results come to their askers."""
    assert _ask(app, "add", 2, 3).get(timeout=WAIT_S_MAX) == 5
    many = group(app.signature(f"{MODULE}.add", (number, 1)) for number in range(50))
    assert many.apply_async().get(timeout=WAIT_S_MAX) == list(range(1, 51))


def test_a_task_that_fails_is_tried_again(app: Celery) -> None:
    assert _ask(app, "fail_twice").get(timeout=WAIT_S_MAX) == 2


def test_countdowns_do_not_keep_other_tasks_waiting(app: Celery, tmp_path: Path) -> None:
    """A worker with a prefetch of one takes ten tasks that are due later: it raises the prefetch of its channel
    (basic.qos global) for each, and still does what comes after them at once."""
    file = str(tmp_path / "notes")
    later = [_ask(app, "note", file, f"later{number}", countdown=5) for number in range(10)]
    at_once = _ask(app, "note", file, "at once")
    assert at_once.get(timeout=WAIT_S_MAX) == "at once"
    assert [each.get(timeout=WAIT_S_MAX) for each in later] == [f"later{number}" for number in range(10)]
    assert Path(file).read_text().splitlines()[0] == "at once"


def test_urgent_tasks_go_first(app: Celery, tmp_path: Path) -> None:
    """x-max-priority: what waited while nobody consumed comes by its priority."""
    file = str(tmp_path / "notes")
    reply = app.control.cancel_consumer("ranked", reply=True, timeout=5, limit=1)
    assert "ok" in next(iter(reply[0].values()))
    asked = [_ask(app, "note", file, f"{rank}", queue="ranked", priority=rank) for rank in (1, 9, 5, 0, 7)]
    app.control.add_consumer("ranked", reply=True, timeout=5, limit=1)
    for each in asked:
        each.get(timeout=WAIT_S_MAX)
    assert Path(file).read_text().split() == ["9", "7", "5", "1", "0"]


def test_workers_hear_commands(app: Celery, tmp_path: Path) -> None:
    """Remote control: a fanout exchange to the workers, and their answers."""
    assert app.control.ping(timeout=5, limit=1) == [{"w1@host": {"ok": "pong"}}]
    queues = app.control.inspect(timeout=5, limit=1).active_queues()
    assert {queue["name"] for queue in queues["w1@host"]} == {"celery-classic", "ranked"}
    file = tmp_path / "notes"
    revoked = _ask(app, "note", str(file), "never", countdown=1)
    app.control.revoke(revoked.id, reply=True, timeout=5, limit=1)
    assert _ask(app, "note", str(file), "after", countdown=1.5).get(timeout=WAIT_S_MAX) == "after"
    assert file.read_text() == "after\n"


def test_a_killed_worker_loses_no_task(cluster: Cluster, tmp_path: Path) -> None:
    """acks_late: what a worker had when it died goes to another."""
    file = tmp_path / "pid"
    brokers = [_brokers(cluster, node) for node in cluster.nodes]
    with (
        worker(brokers[1], "w2", tmp_path / "w2.log", queues="late"),
        worker(brokers[2], "w3", tmp_path / "w3.log", queues="late"),
        client(brokers[0], "late") as app,
    ):
        asked = _ask(app, "hang_once", str(file))
        assert wait_for(lambda: file.exists() and file.read_text(), WAIT_S_MAX)
        os.kill(int(file.read_text()), signal.SIGKILL)
        assert asked.get(timeout=WAIT_S_MAX) == "done"


@pytest.mark.parametrize("queues", ["moved", "quorum"])
def test_a_killed_node_loses_no_task(cluster: Cluster, tmp_path: Path, queues: str) -> None:
    """The worker's node dies with tasks waiting, under way and due later: each is done, and answered.

    With queues of type quorum, what is due later goes through Celery's own delayed delivery: a chain of queues
    with x-message-ttl that are each other's dead-letter exchanges, at-least-once.
    """
    victim = cluster.nodes[2]
    file = tmp_path / "notes"
    with (
        worker(_brokers(cluster, victim), "w4", tmp_path / "w4.log", queues=queues),
        client(_brokers(cluster, cluster.nodes[0]), queues) as app,
    ):
        started = time.monotonic()
        later = [_ask(app, "note", str(file), f"later{number}", countdown=4) for number in range(5)]
        asked = [_ask(app, "add", number, 1) for number in range(100)]
        assert asked[9].get(timeout=WAIT_S_MAX) == 10
        victim.kill()
        try:
            assert [each.get(timeout=WAIT_S_MAX) for each in asked] == list(range(1, 101))
            assert [each.get(timeout=WAIT_S_MAX) for each in later] == [f"later{n}" for n in range(5)]
            assert time.monotonic() - started >= 4
        finally:
            cluster.restart(victim)
    assert {f"later{number}" for number in range(5)} == set(file.read_text().split())
