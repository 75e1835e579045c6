"""The simulator itself: a few seeds in each mode, the same story twice, old bugs, and bugs planted to be found."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sim.hunt import PLANTED, hunt
from tests.sim.run import Run
from tests.sim.trace import digest

SEEDS = 40
EVENTS = 1_000
LIVENESS_SEEDS = 10
FOUND = [
    line.split()[:2]
    for line in (Path(__file__).parent / "seeds.txt").read_text().splitlines()
    if line[0] != "#"
]


@pytest.mark.parametrize("seed", range(1, SEEDS + 1))
def test_nothing_is_violated_whatever_fails(seed: int) -> None:
    report = Run(seed, EVENTS).execute()
    assert not report.failure, f"{report.failure}\n{report.where}"


@pytest.mark.parametrize("seed", range(1, LIVENESS_SEEDS + 1))
def test_a_quorum_in_good_health_serves(seed: int) -> None:
    report = Run(seed, EVENTS, "liveness").execute()
    assert not report.failure, f"{report.failure}\n{report.where}"


@pytest.mark.parametrize(("seed", "mode"), FOUND)
def test_bugs_found_once_stay_away(seed: str, mode: str) -> None:
    report = Run(int(seed), mode=mode).execute()
    assert not report.failure, f"{report.failure}\n{report.where}"


def test_a_seed_always_tells_the_same_story() -> None:
    """Twice here, and once each under two orders of hashes."""
    stories = {digest(Run(7, EVENTS, keep_trace=True).execute().trace) for _ in range(2)}
    command = (
        "from tests.sim.run import Run; from tests.sim.trace import digest;"
        f"print(digest(Run(7, {EVENTS}, keep_trace=True).execute().trace))"
    )
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        told = subprocess.run(
            [sys.executable, "-c", command], env=environment, capture_output=True, text=True, check=True
        )
        stories.add(told.stdout.strip())
    assert len(stories) == 1


@pytest.mark.parametrize(("where", "number", "name"), PLANTED, ids=[f"{w}-{n}" for w, _, n in PLANTED])
def test_a_planted_bug_is_found(where: str, number: int, name: str) -> None:
    """A rig that finds nothing proves nothing, and a bug that can no longer be planted is found by nothing."""
    found = hunt(where, number)
    assert found.seed and found.name == name, found
