"""Processes held to an amount of memory, by a control group of the kernel, page cache included."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.clusters import ClusterError

GROUPS = Path("/sys/fs/cgroup")
V1 = GROUPS / "memory"


@contextlib.contextmanager
def limited(pids: Sequence[int], bytes_max: int) -> Iterator[None]:
    """Hold each process to `bytes_max` of its own until the end. Raises ClusterError where this machine cannot."""
    home, limit = (V1, "memory.limit_in_bytes") if V1.is_dir() else (GROUPS, "memory.max")
    made: list[Path] = []
    try:
        try:
            for pid in pids:
                group = home / f"warren-bench-{os.getpid()}-{pid}"
                group.mkdir()
                made.append(group)
                (group / limit).write_text(str(bytes_max))
                (group / "cgroup.procs").write_text(str(pid))
        except OSError as error:
            raise ClusterError(f"memory cannot be limited here: {error}") from error
        yield
    finally:
        for group in made:
            for pid in (group / "cgroup.procs").read_text().split():
                (home / "cgroup.procs").write_text(pid)
            group.rmdir()
