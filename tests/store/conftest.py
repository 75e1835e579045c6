"""A store in a temporary directory, with a writer and a loop that runs when the test says so."""

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from cluster.ports import GroupWrite
from cluster.types import Configuration, Entry
from node.store.environment import Environment
from node.store.journal import Journal
from node.store.log_store import LmdbStore
from node.store.record import Body, Journaled
from node.store.writer import Writer

FIRST = Configuration((1, 2, 3))
MAP_BYTES = 1 << 30
SEGMENT_BYTES = 64 << 10
"""Small, so that the ring of the journal turns in most tests."""


def entry(index: int, data: bytes = b"data", term: int = 1) -> Entry:
    """An entry whose time follows from its index."""
    return Entry(index, term, 1, 1000 + index, data)


def entries(lo: int, hi: int, data: bytes = b"data", term: int = 1) -> list[Entry]:
    """Entries lo..hi-1."""
    return [entry(index, data, term) for index in range(lo, hi)]


def finish(journal: Journal, body: Body, writes: Sequence[GroupWrite]) -> list[Journaled]:
    """Append a record for which there is room, and wait until it is durable."""
    journal.append(body)
    journaled = None
    while journaled is None:
        journal.wait()
        journaled = journal.advance(writes)
    return journaled


class Harness:
    """A store, its writer, and its loop."""

    def __init__(
        self,
        path: Path,
        *,
        cache_bytes_max: int = 1 << 20,
        segment_bytes: int = SEGMENT_BYTES,
        sync: bool = False,
    ) -> None:
        self.path = path
        self.environment = Environment(
            path, cluster="c", node="n1", sync=sync, map_bytes=MAP_BYTES, segment_bytes=segment_bytes
        )
        self.store = LmdbStore(self.environment, cache_bytes_max)
        self.durable: list[int] = []
        self.failures: list[Exception] = []
        self._options = {"cache_bytes_max": cache_bytes_max, "segment_bytes": segment_bytes}
        self._number = 0
        self.loop = asyncio.new_event_loop()
        self.writer = Writer(self.store, self.loop, self._on_durable, self._on_failure)

    def _on_durable(self, number: int) -> None:
        self.durable.append(number)
        self.loop.stop()

    def _on_failure(self, error: Exception) -> None:
        self.failures.append(error)
        self.loop.stop()

    def run(self) -> None:
        """One pass of the loop."""
        self.loop.call_soon(self.loop.stop)
        self.loop.run_forever()

    def wait(self) -> None:
        """Run the loop until the writer reports."""
        late = self.loop.call_later(5, pytest.fail, "the writer reports nothing")
        self.loop.run_forever()
        late.cancel()

    def note(self, *writes: GroupWrite) -> int:
        """Show writes without handing them to the writer yet."""
        self.store.note(writes)
        self._number += 1
        return self._number

    def write(self, *writes: GroupWrite) -> None:
        """Note, write, and wait until it is durable."""
        number = self.note(*writes)
        self.writer.submit(number, writes)
        while not self.failures and (not self.durable or self.durable[-1] < number):
            self.wait()

    def close(self) -> None:
        """End the writer and give the directory up."""
        self.writer.close()
        self.run()
        self.loop.close()
        self.environment.close()

    def crash(self) -> None:
        """End as if killed: what was appended to the journal stays there, and nothing more is carried into LMDB."""
        self.writer._folder.abandon()
        self.close()

    def reopen(self) -> "Harness":
        """The same directory in a new life."""
        self.close()
        return Harness(self.path, **self._options)


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    """A store with group 1, without entries."""
    made = Harness(tmp_path / "data")
    made.store.form(1, FIRST)
    yield made
    if made.environment.is_open:
        made.close()
