"""The simulator itself: a few seeds in each mode, the same story twice, old bugs, and bugs planted to be found."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sim.hunt import CLUSTER_MUTANTS, hunt
from tests.sim.run import Run
from tests.sim.trace import digest

SEEDS = 40
EVENTS = 1_000
LIVENESS_SEEDS = 10
QUICK_MUTANTS = (
    "everything_is_sent_before_it_is_durable",
    "turns_are_durable_when_they_are_handed_over",
    "failed_sync_is_tried_again",
    "live_bodies_are_trimmed",
    "checkpoint_lacks_the_streams",
    "duplicates_are_accepted",
    "apply_looks_at_the_clock",
    "consumers_stand_in_no_order",
    "confirm_comes_before_commit",
    "unknown_commands_are_passed_over",
    "a_queue_keeps_one_too_many",
    "messages_expire_early",
    "two_consumers_are_active",
    "delays_are_over_early",
    "dedup_ids_are_not_looked_at",
    "lanes_stand_upside_down",
    "failures_are_not_counted",
    "what_returns_has_no_priority",
    "what_times_out_is_lost",
    "commits_come_in_pieces",
)
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


@pytest.mark.parametrize("name", QUICK_MUTANTS)
def test_a_planted_bug_is_found(name: str) -> None:
    """A rig that finds nothing proves nothing. `make mutants` plants them all."""
    number = next(i for i, (mutant, _) in enumerate(CLUSTER_MUTANTS) if mutant.__name__ == name)
    found = hunt("cluster", number)
    assert found.seed, found
