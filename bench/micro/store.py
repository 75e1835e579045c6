"""What a durable turn costs: python -m bench.micro.store. One record of the journal, synced, on the real disk."""

import statistics
import tempfile
import time
from collections.abc import Iterator
from itertools import count

from bench.clusters import SCRATCH
from cluster.placement import first_configuration
from cluster.ports import GroupWrite
from cluster.types import Entry, EntryKind, HardState
from node.store import record
from node.store.environment import Environment
from node.store.journal import SEGMENT_BYTES
from node.store.log_store import LmdbStore

TURNS = 100
SHAPES = ((1, 1, 1024), (1, 1, 65536), (1, 4, 65536), (1, 1, 1 << 20), (4, 1, 65536), (16, 1, 4096))


def turns(store: LmdbStore, groups: int, entries: int, size_bytes: int) -> Iterator[float]:
    """Milliseconds of each turn, without end."""
    journal = store.environment.journal
    data = bytes(size_bytes)
    for turn in count():
        writes = []
        for group in range(groups):
            first = turn * entries + 1
            batch = [Entry(first + i, 1, EntryKind.BATCH, 0, data) for i in range(entries)]
            writes.append(GroupWrite(group, entries=batch, hard_state=HardState(1, 1, first - 1)))
        if journal.unfolded_bytes + groups * entries * (size_bytes + 8192) > SEGMENT_BYTES:
            journal.begin(journal.sequence)
        began = time.perf_counter()
        journal.append(record.encode(writes))
        journal.wait()
        journal.advance(writes)
        yield (time.perf_counter() - began) * 1000


def main() -> None:
    """One line for each shape of a turn."""
    print(f"{'groups':>6} {'entries':>8} {'bytes':>8} {'p50':>8} {'p99':>8}   (ms a turn)")
    for groups, entries, size_bytes in SHAPES:
        with tempfile.TemporaryDirectory(dir=SCRATCH, prefix="warren-bench-") as folder:
            environment = Environment(folder, cluster="bench", node="n1")
            store = LmdbStore(environment)
            for group in range(groups):
                store.form(group, first_configuration(group, (1, 2, 3), 3))
            timed = [
                ms for ms, _ in zip(turns(store, groups, entries, size_bytes), range(TURNS), strict=False)
            ]
            environment.close()
        p99 = statistics.quantiles(timed, n=100)[98]
        print(f"{groups:>6} {entries:>8} {size_bytes:>8} {statistics.median(timed):>8.2f} {p99:>8.2f}")


if __name__ == "__main__":
    main()
