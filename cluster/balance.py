"""Where leadership should be, and how it gets there: spread over the nodes by rule, one group at a time.

A node that was away gets its groups back when it has been well for a while; a node that stops gives its own
away first, so that nobody has to wait for an election.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from cluster.group import Group

SETTLED_MS = 5_000
"""A peer must have been up for this long before leadership is handed back to it."""
HAND_BACK_MS = 30_000
"""A hand-back that failed is not tried again before: one to a slow node blocks its group for an election timeout."""


@dataclass(slots=True)
class Peer:
    """What is known of another node."""

    boot: int = 0
    up: bool = False
    ended: bool = False  # the process `boot` is known to be gone
    heard_ms: int = 0
    told_ms: int = 0
    since_ms: int = 0  # up since


class Balance:
    """The leaderships of one node."""

    def __init__(self, node: int, groups: Mapping[int, Group], peers: Mapping[int, Peer]) -> None:
        """Args: groups, peers: the host's, which changes them."""
        self._node = node
        self._groups = groups
        self._peers = peers

    def preferred_leader(self, group: Group) -> int:
        """Leaders are spread over the nodes by this rule."""
        voters = group.raft.configuration.voters
        return voters[group.id % len(voters)]

    def hand_back(self, now_ms: int) -> None:
        """One group a time: leadership returns to the node that should have it once that node is well."""
        for group in self._groups.values():
            preferred = self.preferred_leader(group)
            if preferred == self._node:
                # Not again where a campaign waits for its votes, perhaps for the own one to be durable.
                if group.raft.is_idle and self._majority_up(group):
                    group.raft.campaign()
                    group.touch()
                continue
            peer = self._peers.get(preferred)
            if not group.leads or peer is None or not peer.up or now_ms - peer.since_ms < SETTLED_MS:
                continue
            if now_ms - group.offered_ms >= HAND_BACK_MS and group.raft.keeps_up(preferred):
                group.offered_ms = now_ms
                group.raft.transfer_leader(preferred)
                group.touch()
                return

    def hand_over(self) -> bool:
        """This node will stop: offer every leadership to a voter that is up. False when it leads nothing any more."""
        leads = False
        for group in self._groups.values():
            raft = group.raft
            if not raft.is_leader:
                continue
            voters = raft.configuration.voters
            others = [node for node in voters if node != self._node and self._peers[node].up]
            if not others:
                continue
            leads = True
            if not raft.transferee:
                progress = raft.progress
                raft.transfer_leader(max(others, key=lambda node: progress[node].match_index))
                group.touch()
        return leads

    def _majority_up(self, group: Group) -> bool:
        voters = group.raft.configuration.voters
        up = sum(1 for node in voters if node == self._node or self._peers[node].up)
        return up * 2 > len(voters)
