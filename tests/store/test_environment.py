"""A data directory belongs to one node of one cluster, and to one process at a time."""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.ports import GroupWrite
from cluster.types import HardState
from node.store.environment import Environment
from node.store.errors import StoreError
from tests.store.conftest import FIRST, MAP_BYTES, SEGMENT_BYTES, Harness, entries, entry


def opened(
    path: Path, cluster: str = "c", node: str = "n1", now_ms: int = 1000, *, sync: bool = True
) -> Environment:
    sizes = {"map_bytes": MAP_BYTES, "segment_bytes": SEGMENT_BYTES}
    return Environment(path, cluster=cluster, node=node, now_ms=now_ms, sync=sync, **sizes)


def test_boot_epoch_rises_at_every_open_even_if_the_clock_falls(tmp_path: Path) -> None:
    """Two processes of a node never have the same epoch; others drop what is addressed to the older."""
    boots = []
    uuids = []
    for now_ms in (1000, 5000, 5000, 10):
        environment = opened(tmp_path, now_ms=now_ms)
        boots.append(environment.boot)
        uuids.append(environment.uuid)
        environment.close()
    assert boots == [1000, 5000, 5001, 5002]
    assert len(set(uuids)) == 1


def elsewhere(function: str, path: Path) -> subprocess.CompletedProcess[str]:
    """Calls a function of this module with a path in another process."""
    imports = f"import pathlib, sys; from tests.store.test_environment import {function}"
    command = [sys.executable, "-c", f"{imports}; {function}(pathlib.Path(sys.argv[1]))", str(path)]
    variables = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(command, capture_output=True, text=True, env=variables)


@pytest.mark.parametrize(
    ("cluster", "node", "text"),
    [("other", "n1", "belongs to cluster 'c', not 'other'"), ("c", "n2", "belongs to node 'n1', not 'n2'")],
)
def test_foreign_directory_is_refused_in_one_line(tmp_path: Path, cluster: str, node: str, text: str) -> None:
    """Another node's votes and log under this node's name would break Raft's promises."""
    opened(tmp_path).close()
    with pytest.raises(StoreError) as caught:
        opened(tmp_path, cluster, node)
    assert text in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)
    opened(tmp_path).close()


def test_directory_in_use_is_refused_and_names_the_process(tmp_path: Path) -> None:
    """Two writers of one environment would destroy it."""
    environment = opened(tmp_path)
    result = elsewhere("opened", tmp_path)
    assert f"StoreError: data directory {tmp_path} is in use by process {os.getpid()}" in result.stderr
    with pytest.raises(StoreError, match="in use"):
        opened(tmp_path)
    environment.close()
    opened(tmp_path).close()


def test_unsynced_life_is_remembered(tmp_path: Path) -> None:
    """Power loss may have left anything behind in a directory that once was not synced."""
    opened(tmp_path).close()
    environment = opened(tmp_path)
    assert environment.was_always_synced
    environment.close()
    opened(tmp_path, sync=False).close()
    environment = opened(tmp_path)
    assert environment.sync and not environment.was_always_synced
    environment.close()


def test_path_that_is_a_file_is_refused(tmp_path: Path) -> None:
    """The system's reason reaches the user."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be used: File exists"):
        opened(tmp_path / "file")


def test_used_bytes_follow_what_is_stored_and_free_bytes_the_rest(harness: Harness) -> None:
    """Alarms and trims go by these: deleting gives room back although the file stays as large."""
    empty_used, empty_free = harness.environment.used_bytes(), harness.environment.free_bytes()
    harness.write(GroupWrite(1, entries=entries(1, 101, b"x" * 100_000), hard_state=HardState(1, 1, 100)))
    assert harness.environment.free_bytes() < empty_free - 9_000_000
    assert 10_000_000 < harness.store.log_bytes(1) < 11_000_000
    harness = harness.reopen()
    full_used, full_free = harness.environment.used_bytes(), harness.environment.free_bytes()
    assert 10_000_000 < full_used - empty_used < 12_000_000
    assert full_free < empty_free - 9_000_000
    assert 10_000_000 < harness.store.log_bytes(1) < 11_000_000
    harness.write(GroupWrite(1, compact_to=99, compact_term=1, trims=list(range(1, 99))))
    harness = harness.reopen()
    assert harness.environment.used_bytes() < empty_used + 500_000
    assert harness.environment.file_bytes() > 10_000_000
    harness.close()


def test_full_map_is_a_failure_told_apart_and_nothing_follows(tmp_path: Path) -> None:
    """When LMDB cannot take what the journal holds, the writer reports once, and no later turn is durable."""
    harness = Harness(tmp_path, sync=False)
    harness.store.form(1, FIRST)
    harness.environment.lmdb.set_mapsize(1 << 20)
    turn = 0
    while not harness.failures:
        turn += 1
        harness.write(GroupWrite(1, entries=[entry(turn, b"x" * 60_000)], hard_state=HardState(1, 1, turn)))
        assert turn < 100
    durable = harness.durable[-1]
    number = harness.note(GroupWrite(1, hard_state=HardState(1, 1, 1)))
    harness.writer.submit(number, [GroupWrite(1, hard_state=HardState(1, 1, 1))])
    harness.close()
    assert harness.durable[-1] == durable
    assert len(harness.failures) == 1
    assert isinstance(harness.failures[0], StoreError)
    assert "MDB_MAP_FULL" in str(harness.failures[0])
    again = Harness(tmp_path)
    assert again.store.view(1).last_index() >= durable
    again.close()


def test_file_size_limit_is_a_failure(tmp_path: Path) -> None:
    """A disk that takes no more: EFBIG here stands in for ENOSPC, which takes the same way."""
    result = elsewhere("write_until_refused", tmp_path)
    assert "StoreError" in result.stdout, result.stderr
    assert "could not be written" in result.stdout or "full" in result.stdout


def write_until_refused(path: Path) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    harness = Harness(path)
    harness.store.form(1, FIRST)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))
    harness.write(GroupWrite(1, entries=entries(1, 50, b"x" * 100_000)))
    print(repr(harness.failures), flush=True)
    os._exit(0)


def test_peer_with_another_directory_is_refused_until_an_operator_says_so(tmp_path: Path) -> None:
    """What a voter forgot with its disk could elect a leader that lacks confirmed entries."""
    environment = opened(tmp_path)
    assert environment.judge_peer(2, "first", rejoin=False) == ""
    assert environment.judge_peer(2, "first", rejoin=False) == ""
    environment.close()
    environment = opened(tmp_path)
    assert "--rejoin" in environment.judge_peer(2, "second", rejoin=False)
    assert environment.judge_peer(3, "second", rejoin=False) == ""
    assert environment.judge_peer(2, "second", rejoin=True) == ""
    assert environment.judge_peer(2, "second", rejoin=False) == ""
    assert "--rejoin" in environment.judge_peer(2, "first", rejoin=False)
    environment.close()
