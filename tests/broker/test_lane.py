"""Lanes whose runs are still as the store has them against lanes that have read all."""

from typing import Any

import hypothesis.strategies as st
from hypothesis import given

from node.broker import packed
from node.broker.lane import Lane
from node.broker.runs import PLAIN, Run

counts = st.lists(st.integers(1, 3) | st.integers(1, 2**32 - 1), max_size=8)


def runs_from(first: int, sizes: list[int]) -> list[Run]:
    return [(first + place, 7, 1, size, 0, 0, PLAIN) for place, size in enumerate(sizes)]


def view(lane: Lane) -> Any:
    live: dict[int, int] = {}
    lane.add_to_live(live)
    return list(lane.runs()), lane.returned, lane.head, lane.end, lane.is_empty, live


@given(st.lists(counts.filter(bool), max_size=4), st.data())
def test_packed_runs_are_as_others(chunks: list[list[int]], data: st.DataObject) -> None:
    lazy, eager = Lane(0), Lane(0)
    index = 1
    for sizes in chunks:
        runs = runs_from(index, sizes)
        lazy.put_packed(packed.pack(runs))
        eager.put_all(runs)
        index += len(sizes)
    for _ in range(data.draw(st.integers(0, 30))):
        match data.draw(st.sampled_from(("put", "take", "give back", "look", "clear"))):
            case "put":
                new = runs_from(index, data.draw(counts))
                index += len(new)
                lazy.put_all(new)
                eager.put_all(new)
            case "take" if not eager.is_empty:
                limit = data.draw(st.integers(1, 4))
                assert lazy.take(limit) == eager.take(limit)
            case "give back" if not eager.is_empty:
                taken = [lane.take(2) for lane in (lazy, eager)]
                lazy.give_back(taken[:1])
                eager.give_back(taken[1:])
            case "look":
                assert lazy.next_run() == eager.next_run()
                ready = list(eager.runs())
                for count in range(1, len(ready) + 1):
                    assert lazy.last_runs(count) == ready[-count:]
            case "clear" if data.draw(st.integers(0, 3)) == 0:
                assert lazy.clear() == eager.clear()
        assert view(lazy) == view(eager)


@given(
    counts, st.sets(st.integers(0, 7)), st.tuples(st.integers(0, 255), st.integers(0, 9), st.integers(0, 9))
)
def test_what_is_told_of_packed_runs(
    sizes: list[int], others: set[int], traits: tuple[int, int, int]
) -> None:
    runs = [
        (*run[:6], traits) if place in others else run for place, run in enumerate(runs_from(2**40, sizes))
    ]
    raw = packed.pack(runs)
    assert packed.run_count(raw) == len(runs)
    assert packed.message_count(raw) == sum(sizes)
    assert list(packed.references(raw)) == [(run[0], run[3]) for run in runs]
    assert packed.are_plain(raw) == all(run[6] == PLAIN for run in runs)
    if packed.are_plain(raw):
        assert packed.unpack_plain(raw) == runs
