"""What the host of a node wants done, once in a pass of the loop."""

from dataclasses import dataclass, field
from typing import Any

from cluster.envelope import Envelope
from cluster.ports import GroupWrite


@dataclass(slots=True)
class Turn:
    """What is to be done now.

    Args:
        number: rises by one a turn.
        writes: one transaction; when it is durable call `Host.persisted(number)`. May be empty: then do not.
        envelopes: to send now, at most one a peer.
        effects: per group, in order, for the sessions of this node.
        passed: tickets of barriers that this replica has reached.
        resets: groups in which this node's epoch ended: sessions with state there are void.
        lost: memory groups of other nodes that are gone with their process.
        endings: (group, node, reason) where this node, as the leader, had a process taken for dead.
        more: there is more to do without waiting for anything.
    """

    number: int
    writes: list[GroupWrite] = field(default_factory=list)
    envelopes: dict[int, Envelope] = field(default_factory=dict)
    effects: list[tuple[int, list[Any]]] = field(default_factory=list)
    passed: list[int] = field(default_factory=list)
    resets: list[int] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    endings: list[tuple[int, int, str]] = field(default_factory=list)
    more: bool = False
