"""The histogram that the load generator counts in C and Python reads."""

import itertools
import re

from hypothesis import given
from hypothesis import strategies as st

from bench.generator import SOURCES
from bench.histogram import SUB_BITS, Histogram, bounds, bucket_of


@given(st.integers(0, 2**62))
def test_a_value_lies_within_its_bucket(ns: int) -> None:
    low, high = bounds(bucket_of(ns))
    assert low <= ns < high
    assert high - low <= max(1, low / 64)


def test_buckets_follow_each_other_without_gaps() -> None:
    edges = [bounds(bucket) for bucket in range(2000)]
    assert all(one[1] == other[0] for one, other in itertools.pairwise(edges))


def test_what_is_below_zero_counts_as_nothing() -> None:
    assert bucket_of(-5) == 0


def test_percentiles_are_right_within_a_bucket() -> None:
    histogram = Histogram((bucket_of(ms * 1_000_000), 1) for ms in range(1, 101))
    for share, expected in ((0.5, 50), (0.99, 99), (1.0, 100)):
        found = histogram.percentile_ms(share)
        assert found is not None and abs(found - expected) < expected * 0.02


def test_nothing_counted_has_no_percentile() -> None:
    assert Histogram().percentile_ms(0.5) is None


def test_pairs_of_the_same_bucket_add_up() -> None:
    assert Histogram([(7, 2), (7, 3)]).count == 5


def test_c_and_python_divide_a_power_of_two_alike() -> None:
    header = (SOURCES / "load.h").read_text()
    found = re.search(r"SUB_BITS = (\d+)", header)
    assert found is not None and int(found[1]) == SUB_BITS
