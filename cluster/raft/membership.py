"""Membership changes by joint consensus (Raft 6), in force from the moment their entry is applied.

A change is a list of operations. If it alters at most one voter it takes one step; otherwise the group first
enters the joint configuration, in which both majorities must agree, and leaves it by a second entry that the
leader proposes by itself. Applied, not appended, so a truncated change never was in force. At most one change
is unapplied in any log (see leader.propose_membership), so all members compute the same from the same base.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum

from cluster.types import Configuration

OPERATION = struct.Struct(">BI")


class Operation(IntEnum):
    """What to do with a node. Never renumbered: stands in the log."""

    ADD_VOTER = 1  # also: promote a learner
    ADD_LEARNER = 2  # also: demote a voter
    REMOVE = 3


@dataclass(slots=True, frozen=True)
class MembershipChange:
    """Operations in order, as (operation, node id). Without any: leave the joint configuration."""

    operations: tuple[tuple[Operation, int], ...] = ()


LEAVE_JOINT = MembershipChange()


class MembershipRefused(Exception):
    """The change cannot be made from this configuration."""


def encode_change(change: MembershipChange) -> bytes:
    """Write a change as the data of a MEMBERSHIP entry: per operation a u8 and the u32 node id."""
    return b"".join([OPERATION.pack(operation, node) for operation, node in change.operations])


def decode_change(data: bytes) -> MembershipChange:
    """Read the data of a MEMBERSHIP entry; ValueError or struct.error if it is none."""
    return MembershipChange(tuple((Operation(code), node) for code, node in OPERATION.iter_unpack(data)))


def changed(configuration: Configuration, change: MembershipChange) -> Configuration:
    """Return the configuration after the change.

    Raises:
        MembershipRefused: the change leaves a joint configuration that is not in force, or changes one that
            is, or leaves no voter.
    """
    if not change.operations:
        return _left(configuration)
    if configuration.outgoing:
        raise MembershipRefused("a joint change is under way")
    voters, learners = list(configuration.voters), list(configuration.learners)
    for operation, node in change.operations:
        for members in (voters, learners):
            if node in members:
                members.remove(node)
        if operation is Operation.ADD_VOTER:
            voters.append(node)
        elif operation is Operation.ADD_LEARNER:
            learners.append(node)
    if not voters:
        raise MembershipRefused("no voter would be left")
    before = configuration.voters
    differing = [node for node in sorted({*before, *voters}) if (node in before) != (node in voters)]
    if len(differing) <= 1:
        return Configuration(tuple(sorted(voters)), tuple(sorted(learners)))
    # A node never votes and learns at once: a demoted voter becomes a learner when the old majority ends.
    return Configuration(
        voters=tuple(sorted(voters)),
        learners=tuple(sorted(node for node in learners if node not in before)),
        outgoing=before,
        learners_next=tuple(sorted(node for node in learners if node in before)),
        auto_leave=True,
    )


def _left(configuration: Configuration) -> Configuration:
    if not configuration.outgoing:
        raise MembershipRefused("no joint change is under way")
    return Configuration(
        configuration.voters, tuple(sorted((*configuration.learners, *configuration.learners_next)))
    )


def members(configuration: Configuration) -> list[int]:
    """Every node that gets the log, ascending."""
    return sorted({*configuration.voters, *configuration.outgoing, *configuration.learners})


def is_voter(configuration: Configuration, node: int) -> bool:
    """Whether the node's vote counts, in the new majority or in the old one."""
    return node in configuration.voters or node in configuration.outgoing
