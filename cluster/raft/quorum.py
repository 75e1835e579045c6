"""Majorities, of one set of voters and of two at once (Raft 5.2, 5.3, 6).

Pure functions of ids and values. Whoever is not in `voters` or `outgoing` does not count, whatever it said:
learners, removed members and strangers are shut out here and nowhere else.
"""

from collections.abc import Mapping
from enum import Enum


class Outcome(Enum):
    """How an election stands."""

    PENDING = 0
    WON = 1
    LOST = 2


def majority_value(voters: tuple[int, ...], values: Mapping[int, int]) -> int:
    """Return the highest value that a majority of `voters` has reached; an absent voter counts as 0.

    Args:
        voters: not empty.
    """
    reached = sorted([values.get(voter, 0) for voter in voters])
    return reached[(len(reached) - 1) >> 1]


def joint_value(voters: tuple[int, ...], outgoing: tuple[int, ...], values: Mapping[int, int]) -> int:
    """Return the highest value that a majority of both sets has reached (Raft 6); `outgoing` may be empty."""
    value = majority_value(voters, values)
    return min(value, majority_value(outgoing, values)) if outgoing else value


def vote_outcome(voters: tuple[int, ...], outgoing: tuple[int, ...], votes: Mapping[int, bool]) -> Outcome:
    """Judge an election: won if both majorities granted, lost as soon as one of them no longer can."""
    outcome = _majority_outcome(voters, votes)
    if not outgoing or outcome is Outcome.LOST:
        return outcome
    other = _majority_outcome(outgoing, votes)
    return other if outcome is Outcome.WON or other is Outcome.LOST else outcome


def _majority_outcome(voters: tuple[int, ...], votes: Mapping[int, bool]) -> Outcome:
    needed = len(voters) // 2 + 1
    granted = refused = 0
    for voter in voters:
        vote = votes.get(voter)
        if vote:
            granted += 1
        elif vote is not None:
            refused += 1
    if granted >= needed:
        return Outcome.WON
    return Outcome.LOST if len(voters) - refused < needed else Outcome.PENDING
