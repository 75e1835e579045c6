"""Runs come out when they are due, in the order of their times, however far that is."""

import hypothesis.strategies as st
from hypothesis import given

from node.broker.delayed import BUCKET_SHIFT, Delayed
from node.broker.runs import PLAIN, Run


def run(index: int) -> Run:
    """One message of entry `index`."""
    return (index, 18, 0, 1, 0, 0, (index % 3, 0, 0) if index % 3 else PLAIN)


TIMES = st.integers(0, 5 << BUCKET_SHIFT)


@given(st.lists(st.tuples(st.sampled_from(["add", "take"]), TIMES), max_size=60))
def test_delayed_agrees_with_a_sorted_list(steps: list[tuple[str, int]]) -> None:
    """Whatever is added and taken in between; time goes forward."""
    delayed, model, now = Delayed(), [], 0
    for index, (step, time) in enumerate(steps):
        if step == "add":
            delayed.add(time, run(index))
            model.append((time, run(index)))
        else:
            now = max(now, time)
            taken = []
            while (item := delayed.take(now)) is not None:
                taken.append(item)
            assert taken == sorted(item for item in model if item[0] <= now)
            model = [item for item in model if item[0] > now]
        assert sorted(delayed) == sorted(model)
        assert delayed.count == len(model)
        first = min([item[0] for item in model], default=0)
        assert delayed.next_due() <= max(first, 1)
        assert not model or delayed.next_due() or not first
