"""What must hold in a group after every event, judged with full sight of all members and disks."""

from collections.abc import Iterable

from cluster.raft.membership import is_voter
from cluster.raft.progress import Flow
from cluster.raft.ready import Role
from cluster.raft.rpc import Message, VoteReply
from cluster.types import Configuration, Entry
from tests.raft.network import Member, Network, checksum


class Invariants:
    """Call `check` after each event, `sent` with messages that leave, and `crashed` when a member stops."""

    def __init__(self, group: Network) -> None:
        self.group = group
        self.leaders: dict[int, int] = {}  # term -> leader
        self.votes: dict[tuple[int, int], int] = {}  # (voter, term) -> candidate
        self.entries: dict[tuple[int, int], tuple[Entry, int]] = {}  # (index, term) -> entry, term before it
        self.seen: dict[
            int, tuple[int, int]
        ] = {}  # member -> (index, term) up to which its log was looked at
        self.committed: dict[int, int] = {}  # index -> term
        self.commits: dict[int, int] = {}  # member -> commit index
        self.states: dict[int, int] = {0: 0}  # index -> state after applying it
        self.terms: dict[int, int] = {}  # member -> highest durable term
        self.read_floor: dict[tuple[int, int], int] = {}  # (member, token) -> highest commit when it asked

    @property
    def highest_commit(self) -> int:
        return max(self.committed, default=0)

    def sent(self, messages: Iterable[Message]) -> None:
        """At most one vote per member and term, across restarts (Raft 5.2)."""
        for message in messages:
            if isinstance(message, VoteReply) and message.granted and not message.pre:
                self._voted(message.source, message.term, message.target)

    def _voted(self, voter: int, term: int, candidate: int) -> None:
        before = self.votes.setdefault((voter, term), candidate)
        assert before == candidate, f"{voter} votes for {before} and {candidate} in term {term}"
        hard_state = self.group[voter].disk.durable.hard_state
        assert hard_state.term > term or (hard_state.term, hard_state.vote) == (term, candidate), (
            "vote not durable"
        )

    def asked(self, member: Member, token: int) -> None:
        """A read may not be answered below what anybody knew to be committed when it was asked."""
        self.read_floor[member.id, token] = self.highest_commit

    def crashed(self, member: Member) -> None:
        """The volatile part of what was seen of a member means nothing any more."""
        self.commits.pop(member.id, None)
        self.seen.pop(member.id, None)

    def check(self, member: Member) -> None:
        """Check all that an event at this member can have broken."""
        self._log_matching(member)
        has_committed = member.raft.commit > self.commits.get(member.id, member.raft.commit)
        self._marks(member)
        self._stability(member)
        self._commit(member)
        self._applied(member)
        self._reads(member)
        if member.raft.role is Role.LEADER:
            self._leader(member, has_committed=has_committed)

    def _log_matching(self, member: Member) -> None:
        """Equal index and term mean equal logs up to there (Raft 5.3); by induction, one step is enough."""
        log = member.raft.log
        index, term = self.seen.get(member.id, (0, 0))
        while index >= log.first_index and not log.matches(index, term):
            index = min(index - 1, log.last_index)
            if index >= log.first_index and (index, log.term(index)) in self.entries:
                break
        for new in range(max(index + 1, log.first_index), log.last_index + 1):
            entry = log.entries(new, new + 1, 1 << 30)[0]
            before = log.term(new - 1)
            known = self.entries.setdefault((new, entry.term), (entry, before))
            assert known == (entry, before), f"logs differ at {new} in term {entry.term}"
            assert entry.term >= before, "terms fall along the log"
        self.seen[member.id] = (log.last_index, log.last_term)

    def _marks(self, member: Member) -> None:
        raft, log = member.raft, member.raft.log
        assert log.first_index - 1 <= log.applied <= log.handed <= log.commit <= log.last_index
        assert log.handed <= log.persisted or log.handed == log.first_index - 1
        assert log.persisted <= log.written <= log.last_index
        assert log.last_term == log.term(log.last_index) <= raft.term
        assert raft.commit >= self.commits.get(member.id, 0), "commit index falls"
        self.commits[member.id] = raft.commit
        term = member.disk.durable.hard_state.term
        assert term >= self.terms.get(member.id, 0), "term falls across a restart"
        self.terms[member.id] = term

    def _stability(self, member: Member) -> None:
        """What the core believes durable is on the disk, in the version that the core has."""
        log, durable = member.raft.log, member.disk.durable
        assert durable.last_index >= durable.saved.meta.index
        if log.persisted >= log.first_index:
            assert durable.last_index >= log.persisted, "persisted runs ahead of the disk"
            assert durable.term(log.persisted) == log.term(log.persisted), (
                "persisted vouches for an older entry"
            )

    def _commit(self, member: Member) -> None:
        """What is committed once is committed everywhere and for ever (Raft 5.4.3)."""
        log = member.raft.log
        index = log.commit
        while index >= log.first_index:
            known = self.committed.setdefault(index, log.term(index))
            assert known == log.term(index), (
                f"index {index} is committed in terms {known} and {log.term(index)}"
            )
            index -= 1
            if index in self.committed:
                break

    def _applied(self, member: Member) -> None:
        """Every member is in the same state after the same entry."""
        for entry in member.applied:
            before = self.states[entry.index - 1]
            state = self.states.setdefault(entry.index, checksum(before, entry))
            assert state == checksum(before, entry), f"different entries applied at {entry.index}"
        member.applied.clear()
        assert self.states[member.state_index] == member.state, "a state differs"

    def _reads(self, member: Member) -> None:
        for read in member.reads:
            assert read.index >= self.read_floor[member.id, read.token], "a stale read"
        member.reads.clear()

    def _leader(self, member: Member, *, has_committed: bool) -> None:
        raft, log = member.raft, member.raft.log
        if self.leaders.get(raft.term) is None:
            self.leaders[raft.term] = member.id
            self._elected(member)
        assert self.leaders[raft.term] == member.id, f"two leaders in term {raft.term}"
        assert log.term(log.last_index) == raft.term
        if has_committed:
            self._has_majority(raft.configuration, self._holders(log.commit, log.term(log.commit)))
        for progress in raft.progress.values():
            assert progress.match_index < progress.next_index
            assert progress.inflight_bytes == sum(size for _, size in progress.inflights)
            assert progress.flow is Flow.REPLICATE or not progress.inflights
            peer = self.group[progress.id]
            if progress.match_index > peer.disk.durable.saved.meta.index:
                known = (
                    self.entries[progress.match_index, log.term(progress.match_index)]
                    if (progress.match_index >= log.first_index)
                    else None
                )
                if known is not None and peer.disk.durable.hard_state.term <= raft.term:
                    term = peer.disk.durable.term(progress.match_index)
                    assert term == known[0].term, "an acknowledged entry is not on the disk"

    def _elected(self, member: Member) -> None:
        """A majority voted, and nothing that was committed is missing (Raft 5.4)."""
        raft, log = member.raft, member.raft.log
        self._voted(member.id, raft.term, member.id)
        voters = [node for node in self.group.members if self.votes.get((node, raft.term)) == member.id]
        self._has_majority(raft.configuration, voters)
        assert is_voter(raft.configuration, member.id)
        for index in range(log.first_index, self.highest_commit + 1):
            assert log.matches(index, self.committed[index]), (
                f"leader {member.id} lacks committed entry {index}"
            )

    def _holders(self, index: int, term: int) -> list[int]:
        return [
            node
            for node, member in self.group.members.items()
            if member.disk.durable.saved.meta.index >= index or member.disk.durable.term(index) == term
        ]

    def _has_majority(self, configuration: Configuration, ids: list[int]) -> None:
        for voters in (configuration.voters, configuration.outgoing):
            count = sum(voter in ids for voter in voters)
            assert not voters or 2 * count > len(voters), f"{ids} are no majority of {voters}"
