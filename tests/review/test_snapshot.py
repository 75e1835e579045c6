"""Snapshot transfers against the real store: what is trimmed while they run, and what must not be missing."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.ports import GroupWrite
from cluster.snapshot import SnapshotReceiver, SnapshotSender
from cluster.types import Entry, HardState, SnapshotMeta
from tests.store.conftest import FIRST, Harness, entries

MiB = 1 << 20
META = SnapshotMeta(20, 1, 1020, FIRST, 1)


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    """A store of group 1 with 20 entries of 1 MiB, all of them before its snapshot."""
    made = Harness(tmp_path / "data")
    made.store.form(1, FIRST)
    made.write(GroupWrite(1, entries=entries(1, 21, b"x" * MiB), hard_state=HardState(1, 1, 20)))
    made.write(
        GroupWrite(1, checkpoint=META, checkpoint_rows=[(b"m", b"state")], compact_to=20, compact_term=1)
    )
    yield made
    made.close()


def sent(sender: SnapshotSender) -> list[Entry]:
    found: list[Entry] = []
    while not sender.finished:
        for part in sender.next_parts():
            found += part.entries
            sender.received += 1
    return found


def test_rows_whose_trim_was_under_way_are_left_out(harness: Harness) -> None:
    """Rows that were dead before the transfer began may vanish while it runs: nobody needs them."""
    sender = SnapshotSender(1, 2, 1, META, 7, 0)
    sender.begin(harness.store, 2, {index: 1 for index in range(1, 21) if index != 18})
    found = [entry.index for part in sender.next_parts() for entry in part.entries]
    sender.received = sender.sent
    harness.write(GroupWrite(1, trims=[18]))  # handed over before, carried out now
    harness.write(GroupWrite(1))
    found += [entry.index for entry in sent(sender)]
    assert found == [*range(3, 18), 19, 20]


def test_a_live_row_that_is_missing_is_an_error(harness: Harness) -> None:
    """A state whose messages are not all there must never be taken for a whole one."""
    harness.write(GroupWrite(1, trims=[5]))
    harness.write(GroupWrite(1))
    sender = SnapshotSender(1, 2, 1, META, 7, 0)

    class Listing:
        """The store, with a list of rows from before."""

        def stored_below(self, _group: int, _index: int) -> Iterator[int]:
            return iter(range(1, 21))

        def __getattr__(self, name: str) -> object:
            return getattr(harness.store, name)

    sender.begin(Listing(), 0, dict.fromkeys(range(1, 21), 1))  # type: ignore[arg-type]
    with pytest.raises(KeyError):
        sent(sender)


def test_parts_of_a_transfer_that_was_given_up_are_not_mixed_in(harness: Harness) -> None:
    """The same state is cut differently for a member that has applied more: a mixture would have gaps."""
    live = dict.fromkeys(range(1, 21), 1)
    first, second = SnapshotSender(1, 2, 1, META, 7, 0), SnapshotSender(1, 2, 1, META, 8, 0)
    first.begin(harness.store, 0, live)
    second.begin(harness.store, 5, live)
    receiver = SnapshotReceiver(1, 1, META, 8)
    late = first.next_parts()[0]
    assert not receiver.matches(1, late)
    part = second.next_parts()[0]
    assert receiver.matches(1, part) and receiver.add(part)
