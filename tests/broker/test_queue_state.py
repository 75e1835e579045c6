"""The parts of a queue, where their inner order matters."""

from node.broker.commands import QueueConfig
from node.broker.consumer import HELD_SHIFT, Consumer
from node.broker.queue_state import Queue
from node.broker.runs import ATTEMPTS_MAX, PLAIN, Run


def run(index: int, first: int, count: int, returns: int = 0, failures: int = 0) -> Run:
    """Return a run of entry `index` at command offset 18."""
    return (index, 18, first, count, returns, failures, PLAIN)


def consumer() -> Consumer:
    """Return a consumer without limit."""
    return Consumer((1, 1), (1, 1), window=1 << 62, attached=True)


def test_give_back_counts_returns_and_failures_of_each_piece() -> None:
    """A run is one again only where its pieces have the same history."""
    queue = Queue(7, QueueConfig())
    queue.give_back([run(1, 0, 2), run(1, 2, 2)], failed=False, now=0)
    queue.give_back([run(1, 4, 2)], failed=True, now=0)
    queue.give_back([run(1, 6, 2, 1)], failed=False, now=0)
    assert queue.lanes[0].returned == [run(1, 6, 2, 2), run(1, 4, 2, 1, 1), run(1, 0, 4, 1)]
    assert queue.ready_count == 8


def test_give_back_merges_in_old_order() -> None:
    """Whatever the order in which pieces come back, the oldest is taken first."""
    queue = Queue(7, QueueConfig())
    queue.give_back([run(5, 0, 1), run(2, 0, 1), run(9, 0, 1)], failed=False, now=0)
    queue.give_back([run(6, 0, 1), run(1, 0, 1)], failed=False, now=0)
    queue.put(run(10, 0, 3))
    assert [queue.take(2)[0] for _ in range(7)] == [1, 2, 5, 6, 9, 10, 10]
    assert queue.ready_count == 0


def test_attempts_stop_counting_at_their_bound() -> None:
    """A message that is returned for ever still fits its row."""
    queue = Queue(7, QueueConfig())
    queue.give_back([run(1, 0, 1, ATTEMPTS_MAX, ATTEMPTS_MAX)], failed=True, now=0)
    assert queue.lanes[0].returned == [run(1, 0, 1, ATTEMPTS_MAX, ATTEMPTS_MAX)]


def test_held_run_is_cut_at_chunk_borders() -> None:
    """One id is always found in the chunk of its number; a release joins nothing and loses nothing."""
    taker = consumer()
    size = 1 << HELD_SHIFT
    assert taker.hold(run(1, 0, 3 * size)) == 1
    assert {number: len(held) for number, held in taker.chunks.items()} == {0: 1, 1: 1, 2: 1, 3: 1}
    assert taker.release(size - 1, size + 1) == [run(1, size - 2, 1), run(1, size - 1, 2)]
    assert sum(r[3] for r in taker.release(0, 1 << 64)) == 3 * size - 3
    assert (taker.unacked, taker.chunks) == (0, {})


def test_release_from_the_middle_keeps_both_ends() -> None:
    """The ids of what stays do not change."""
    taker = consumer()
    taker.hold(run(1, 0, 10))
    taker.hold(run(2, 0, 10))
    assert taker.release(4, 12) == [run(1, 3, 7), run(2, 0, 2)]
    assert taker.release(4, 12) == []
    assert taker.chunks == {0: [(1, run(1, 0, 3)), (13, run(2, 2, 8))]}
    assert taker.hold(run(3, 0, 1)) == 21
