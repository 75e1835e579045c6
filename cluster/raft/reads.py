"""Reads that must not be stale, without a log entry: rounds of heartbeats (dissertation 6.4).

A round proves that its leader still led after every read in it had arrived. The token that travels is the
leader's own round number, valid within its term: a caller's token could come back late and prove too much.
"""

from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

from cluster.raft.quorum import joint_value
from cluster.types import Configuration


class Request(NamedTuple):
    """Who asks, and the token that it knows its question by."""

    node: int
    token: int


class Round(NamedTuple):
    """One round: confirmed when a majority answered a heartbeat with this or a newer number."""

    number: int
    commit: int
    requests: list[Request]


class ReadRounds:
    """The reads of one leader in one term; a lost one is asked again by its caller under a new token."""

    __slots__ = ("_acks", "_rounds", "count", "number", "waiting")

    def __init__(self) -> None:
        self.number = 0
        self.count = 0
        self.waiting: list[Request] = []
        self._rounds: deque[Round] = deque()
        self._acks: dict[int, int] = {}

    def ask(self, node: int, token: int) -> None:
        """Take a read; it joins the next round."""
        self.waiting.append(Request(node, token))
        self.count += 1

    def begin(self, commit: int) -> None:
        """Put all waiting reads into a new round; `commit` is read now, after all of them arrived."""
        self.number += 1
        self._rounds.append(Round(self.number, commit, self.waiting))
        self.waiting = []

    def acknowledged(self, node: int, number: int) -> bool:
        """A member answered the heartbeat of this round; whether that may confirm something."""
        if number <= self._acks.get(node, 0):
            return False
        self._acks[node] = number
        return bool(self._rounds)

    def take_confirmed(self, configuration: Configuration, leader: int) -> list[Round]:
        """Rounds that a majority (both of them in a joint change) has confirmed, oldest first."""
        acks: Mapping[int, int] = {**self._acks, leader: self.number}
        confirmed = joint_value(configuration.voters, configuration.outgoing, acks)
        taken = []
        while self._rounds and self._rounds[0].number <= confirmed:
            taken.append(self._rounds.popleft())
            self.count -= len(taken[-1].requests)
        return taken
