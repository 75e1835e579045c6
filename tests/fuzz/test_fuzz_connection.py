"""Law: whatever a client sends, nothing is raised, and a connection that ended says so once."""

import random

import pytest

from tests.fuzz import fuzz_connection


@pytest.mark.parametrize("block", range(5))
def test_damaged_streams_raise_nothing(block: int) -> None:
    for seed in range(block * 20, block * 20 + 20):
        fuzz_connection.run(seed)


def test_random_bytes_raise_nothing() -> None:
    rng = random.Random(1)
    for _ in range(200):
        fuzz_connection.one_input(rng.randbytes(rng.randrange(200)))
        fuzz_connection.one_input(fuzz_connection.HEADER + fuzz_connection.GREETING + rng.randbytes(300))
