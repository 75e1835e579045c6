"""One member of one Raft group: its state, the check of terms, the dispatch to its role, and its output.

Nothing here waits, keeps time or chooses: time is `tick` (about 50 ms) and `clock`, chance is `draw`.
The rules of the roles stand in follower.py, candidate.py and leader.py.

How to drive it: set `clock`; call `tick`, `step`, `propose` ...; take `ready()` while `has_ready()`; do
what it says in the order that cluster/raft/ready.py tells; report `on_persisted(number)` and
`on_applied(index)`. While applying, call `apply_membership` at each MEMBERSHIP entry.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from cluster.ports import LogView
from cluster.raft import candidate, follower, leader, membership
from cluster.raft.leader import Leadership
from cluster.raft.log import RaftLog, size_bytes
from cluster.raft.membership import MembershipChange, MembershipRefused
from cluster.raft.progress import Progress
from cluster.raft.ready import MAY_BECOME, ReadState, Ready, Role, SoftState
from cluster.raft.rpc import (
    AppendEntries,
    AppendReply,
    Heartbeat,
    InstallSnapshot,
    Message,
    ReadIndex,
    RequestVote,
    VoteReply,
)
from cluster.types import Configuration, Entry, EntryKind, HardState

CLOSE_ENTRIES = 64
"""A member this close to the end of the log gets the rest in the time of a hand-over."""


@dataclass(slots=True, frozen=True)
class Options:
    """Settings of one member of one group.

    Args:
        id: this node.
        group: the group; staggers who campaigns first after a leader's death.
        heartbeat_ticks: a leader sends heartbeats this often.
        election_ticks: silence of the leader that a follower bears at least; it campaigns after a drawn time
            of once to twice this long. About ten heartbeats.
        message_bytes_max: data in one append; a larger entry goes alone.
        inflight_max: appends under way to one peer.
        inflight_bytes_max: data under way to one peer, passed by at most one append.
        uncommitted_bytes_max: data proposed by this leader and not handed out to be applied yet.
        applying_bytes_max: data handed out and not reported applied, passed by at most one entry.
        reads_max: reads that wait for their round.
    """

    id: int
    group: int
    heartbeat_ticks: int = 2
    election_ticks: int = 20
    message_bytes_max: int = 1 << 20
    inflight_max: int = 256
    inflight_bytes_max: int = 16 << 20
    uncommitted_bytes_max: int = 64 << 20
    applying_bytes_max: int = 4 << 20
    reads_max: int = 4096


@dataclass(slots=True)
class Clock:
    """The time in milliseconds since the epoch. Entries are stamped with it."""

    ts: int = 0


class Raft:
    """One member of one group.

    Args:
        options: see there.
        log: the stored log; everything it shows now is durable.
        draw: draw(low, high) returns an int in low..high, both included, as random.Random.randint does.
        applied: index that the state machine was restored to: that of the snapshot, as is the configuration.
        clock: the time, which the caller sets; one for all groups of a node.
    """

    __slots__ = (
        "applying",
        "applying_bytes",
        "campaign_in",
        "clock",
        "configuration",
        "draw",
        "election_elapsed",
        "election_timeout",
        "id",
        "is_lazy",
        "is_transfer",
        "leader",
        "leadership",
        "log",
        "messages",
        "messages_after_persist",
        "number",
        "options",
        "read_states",
        "role",
        "self_vote_number",
        "snapshots_wanted",
        "soft_state",
        "stored",
        "term",
        "ticks",
        "voted_for",
        "votes",
    )

    def __init__(
        self,
        options: Options,
        log: LogView,
        draw: Callable[[int, int], int],
        applied: int,
        clock: Clock,
    ) -> None:
        self.stored, self.configuration = log.initial_state()
        self.options = options
        self.id = options.id
        self.draw = draw
        self.log = RaftLog(log, self.stored.commit, applied)
        self.clock = clock
        self.ticks = 0
        self.role = Role.FOLLOWER
        self.term, self.voted_for = self.stored.term, self.stored.vote
        self.leader = 0
        self.leadership: Leadership | None = None
        self.votes: dict[int, bool] = {}
        self.is_lazy = False  # set by the host: nobody here waits for what is committed
        self.is_transfer = False  # this campaign was asked for by the leader
        self.self_vote_number = 0  # Ready that makes the own vote durable; 0: not handed out yet
        self.campaign_in = 0  # ticks until a campaign after the leader's death; 0: none
        self.number = 0
        self.messages: list[Message] = []
        self.messages_after_persist: list[Message] = []
        self.read_states: list[ReadState] = []
        self.snapshots_wanted: list[int] = []
        self.applying: deque[tuple[int, int]] = deque()  # (last index, bytes) of what was handed out
        self.applying_bytes = 0
        self.soft_state = SoftState(0, self.term, Role.FOLLOWER)
        self.reset_election_timer()

    # What it is ------------------------------------------------------------------------------------

    @property
    def commit(self) -> int:
        """Index up to which the group has agreed, as far as this member knows."""
        return self.log.commit

    @property
    def applied(self) -> int:
        """Index up to which the state machine has applied."""
        return self.log.applied

    @property
    def last_index(self) -> int:
        """Index of the last entry, durable or not."""
        return self.log.last_index

    @property
    def is_leader(self) -> bool:
        """Whether this member leads its term."""
        return self.role is Role.LEADER

    @property
    def is_idle(self) -> bool:
        """Whether this member knows no leader and does not campaign."""
        return self.role is Role.FOLLOWER and self.leader == 0

    @property
    def progress(self) -> dict[int, Progress]:
        """The peers as their leader sees them; empty elsewhere."""
        return self.leadership.progress if self.leadership is not None else {}

    def has_room(self, size_bytes: int) -> bool:
        """Whether this leader would take so much now: it is not handing over, and half of its bound is free."""
        lead = self.leadership
        if lead is None or lead.transferee:
            return False
        bound, waiting = self.options.uncommitted_bytes_max, lead.uncommitted_bytes
        return not waiting or (waiting * 2 <= bound and waiting + size_bytes <= bound)

    def keeps_up(self, peer: int) -> bool:
        """Whether a peer has acknowledged an entry of this term and is close to the end of the log."""
        lead = self.leadership
        match_index = self.progress[peer].match_index if lead is not None and not lead.transferee else -1
        return lead is not None and match_index >= max(lead.term_start, self.last_index - CLOSE_ENTRIES)

    @property
    def transferee(self) -> int:
        """The member that this leader is handing over to, 0 if none."""
        return self.leadership.transferee if self.leadership is not None else 0

    # Input -----------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Let one tick pass. After a pause the caller steps what has arrived first, then ticks once."""
        self.ticks += 1
        if self.role is Role.LEADER:
            leader.tick(self)
        else:
            candidate.tick(self)

    def step(self, message: Message) -> None:
        """Take a message of another member. The host has checked group, group uid and boot epochs."""
        if message.term != self.term and not self._admit(message):
            return
        handler = STEPS[self.role].get(message.__class__)
        if handler is not None:
            handler(self, message)

    def propose(self, kind: int, payloads: list[bytes]) -> int | None:
        """Append one entry for each payload, stamped with the time of `clock`, or the last entry's time if later.

        Args:
            kind: an EntryKind, but not MEMBERSHIP.
            payloads: not empty.

        Returns:
            Index of the first; None if this is not the leader, is handing over, or has too much uncommitted.
        """
        assert payloads and kind != EntryKind.MEMBERSHIP
        return leader.propose(self, kind, payloads)

    def propose_membership(self, change: MembershipChange) -> int | None:
        """Append a membership change; None if not leading, handing over, or it is not possible now.

        Promote a learner only when its match_index has come close to the commit index: until it applies its
        promotion it would vote but not campaign.
        """
        return leader.propose_membership(self, change)

    def apply_membership(self, entry: Entry) -> Configuration:
        """Put the change of an applied MEMBERSHIP entry in force; returns what is in force now."""
        try:
            self.configuration = membership.changed(self.configuration, membership.decode_change(entry.data))
        except MembershipRefused:
            return self.configuration
        if self.leadership is not None:
            leader.configuration_changed(self)
        return self.configuration

    def read_index(self, token: int) -> bool:
        """Ask which index must be applied before a read is current; the answer comes in Ready.read_states.

        Returns:
            False if there is nobody to ask. An answer can get lost: ask again, with a new token.
        """
        if self.role is Role.LEADER:
            return leader.read(self, self.id, token)
        if self.leader == 0:
            return False
        self.messages.append(ReadIndex(self.id, self.leader, self.term, token))
        return True

    def transfer_leader(self, target: int) -> bool:
        """Hand the lead over; False if this is not the leader or the target no other voter.

        Proposals are refused until it is done, or until an election timeout has passed.
        """
        return leader.transfer(self, target)

    def campaign(self) -> None:
        """Ask for pre-votes now, unless this member leads or must not."""
        if self.role is not Role.LEADER:
            candidate.campaign(self)

    def peer_lost(self, peer: int) -> None:
        """The peer's process is known to have ended (not merely to be silent)."""
        if self.leadership is not None:
            leader.peer_lost(self, peer)
        elif self.leader == peer:
            self.leader = 0
            candidate.leader_lost(self, peer)

    def peer_waits(self, peer: int, index: int) -> None:
        """A client of this member waits for the entry at `index`."""
        leader.peer_waits(self, peer, index)

    def ask_all_if_late(self) -> bool:
        """Whether this member leads and entries wait for a majority: then call it again soon (see spares.py)."""
        return leader.ask_all_if_late(self)

    def report_unreachable(self, peer: int) -> None:
        """Messages to the peer were lost, as when a link broke."""
        leader.unreachable(self, peer)

    def report_snapshot(self, peer: int, *, ok: bool) -> None:
        """A saved state that Ready.snapshots_wanted asked for was shipped, or could not be."""
        leader.snapshot_reported(self, peer, ok=ok)

    def log_compacted(self) -> None:
        """The stored log's first index has moved."""
        self.log.log_compacted()

    # Output ----------------------------------------------------------------------------------------

    def has_ready(self) -> bool:
        """Whether `ready()` would say something."""
        log, stored, soft = self.log, self.stored, self.soft_state
        return bool(
            self.messages
            or self.messages_after_persist
            or log.has_unwritten()
            or (log.has_committed() and self.applying_bytes < self.options.applying_bytes_max)
            or (self.leadership is not None and self.leadership.wants_broadcast)
            or self.read_states
            or self.snapshots_wanted
            or self.term != stored.term
            or self.voted_for != stored.vote
            or self.leader != soft.leader
            or self.role is not soft.role
        )

    def take_messages(self) -> list[Message]:
        """What needs no disk and nothing else of a Ready: it may leave now instead of in the next one."""
        messages = self.messages
        if messages:
            self.messages = []
        return messages

    def ready(self) -> Ready:
        """Hand out what is to be done since the last call. The caller must do all of it, in order."""
        log = self.log
        if self.leadership is not None and self.leadership.wants_broadcast:
            leader.broadcast(self)
        self.number = number = self.number + 1
        snapshot, truncate_from, entries = (
            log.take_unwritten(number) if log.has_unwritten() else (None, None, [])
        )
        ready = Ready(
            number,
            self._take_soft_state(),
            self._take_hard_state(with_commit=bool(entries) or snapshot is not None),
            snapshot,
            truncate_from,
            entries,
            self.messages,
            self.messages_after_persist,
            self._take_committed(),
            self.read_states,
            self.snapshots_wanted,
        )
        self.messages, self.messages_after_persist, self.read_states, self.snapshots_wanted = [], [], [], []
        if self.role is Role.CANDIDATE and self.self_vote_number == 0:
            self.self_vote_number = number
        return ready

    def _take_soft_state(self) -> SoftState | None:
        if (self.leader, self.term, self.role) == self.soft_state:
            return None
        self.soft_state = SoftState(self.leader, self.term, self.role)
        return self.soft_state

    def _take_hard_state(self, *, with_commit: bool) -> HardState | None:
        """Term and vote whenever they changed; the commit index only beside entries.

        It must not be older than the entries stored with it: a node that finds a membership change in its log
        after a restart must know that the one before it is committed. Alone it is worth no flush.
        """
        state = HardState(self.term, self.voted_for, self.log.commit)
        if state == self.stored or (state[:2] == self.stored[:2] and not with_commit):
            return None
        self.stored = state
        return state

    def _take_committed(self) -> list[Entry]:
        budget = self.options.applying_bytes_max - self.applying_bytes
        if budget <= 0 or not self.log.has_committed():
            return []
        entries = self.log.take_committed(budget)
        size = size_bytes(entries)
        self.applying.append((entries[-1].index, size))
        self.applying_bytes += size
        if self.leadership is not None:
            # Entries of earlier terms were never added, hence the floor.
            self.leadership.uncommitted_bytes = max(0, self.leadership.uncommitted_bytes - size)
        return entries

    def on_persisted(self, number: int) -> None:
        """The writes of all Readys up to `number` are durable."""
        has_grown = self.log.on_persisted(number)
        if self.role is Role.LEADER:
            if has_grown:
                leader.maybe_commit(self)
        elif self.role is Role.CANDIDATE and 0 < self.self_vote_number <= number:
            candidate.record_vote(self, self.id, granted=True)

    def on_applied(self, index: int) -> None:
        """Entries handed out up to `index` are applied."""
        applying = self.applying
        while applying and applying[0][0] <= index:
            self.applying_bytes -= applying.popleft()[1]
        self.log.applied = max(self.log.applied, index)
        if self.configuration.auto_leave:
            leader.leave_joint(self)

    # Terms and roles, for the step functions -----------------------------------------------------------

    def _admit(self, message: Message) -> bool:
        """Settle a difference of terms (Raft 5.1); whether the message still means something."""
        if message.term < self.term:
            self._answer_stale(message)
            return False
        if isinstance(message, RequestVote):
            if not message.transfer and self._hears_leader():
                return False  # who misses the leader must not depose it while we hear it (dissertation 4.2.3)
            if message.pre:
                return True  # a question about a term, not the beginning of it
        elif isinstance(message, VoteReply) and message.pre and message.granted:
            return True
        is_leader = isinstance(message, AppendEntries | Heartbeat | InstallSnapshot)
        self.become_follower(message.term, message.source if is_leader else 0)
        return True

    def _answer_stale(self, message: Message) -> None:
        """Tell a sender that would otherwise never learn it that its term is over.

        A member whose term ran ahead ignores its leader, and others, who hear the leader, ignore the member:
        only this answer brings them into one term again.
        """
        if isinstance(message, AppendEntries | Heartbeat):
            self.messages_after_persist.append(
                AppendReply(self.id, message.source, self.term, 0, rejected=True)
            )
        elif isinstance(message, RequestVote) and message.pre:
            self.messages_after_persist.append(
                VoteReply(self.id, message.source, self.term, granted=False, pre=True)
            )

    def _hears_leader(self) -> bool:
        return self.leader != 0 and self.election_elapsed < self.options.election_ticks

    def enter(self, role: Role, *, leader: int) -> None:
        """Change the role, leaving behind what belonged to the old one."""
        assert role in MAY_BECOME[self.role], f"{self.role.name} cannot become {role.name}"
        self.role, self.leader = role, leader
        self.leadership = None
        self.votes = {}

    def become_follower(self, term: int, leader: int) -> None:
        """Follow `leader` (0: nobody known) in `term`; a term's vote is kept as long as the term lasts."""
        assert term >= self.term, "terms never fall"
        if term > self.term:
            self.term, self.voted_for = term, 0
        self.enter(Role.FOLLOWER, leader=leader)
        self.snapshots_wanted = []
        self.reset_election_timer()

    def hear(self, leader: int) -> None:
        """A message of this term's leader arrived."""
        assert self.leader in (0, leader), f"two leaders in term {self.term}: {self.leader} and {leader}"
        self.leader = leader
        self.election_elapsed = 0
        self.campaign_in = 0

    def reset_election_timer(self) -> None:
        """Begin to wait anew, for a time drawn anew, so that ties do not repeat (Raft 5.2)."""
        ticks = self.options.election_ticks
        self.election_elapsed = 0
        self.election_timeout = self.draw(ticks, 2 * ticks - 1)
        self.campaign_in = 0


CANDIDATE_STEPS: dict[type, Callable[..., None]] = {
    AppendEntries: candidate.step_leader_message,
    Heartbeat: candidate.step_leader_message,
    InstallSnapshot: candidate.step_leader_message,
    VoteReply: candidate.step_vote_reply,
    RequestVote: candidate.step_request_vote,
}

STEPS: dict[Role, dict[type, Callable[..., None]]] = {
    Role.FOLLOWER: {**follower.STEPS, RequestVote: candidate.step_request_vote},
    Role.PRE_CANDIDATE: CANDIDATE_STEPS,
    Role.CANDIDATE: CANDIDATE_STEPS,
    Role.LEADER: {**leader.STEPS, RequestVote: candidate.step_request_vote},
}
"""What each role does with each message; what is not listed means nothing to it."""
