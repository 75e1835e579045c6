"""What must hold of consensus after every event, judged with full sight of all nodes and disks.

Only nodes that an event touched are looked at, and of those only the groups in which something moved.
"""

from typing import Any

from cluster.envelope import Envelope
from cluster.group import Group
from cluster.raft.ready import Role
from cluster.raft.rpc import RequestVote, VoteReply
from cluster.types import Entry
from tests.sim.history import Violation
from tests.sim.log_model import LogModel
from tests.sim.world import SimNode, World

Mark = tuple[Any, ...]


class RaftChecks:
    """Call `check` with each touched group; `sent` with each envelope; `started` and `crashed` with a node."""

    def __init__(self, world: World, model: LogModel) -> None:
        self.world = world
        self.model = model
        self.leaders: dict[tuple[int, int], int] = {}  # (group, term): leader
        self._votes: dict[tuple[int, int, int], int] = {}  # (group, voter, term): candidate
        self._entries: dict[
            tuple[int, int, int], tuple[Entry, int]
        ] = {}  # (group, index, term): it, term before
        self._marks: dict[tuple[int, int], Mark] = {}  # (node, group): what was seen last
        self._tails: dict[
            tuple[int, int], tuple[int, int]
        ] = {}  # (node, group): last (index, term) looked at
        self._terms: dict[tuple[int, int], int] = {}  # (node, group): highest durable term
        self._term_votes: dict[tuple[int, int], tuple[int, int]] = {}

    def crashed(self, sim: SimNode) -> None:
        """What was in the process's memory means nothing any more."""
        for group in self.model.groups:
            self._marks.pop((sim.id, group), None)
            self._tails.pop((sim.id, group), None)
            term = sim.disk.durable[group].hard_state.term
            if term < self._terms.get((sim.id, group), 0):
                raise Violation("term falls", f"n{sim.id} g{group} finds term {term} on its disk")

    def sent(self, sim: SimNode, envelope: Envelope) -> None:
        """A vote must be the only one of its term, and on the disk before anybody hears of it (Raft 5.2)."""
        for group, message in envelope.messages:
            if isinstance(message, VoteReply):
                if message.granted and not message.pre:
                    self._vote(sim, group, message.term, message.target)
            elif isinstance(message, RequestVote):
                if not message.pre:
                    self._vote(sim, group, message.term, sim.id)
                self._advertised(sim, group, message)

    def _vote(self, sim: SimNode, group: int, term: int, candidate: int) -> None:
        before = self._votes.setdefault((group, sim.id, term), candidate)
        if before != candidate:
            raise Violation(
                "two votes", f"n{sim.id} g{group} votes for {before} and {candidate} in term {term}"
            )
        hard_state = sim.disk.durable[group].hard_state
        if hard_state.term <= term and (hard_state.term, hard_state.vote) != (term, candidate):
            raise Violation("vote not durable", f"n{sim.id} g{group} for n{candidate} in term {term}")

    def _advertised(self, sim: SimNode, group: int, message: RequestVote) -> None:
        image, index = sim.disk.durable[group], message.last_log_index
        core: Any = sim.process
        raft = core.host.groups[group].raft
        is_stale = raft.role is not (Role.PRE_CANDIDATE if message.pre else Role.CANDIDATE)
        # A log does not change during a campaign: what names another one is of an earlier campaign, sent late.
        is_stale = is_stale or (index, message.last_log_term) != (raft.last_index, raft.log.last_term)
        if is_stale or raft.term != message.term - message.pre or index <= image.snapshot.index:
            return
        if index > image.last or image.log[index].term != message.last_log_term:
            raise Violation("log of a candidate not durable", f"n{sim.id} g{group} advertises {index}")

    def check(self, sim: SimNode, group: Group) -> bool:
        """Check what may have changed in a group of a node; whether anything had."""
        raft, key = group.raft, (sim.id, group.id)
        log = raft.log
        mark = (
            raft.term, raft.role, log.last_index, log.last_term, log.commit, log.persisted, log.applied,
            log.first_index, raft.voted_for, group.applied,
            *[progress.match_index for progress in raft.progress.values()],
        )  # fmt: skip
        before = self._marks.get(key)
        if mark == before:
            return False
        self._marks[key] = mark
        self._check_marks(sim, group, before)
        self._log_matching(sim, group)
        self._commit(sim, group)
        self._durable(sim, group)
        if raft.role is Role.LEADER:
            self._leader(sim, group, before)
        return True

    def _check_marks(self, sim: SimNode, group: Group, before: Mark | None) -> None:
        raft, log, who = group.raft, group.raft.log, f"n{sim.id} g{group.id}"
        if before is not None:
            if raft.term < before[0]:
                raise Violation("term falls", f"{who}: {before[0]} to {raft.term}")
            if log.commit < before[4]:
                raise Violation("commit falls", f"{who}: {before[4]} to {log.commit}")
            if group.applied < before[9]:
                raise Violation("applied falls", f"{who}: {before[9]} to {group.applied}")
            if raft.term == before[0] and raft.voted_for != before[8] and before[8]:
                raise Violation("two votes", f"{who}: {before[8]} and {raft.voted_for} in term {raft.term}")
            if before[1] is Role.LEADER and raft.term == before[0] and log.last_index < before[2]:
                raise Violation("leader truncates", f"{who}: {before[2]} to {log.last_index}")
        if log.commit > log.last_index:
            raise Violation("commit past the end", f"{who}: {log.commit} of {log.last_index}")
        installing = log.installing is not None or log.pending_snapshot is not None
        if not installing and log.applied > min(log.commit, log.persisted):
            raise Violation(
                "applied too early", f"{who}: {log.applied}, {log.commit} committed, {log.persisted} durable"
            )
        if raft.term < sim.disk.images[group.id].hard_state.term:
            raise Violation("term falls", f"{who} is behind its disk")

    def _log_matching(self, sim: SimNode, group: Group) -> None:
        """Equal index and term mean equal logs up to there (Raft 5.3); by induction, one step is enough."""
        log, entries, gid = group.raft.log, self._entries, group.id
        index, term = self._tails.get((sim.id, gid), (0, 0))
        while index >= log.first_index and not log.matches(index, term):
            index = min(index - 1, log.last_index)
            if index < log.first_index or (gid, index, log.term(index)) in entries:
                break
        start = max(index + 1, log.first_index)
        for new in range(start, log.last_index + 1):
            entry = log.entries(new, new + 1, 1 << 30)[0]
            before = log.term(new - 1)
            known = entries.setdefault((gid, new, entry.term), (entry, before))
            if known[0] is not entry and known != (entry, before):
                raise Violation("logs differ", f"n{sim.id} g{gid} at {new} in term {entry.term}")
            if known[1] != before or entry.term < before:
                raise Violation("logs differ", f"n{sim.id} g{gid} before {new} in term {entry.term}")
        self._tails[sim.id, gid] = (log.last_index, log.last_term)

    def _commit(self, sim: SimNode, group: Group) -> None:
        """What is committed once is committed everywhere, for ever, and on a majority of disks (Raft 5.4.3)."""
        log, model, gid = group.raft.log, self.model.groups[group.id], group.id
        known = min(log.commit, model.commit)
        if known >= log.first_index - 1 and log.term(known) != model.terms[known]:
            raise Violation(
                "state machine safety",
                f"n{sim.id} g{gid} commits {known} of term {log.term(known)}, not {model.terms[known]}",
            )
        if log.commit <= model.commit:
            return
        if model.commit < log.first_index - 1:
            raise Violation("state machine safety", f"n{sim.id} g{gid} compacted what nobody committed")
        for index in range(model.commit + 1, log.commit + 1):
            model.learn(gid, log.entries(index, index + 1, 1 << 30)[0], group.raft.term)
        if not self.model.is_durable(gid, log.commit):
            raise Violation(
                "commit without a majority",
                f"g{gid} {log.commit} is on the disks of {self.model.holders(gid, log.commit)} only",
            )

    def _durable(self, sim: SimNode, group: Group) -> None:
        """What the core believes durable is on the disk, in the version that the core has."""
        log, image, key = group.raft.log, sim.disk.durable[group.id], (sim.id, group.id)
        if log.persisted >= log.first_index and log.installing is None and log.pending_snapshot is None:
            if image.last < log.persisted:
                raise Violation("persisted ahead of the disk", f"n{sim.id} g{group.id} {log.persisted}")
            if image.log[log.persisted].term != log.term(log.persisted):
                raise Violation(
                    "persisted vouches for another entry", f"n{sim.id} g{group.id} {log.persisted}"
                )
        term, vote = image.hard_state.term, image.hard_state.vote
        if term < self._terms.get(key, 0):
            raise Violation("term falls", f"n{sim.id} g{group.id} on its disk")
        before = self._term_votes.get(key, (0, 0))
        if before[0] == term and before[1] not in (0, vote):
            raise Violation("two votes", f"n{sim.id} g{group.id} on its disk in term {term}")
        self._terms[key] = term
        self._term_votes[key] = (term, vote)

    def _leader(self, sim: SimNode, group: Group, before: Mark | None) -> None:
        raft, log, gid = group.raft, group.raft.log, group.id
        leader = self.leaders.setdefault((gid, raft.term), sim.id)
        if leader != sim.id:
            raise Violation("two leaders", f"n{leader} and n{sim.id} in g{gid} term {raft.term}")
        if before is None or before[1] is not Role.LEADER or before[0] != raft.term:
            self._elected(sim, group)
        for progress in raft.progress.values():
            match = progress.match_index
            if match >= progress.next_index:
                raise Violation("match past next", f"n{sim.id} g{gid} of n{progress.id}")
            if progress.inflight_bytes != sum(size for _, size in progress.inflights):
                raise Violation("window does not add up", f"n{sim.id} g{gid} of n{progress.id}")
            image = self.world.nodes[progress.id].disk.durable[gid]
            if match <= image.snapshot.index or match < log.first_index or image.hard_state.term > raft.term:
                continue
            if image.last < match or image.log[match].term != log.term(match):
                raise Violation("acknowledged, not durable", f"n{progress.id} g{gid} {match}")

    def _elected(self, sim: SimNode, group: Group) -> None:
        """Nothing committed in earlier terms is missing (Raft 5.4); by log matching the last one is enough."""
        model, log = self.model.groups[group.id], group.raft.log
        commit = model.committed_before(group.raft.term)
        if commit >= log.first_index - 1 and not log.matches(commit, model.terms[commit]):
            raise Violation("leader completeness", f"n{sim.id} g{group.id} lacks committed entry {commit}")
