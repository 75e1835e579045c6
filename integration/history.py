"""What publishers and consumers saw, and whether a broker that loses and doubles nothing can have caused it.

All clients of a run live in one event loop, so the facts of all connections stand in one order. The rules:

1. every confirmed message is consumed;
2. nothing is consumed that was not published, and nothing is returned as unroutable;
3. a message is delivered as new (not redelivered) at most once;
4. the new messages that one consumer gets from one channel come in the order of publishing. Of several consumers
   nothing more can be said: what travels on two connections has no order;
5. a message whose ack is known to be applied is never delivered again. It is known once a synchronous request
   (a passive declaration) that was sent after the ack on the same channel has been answered.

A node that was stopped (SIGSTOP) and goes on may still send what it had ready for its socket before it learns that
its sessions have ended. That is no second delivery by the cluster if the connection then dies: rule 5 excuses
deliveries from a connection that was opened before its node's pause and did not outlive it by much.
"""

from dataclasses import dataclass, field
from typing import Any

PAUSE_ECHO_S = 10.0
"""How long after its pause a node may take to close the connections whose sessions had ended."""


@dataclass(slots=True, eq=False)
class Link:
    """One connection of a consumer."""

    node: str
    opened_at: float
    closed_at: float = float("inf")
    last_new: dict[tuple[str, int], int] = field(default_factory=dict)


@dataclass(slots=True)
class _Fate:
    confirmed: bool = False
    deliveries: int = 0
    new: int = 0
    settled: bool = False


@dataclass(slots=True)
class History:
    """The facts so far. A message is named (publisher, session, number); its queue is the publisher's."""

    fates: dict[tuple[str, int, int], _Fate] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    pauses: list[tuple[str, float, float]] = field(default_factory=list)  # node, from, to
    suspects: list[tuple[tuple[str, int, int], Link, float]] = field(default_factory=list)
    published: int = 0
    confirmed: int = 0
    consumed: int = 0
    duplicates: int = 0
    refused: int = 0
    excused: int = 0
    gaps: dict[str, tuple[float, float]] = field(default_factory=dict)  # queue -> (last confirm, longest gap)

    def publish(self, message: tuple[str, int, int]) -> None:
        self.published += 1
        self.fates[message] = _Fate()

    def confirm(self, message: tuple[str, int, int], queue: str, now: float) -> None:
        fate = self.fates[message]
        if fate.confirmed:
            self.errors.append(f"{message} was confirmed twice")
        fate.confirmed = True
        self.confirmed += 1
        last, longest = self.gaps.get(queue, (now, 0.0))
        self.gaps[queue] = now, max(longest, now - last)

    def refuse(self, message: tuple[str, int, int]) -> None:
        """basic.nack to a publisher: may be consumed or not."""
        self.refused += 1
        if self.fates[message].confirmed:
            self.errors.append(f"{message} was confirmed and refused")

    def deliver(self, message: tuple[str, int, int], link: Link, now: float, *, redelivered: bool) -> None:
        fate = self.fates.get(message)
        if fate is None:
            self.errors.append(f"{message} was consumed and never published")
            return
        fate.deliveries += 1
        if fate.deliveries == 1:
            self.consumed += 1
        else:
            self.duplicates += 1
        if fate.settled:
            self.suspects.append((message, link, now))
        if redelivered:
            return
        fate.new += 1
        if fate.new > 1:
            self.errors.append(f"{message} was delivered as new {fate.new} times")
        publisher, session, number = message
        last = link.last_new.get((publisher, session), -1)
        if number <= last:
            self.errors.append(f"{message} came after number {last} on one connection to {link.node}")
        link.last_new[publisher, session] = number

    def settle(self, messages: list[tuple[str, int, int]]) -> None:
        """Their acks are applied."""
        for message in messages:
            self.fates[message].settled = True

    def pause(self, node: str, started: float, ended: float) -> None:
        self.pauses.append((node, started, ended))

    @property
    def lost(self) -> list[tuple[str, int, int]]:
        """Confirmed, never consumed."""
        return [message for message, fate in self.fates.items() if fate.confirmed and not fate.deliveries]

    @property
    def settled(self) -> int:
        return sum(1 for fate in self.fates.values() if fate.settled)

    @property
    def longest_gap_s(self) -> float:
        return max((longest for _, longest in self.gaps.values()), default=0.0)

    def check(self) -> list[str]:
        """Everything that is wrong, once the queues are drained."""
        found = list(self.errors)
        for message, link, at in self.suspects:
            if self._is_echo(link, at):
                self.excused += 1
            else:
                found.append(f"{message} was delivered by {link.node} after its ack was applied")
        found += [f"{message} was confirmed and is lost" for message in self.lost]
        return found

    def _is_echo(self, link: Link, at: float) -> bool:
        return any(
            node == link.node
            and link.opened_at < ended
            and started <= at
            and link.closed_at <= ended + PAUSE_ECHO_S
            for node, started, ended in self.pauses
        )

    def line(self) -> dict[str, Any]:
        return {
            "published": self.published,
            "confirmed": self.confirmed,
            "consumed": self.consumed,
            "duplicates": self.duplicates,
            "lost": len(self.lost),
            "longest_gap_s": round(self.longest_gap_s, 2),
        }
