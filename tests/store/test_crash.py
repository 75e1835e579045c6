"""What is left after a process or the power ends in the middle of writing."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from node.store.environment import Environment
from node.store.log_store import LmdbStore
from tests.store.writing_process import turn_data

PROGRAM = Path(__file__).parent / "writing_process.py"
ROOT = PROGRAM.parents[2]


def command(path: Path, *args: str) -> list[str]:
    return [sys.executable, str(PROGRAM), str(path), *args]


def environment_variables() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def test_killed_writer_leaves_a_consistent_prefix(tmp_path: Path) -> None:
    """SIGKILL at any moment: both groups end at the same turn, at or after the last one reported durable."""
    path = tmp_path / "data"
    for wait_s in (0.05, 0.11, 0.17):
        process = subprocess.Popen(
            command(path, "nosync"), stdout=subprocess.PIPE, env=environment_variables()
        )
        assert process.stdout is not None
        first = process.stdout.readline()
        time.sleep(wait_s)
        process.kill()
        lines = (first + process.stdout.read()).decode().split("\n")
        process.stdout.close()
        process.wait()
        reported = int([line for line in lines[:-1] if line.startswith("durable ")][-1].split()[1])
        environment = Environment(path, cluster="c", node="n1", map_bytes=1 << 32)
        store = LmdbStore(environment)
        ends = {store.view(group).last_index() for group in (1, 2)}
        assert len(ends) == 1
        end = ends.pop()
        assert end >= reported
        assert store.view(1).initial_state()[0].commit == end
        for index in range(1, end + 1):
            assert store.data(1, index) == store.data(2, index) == turn_data(index)
        environment.close()


WRITE = re.compile(r"(pwrite64|pwritev|writev|write)\((\d+)(<[^>]*>)?, .* = \d+$")


def power_loss_violations(trace: str) -> list[str]:
    """Reads `strace -f -y` and returns each report of durability that power loss could turn into a lie.

    A commit is durable when its data pages are flushed (fdatasync after the last of their writes) and its
    meta page is: written through a descriptor that was opened O_DSYNC, or flushed as well. So at every
    `durable` line nothing written to data.mdb may be unflushed.
    """
    violations = []
    dirty = 0
    synced_descriptors: set[str] = set()
    unfinished: dict[str, str] = {}
    for line in trace.splitlines():
        thread, _, call = line.partition(" ")
        call = call.strip()
        if call.endswith("<unfinished ...>"):
            unfinished[thread] = call.removesuffix("<unfinished ...>")
            if "durable" not in call:
                continue
        if resumed := re.match(r"<\.\.\. \w+ resumed>(.*)", call):
            call = unfinished.pop(thread, "") + resumed[1]
            if "durable" in call:
                continue  # judged when it began
        if opened := re.match(r"openat?\(.*data\.mdb.*O_D?SYNC.*= (\d+)", call):
            synced_descriptors.add(opened[1])
        elif re.match(r"(fdatasync|fsync)\(\d+<[^>]*data\.mdb>\)\s+= 0", call):
            dirty = 0
        elif (written := WRITE.match(call)) and "data.mdb" in (written[3] or ""):
            dirty += written[2] not in synced_descriptors
        elif re.match(r"write\(1(<[^>]*>)?, \"durable", call) and dirty:
            violations.append(call)
    return violations


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed: apt-get install strace")
@pytest.mark.parametrize(("sync", "is_safe"), [("sync", True), ("nosync", False)])
def test_durable_is_reported_after_the_flush_only(tmp_path: Path, sync: str, is_safe: bool) -> None:
    """Power loss takes all that was not flushed; without sync the same check finds the lie."""
    trace = tmp_path / "trace"
    calls = "trace=openat,open,write,writev,pwrite64,pwritev,pwritev2,fdatasync,fsync,msync"
    traced = [
        "strace",
        "-f",
        "-y",
        "-s",
        "16",
        "-e",
        calls,
        "-o",
        str(trace),
        *command(tmp_path / "d", sync, "20"),
    ]
    result = subprocess.run(traced, env=environment_variables(), capture_output=True, timeout=60)
    if result.returncode and b"ptrace" in result.stderr:
        pytest.skip("strace may not trace here: the container forbids ptrace")
    assert b"durable 20\n" in result.stdout
    text = trace.read_text()
    assert "data.mdb" in text
    violations = power_loss_violations(text)
    assert (violations == []) is is_safe, violations[:3]
