"""Members that may get their entries later, because nobody waits for what they hold.

A commit needs a majority. A member beyond it, at which no client waits, is sent what it lacks when that has become
worth a message, with the next heartbeat, or as soon as a commit takes long. So a round of consensus
costs the work of a majority and not that of all, and a slow member is replaced by a quick one within
milliseconds. What is committed is durable on a majority as ever. A member that comes from behind is fed little by
little, for the same reason.
"""

from operator import attrgetter
from typing import TYPE_CHECKING

from cluster.raft.progress import NEVER, Flow, Progress
from cluster.raft.quorum import Outcome, vote_outcome

if TYPE_CHECKING:
    from cluster.raft.core import Raft

SPARE_BYTES_MAX = 512 << 10
"""Entries that a spare member lacks, in bytes: above, a message costs little beside what is in it (ADR 17)."""
BEHIND_BYTES_MAX = 2 << 20
"""Under way to a member that comes from behind: more in a round trip than what is published meanwhile."""
COMMIT_MS_MAX = 10
"""While no commit has come for so long, all members are asked: the quick ones may be slow, or gone without a word."""


def spares(raft: "Raft") -> list[Progress]:
    """Peers that a leader need not send its newest entries yet."""
    lead, log, configuration = raft.leadership, raft.log, raft.configuration
    assert lead is not None
    if is_stuck(raft):
        return []
    idle = [
        progress for progress in lead.peers if progress.flow is Flow.REPLICATE and _is_idle(raft, progress)
    ]
    if not idle:
        return idle
    asked = {progress.id: True for progress in lead.peers if progress.flow is Flow.REPLICATE}
    asked[raft.id] = True
    spare: list[Progress] = []
    # Those that are behind first: whoever answers quickly stays in the majority that is asked.
    for progress in sorted(idle, key=attrgetter("match_index")):
        del asked[progress.id]
        if vote_outcome(configuration.voters, configuration.outgoing, asked) is not Outcome.WON:
            asked[progress.id] = True
        elif (
            lead.appended_bytes - progress.fed_bytes <= SPARE_BYTES_MAX
            and progress.next_index <= log.last_index
        ):
            spare.append(progress)
    return spare


def window_bytes(raft: "Raft", progress: Progress) -> int:
    """Data that may be under way to a peer: little while it comes from behind and the others do without it.

    What a peer has missed is read, sent and written beside what clients wait for.
    """
    usual = raft.options.inflight_bytes_max
    if progress.fed_bytes != NEVER or is_stuck(raft):
        return usual
    lead, configuration = raft.leadership, raft.configuration
    assert lead is not None
    others = {peer.id: True for peer in lead.peers if peer is not progress and peer.fed_bytes != NEVER}
    others[raft.id] = True
    do_without = vote_outcome(configuration.voters, configuration.outgoing, others) is Outcome.WON
    return min(usual, BEHIND_BYTES_MAX) if do_without else usual


def is_stuck(raft: "Raft") -> bool:
    """Whether entries wait for a majority for longer than they should."""
    lead, log = raft.leadership, raft.log
    assert lead is not None
    return log.commit < log.last_index and raft.clock.ts - lead.moved_ts > COMMIT_MS_MAX


def _is_idle(raft: "Raft", progress: Progress) -> bool:
    """Whether nobody waits for this peer: no client there, no hand-over, no change of members, no lost append."""
    lead = raft.leadership
    assert lead is not None
    is_needed = progress.wants_echo or progress.id == lead.transferee
    return progress.is_lazy and not is_needed and lead.pending_change <= progress.commit_sent
