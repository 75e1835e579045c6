"""Looks for the seed that notices a planted bug, for one mutant or, as `python -m tests.sim.hunt`, for all."""

import argparse
import multiprocessing
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.raft import mutants as raft_mutants
from tests.raft.simulation import Simulation
from tests.sim import mutants, queue_mutants
from tests.sim.run import EVENTS, Run

CLUSTER_MUTANTS = [*mutants.MUTANTS, *queue_mutants.MUTANTS]
PLANTED = [("cluster", number, mutant.__name__) for number, (mutant, _) in enumerate(CLUSTER_MUTANTS)]
PLANTED += [("core", number, mutant.__name__) for number, (mutant, _) in enumerate(raft_mutants.MUTANTS)]
"""Where, its number there, and its name."""
SEEDS_MAX = 300
RAFT_EVENTS = 3_000
STALE = ("AttributeError", "NameError", "TypeError")
"""What code that has changed under a mutant fails with: then nothing was noticed but the mutant itself."""


class Found(NamedTuple):
    """How a mutant was found; `seed` 0: it was not."""

    name: str
    where: str
    seed: int
    tried: int
    what: str
    seconds: float


def _cluster_failure(seed: int) -> str:
    return Run(seed, EVENTS).execute().failure


def _core_failure(seed: int) -> str:
    simulation = Simulation(seed)
    try:
        simulation.run(RAFT_EVENTS)
        simulation.calm()
    except Exception as error:  # whatever it is, the mutant shows
        return f"{type(error).__name__}: {error}"
    return ""


def _seeds(told: int) -> Iterator[int]:
    if told:
        yield told
    yield from (seed for seed in range(1, SEEDS_MAX + 1) if seed != told)


def hunt(where: str, number: int) -> Found:
    """Plant one mutant and run seeds until one fails."""
    is_core = where == "core"
    mutant, told = (raft_mutants.MUTANTS if is_core else CLUSTER_MUTANTS)[number]
    run = _core_failure if is_core else _cluster_failure
    begun = time.monotonic()
    tried = 0
    with pytest.MonkeyPatch.context() as patch:
        try:
            mutant(patch)
        except AttributeError as error:
            return Found(mutant.__name__, where, 0, 0, f"stale: {error}", time.monotonic() - begun)
        for seed in _seeds(told):
            tried += 1
            failure = run(seed)
            if failure.startswith(STALE):
                return Found(mutant.__name__, where, 0, tried, f"stale: {failure}", time.monotonic() - begun)
            if failure:
                return Found(mutant.__name__, where, seed, tried, failure, time.monotonic() - begun)
    return Found(mutant.__name__, where, 0, tried, "not found", time.monotonic() - begun)


def _hunt(job: tuple[str, int]) -> Found:
    return hunt(*job)


def main() -> int:
    """Plant all mutants one by one; 1 if one of them lives."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim.hunt", description=__doc__)
    parser.add_argument("names", nargs="*", help="only mutants whose names hold one of these")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--skip-core", action="store_true", help="not those of tests/raft/mutants.py")
    args = parser.parse_args()
    jobs = [
        (where, number)
        for where, number, name in PLANTED
        if not (args.skip_core and where == "core")
        and (not args.names or any(wanted in name for wanted in args.names))
    ]
    alive = 0
    print(f"{'mutant':<50} {'where':<8} {'seed':>5} {'tried':>5} {'s':>6}  found as")
    with multiprocessing.Pool(args.jobs, maxtasksperchild=1) as pool:
        for found in pool.imap(_hunt, jobs, chunksize=1):
            alive += found.seed == 0
            what = found.what.partition("\n")[0][:90]
            print(
                f"{found.name:<50} {found.where:<8} {found.seed:>5} {found.tried:>5} {found.seconds:>6.1f}  {what}",
                flush=True,
            )
    print(f"{len(jobs) - alive} of {len(jobs)} planted bugs were found")
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main())
