"""Runs as the queue machine keeps them: consecutive messages of one enqueue command, with one fate.

A run is cut only where credit, a settled range or a limit cuts it, always in O(1); neighbours that meet again are
joined.
"""

from collections.abc import Iterable

Traits = tuple[int, int, int]
"""Priority, when the messages expire (ms since the epoch, 0: never), bytes of each body (0 where nobody counts)."""
Run = tuple[int, int, int, int, int, int, Traits]
"""Log index, command offset, first record, count, returns, failures, traits. Tuples compare in publish order."""

PLAIN: Traits = (0, 0, 0)
ATTEMPTS_MAX = 0xFFFF
"""Returns and failures stop counting here; a row has 16 bits for each."""


def first_part(run: Run, count: int) -> Run:
    """Return the first `count` messages of a run."""
    return (run[0], run[1], run[2], count, run[4], run[5], run[6])


def last_part(run: Run, skipped: int) -> Run:
    """Return a run without its first `skipped` messages."""
    return (run[0], run[1], run[2] + skipped, run[3] - skipped, run[4], run[5], run[6])


def attempted(run: Run, failed: bool) -> Run:
    """Return a run that came back once more."""
    index, offset, first, count, returns, failures, traits = run
    return (
        index,
        offset,
        first,
        count,
        min(returns + 1, ATTEMPTS_MAX),
        min(failures + failed, ATTEMPTS_MAX),
        traits,
    )


def add_to_live(live: dict[int, int], runs: Iterable[Run]) -> None:
    """Add the messages of runs to those that are alive, by log index."""
    for run in runs:
        live[run[0]] = live.get(run[0], 0) + run[3]


def follows(run: Run, later: Run) -> bool:
    """Whether `later` begins where `run` ends, with the same history."""
    return run[:2] == later[:2] and run[2] + run[3] == later[2] and run[4:] == later[4:]


def joined(runs: list[Run]) -> list[Run]:
    """Join neighbours of an ascending list, so that a run returned in pieces costs one run again."""
    found = [runs[0]]
    for run in runs[1:]:
        last = found[-1]
        if follows(last, run):
            found[-1] = first_part(last, last[3] + run[3])
        else:
            found.append(run)
    return found
