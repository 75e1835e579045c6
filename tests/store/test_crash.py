"""What is left after a process or the power ends in the middle of writing."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.store.environment import Environment
from node.store.log_store import LmdbStore
from tests.store.writing_process import SEGMENT_BYTES, turn_data

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
        environment = Environment(
            path, cluster="c", node="n1", map_bytes=1 << 32, segment_bytes=SEGMENT_BYTES
        )
        store = LmdbStore(environment)
        ends = {store.view(group).last_index() for group in (1, 2)}
        assert len(ends) == 1
        end = ends.pop()
        assert end >= reported
        assert store.view(1).initial_state()[0].commit == end
        for index in range(1, end + 1):
            assert store.data(1, index) == store.data(2, index) == turn_data(index)
        environment.close()


CALL = re.compile(
    r"(pwrite64|pwritev|writev|write|fdatasync|fsync)\(\d+<([^>]*)>(?:, .*, (\d+))?.*\) += \d+$"
)
SUBMIT = re.compile(r"io_submit\(.*aio_fildes=\d+<([^>]*)>.*aio_offset=(\d+)")
REPORT = re.compile(r"write\(1(<[^>]*>)?, \"durable")
STORED = re.compile(r"(data\.mdb|journal\.\d+)$")


def whole_calls(trace: str) -> Iterator[str]:
    """The calls of `strace -f -y`, each when it ended; a report of durability when it began."""
    unfinished: dict[str, str] = {}
    for line in trace.splitlines():
        thread, _, call = line.partition(" ")
        call = call.strip()
        if call.endswith("<unfinished ...>"):
            unfinished[thread] = call.removesuffix(" <unfinished ...>")
            if REPORT.match(call):
                yield call
            continue
        if resumed := re.match(r"<\.\.\. \w+ resumed>(.*)", call):
            call = unfinished.pop(thread, "") + resumed[1]
            if REPORT.match(call):
                continue
        # The flags of pwritev2, which are none, stand where the other calls end with the offset.
        yield re.sub(r"^pwritev2\((.*), 0\)( += )", r"pwritev(\1)\2", call)


def power_loss_violations(trace: str) -> list[str]:
    """Reads `strace -f -y` and returns what power loss could turn into a lie.

    A turn is durable when its record is: written to the journal through a descriptor that was opened O_DSYNC, or
    flushed. So at every `durable` line nothing in the journal may be unflushed, or on its way. A segment of the
    journal may be written over when LMDB has what was in it: a commit must have been flushed since.
    """
    violations = []
    dirty: set[str] = set()
    under_way = False
    synced: set[str] = set()  # files that are written through O_DSYNC descriptors only
    unfolded: set[str] = set()  # segments of the journal that were written since LMDB's last flush
    for call in whole_calls(trace):
        if (
            call.startswith("open")
            and "O_RDONLY" not in call
            and (stored := re.search(r"journal\.\d+", call))
        ):
            (synced.add if "O_DSYNC" in call or "O_SYNC" in call else synced.discard)(stored[0])
        elif REPORT.match(call):
            violations += [call] if dirty or under_way else []
        elif submitted := SUBMIT.match(call):
            name = Path(submitted[1]).name
            under_way = True
            dirty |= set() if name in synced else {name}
            violations += [call] if submitted[2] == "0" and name in unfolded else []
            unfolded.add(name)
        elif re.match(r"io_getevents\(.*\) += 1$", call):
            under_way = False
        elif (done := CALL.match(call)) and (stored := STORED.search(done[2])):
            name, writes = stored[1], "write" in done[1]
            if name == "data.mdb":
                unfolded = unfolded if writes else set()
            elif not writes:
                dirty.discard(name)
            else:
                dirty |= set() if name in synced else {name}
                violations += [call] if done[3] == "0" and name in unfolded else []
                unfolded.add(name)
    return violations


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed: apt-get install strace")
@pytest.mark.parametrize(("sync", "is_safe"), [("sync", True), ("nosync", False)])
def test_durable_is_reported_after_the_flush_only(tmp_path: Path, sync: str, is_safe: bool) -> None:
    """Power loss takes all that was not flushed; without sync the same check finds the lie."""
    trace = tmp_path / "trace"
    calls = "trace=openat,open,write,writev,pwrite64,pwritev,pwritev2,io_submit,io_getevents,fdatasync,fsync,msync"
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
        *command(tmp_path / "d", sync, "60"),
    ]
    result = subprocess.run(traced, env=environment_variables(), capture_output=True, timeout=60)
    if result.returncode and b"ptrace" in result.stderr:
        pytest.skip("strace may not trace here: the container forbids ptrace")
    assert b"durable 60\n" in result.stdout
    text = trace.read_text()
    submitted = [found.groups() for call in whole_calls(text) if (found := SUBMIT.match(call))]
    begun = [name for name, offset in submitted if name.endswith("journal.1") and offset == "0"]
    assert len(begun) >= 2, "the ring did not turn"
    violations = power_loss_violations(text)
    assert (violations == []) is is_safe, violations[:3]
