"""A group in memory: members with disks, and a network that delivers when it is told to.

    group = Network(3)
    group.elect(1)                    # member 1 campaigns and everything settles
    group[1].propose(b"x")
    group.settle()                    # persist, deliver, apply until nothing is left to do

Nothing happens by itself: `pump` takes the Readys, `persist` finishes writes, `deliver` hands messages over.
"""

import zlib
from collections.abc import Callable, Iterable

from cluster.raft.core import Clock, Options, Raft
from cluster.raft.membership import MembershipChange, Operation
from cluster.raft.ready import ReadState, Ready, Role
from cluster.raft.rpc import InstallSnapshot, Message
from cluster.types import Configuration, Entry, EntryKind
from tests.raft.disk import Disk, Saved

HEARTBEAT_TICKS = 1
ELECTION_TICKS = 10


def first(low: int, high: int) -> int:
    """A draw without chance: always the lower bound."""
    return low


class Member:
    """One member: core, disk and a state machine that keeps a running checksum of what it applied."""

    def __init__(
        self, node: int, configuration: Configuration, draw: Callable[[int, int], int] = first, **options: int
    ) -> None:
        self.id, self.draw = node, draw
        defaults = {"heartbeat_ticks": HEARTBEAT_TICKS, "election_ticks": ELECTION_TICKS, "group": 0}
        self.options = Options(**{**defaults, **options, "id": node})
        self.disk = Disk(configuration)
        self.outbox: list[Message] = []
        self.is_up = True
        self.is_applying = True
        self.boot()

    def boot(self) -> None:
        """Start the process on what the disk holds."""
        saved = self.disk.shown.saved
        self.raft = Raft(self.options, self.disk, self.draw, applied=saved.meta.index, clock=Clock())
        self.state, self.state_index = saved.state, saved.meta.index
        self.under_way: list[Ready] = []
        self.backlog: list[Entry] = []
        self.applied: list[Entry] = []
        self.reads: list[ReadState] = []
        self.wanted: list[int] = []
        self.staged: dict[tuple[int, int], Saved] = {}
        self.is_up = True

    def crash(self, kept: int = 0) -> None:
        """End the process; of the writes under way the first `kept` reached the disk."""
        self.disk.crash(kept)
        self.outbox = []
        self.is_up = False

    def restart(self, kept: int = 0) -> None:
        self.crash(kept)
        self.boot()

    def propose(self, *payloads: bytes) -> int | None:
        return self.raft.propose(EntryKind.BATCH, list(payloads))

    def change(self, *operations: tuple[Operation, int]) -> int | None:
        return self.raft.propose_membership(MembershipChange(operations))

    def take_ready(self) -> Ready:
        """Take one Ready and begin what it asks for."""
        ready = self.raft.ready()
        if ready.must_sync:
            staged = None
            if ready.snapshot is not None:
                staged = self.staged[ready.snapshot.index, ready.snapshot.term]
                self.state, self.state_index = staged.state, staged.meta.index
                self.backlog = []
            self.disk.write(ready.number, ready, staged)
        self.under_way.append(ready)
        self.outbox += ready.messages
        self.backlog += ready.committed
        self.reads += ready.read_states
        self.wanted += ready.snapshots_wanted
        return ready

    def pump(self) -> None:
        """Take all Readys, and apply."""
        while self.raft.has_ready():
            self.take_ready()
            if self.is_applying:
                self.apply()

    def apply(self, count: int | None = None) -> None:
        """Apply some or all of what was handed out."""
        batch, self.backlog = self.backlog[:count], self.backlog[count:] if count is not None else []
        for entry in batch:
            assert entry.index == self.state_index + 1, "an entry was skipped or applied twice"
            self.state = checksum(self.state, entry)
            self.state_index = entry.index
            self.applied.append(entry)
            if entry.kind == EntryKind.MEMBERSHIP:
                self.raft.apply_membership(entry)
        if batch:
            self.raft.on_applied(batch[-1].index)

    def persist(self, count: int | None = None) -> None:
        """Finish some or all of the writes under way, in order."""
        for _ in range(len(self.under_way) if count is None else count):
            ready = self.under_way.pop(0)
            self.disk.sync(ready.number)
            self.outbox += ready.messages_after_persist
            self.raft.on_persisted(ready.number)

    def save(self) -> None:
        """Save the state machine and let the log before it go."""
        meta, index = self.disk.shown.saved.meta, self.state_index
        if index <= meta.index:
            return
        entry = self.disk.shown.entries[index]
        meta = meta._replace(index=index, term=entry.term, ts=entry.ts, configuration=self.raft.configuration)
        self.disk.write(self.raft.number, Saved(meta, self.state))
        if not self.under_way:
            self.disk.sync(self.raft.number)
        self.raft.log_compacted()

    @property
    def log(self) -> list[tuple[int, int]]:
        """(index, term) of every entry the core has, durable or not."""
        return [
            (i, self.raft.log.term(i)) for i in range(self.raft.log.first_index, self.raft.last_index + 1)
        ]

    @property
    def data(self) -> list[bytes]:
        """What was applied since the start, without empty entries."""
        return [entry.data for entry in self.applied if entry.kind == EntryKind.BATCH]


def checksum(state: int, entry: Entry) -> int:
    """Fold an entry into the state: differs wherever any entry before differed."""
    return zlib.crc32(repr(entry).encode(), state)


class Network:
    """Members 1..n that all vote, or a given configuration."""

    def __init__(
        self,
        voters: int = 3,
        learners: Iterable[int] = (),
        *,
        others: Iterable[int] = (),
        draw: Callable[[int, int], int] = first,
        **options: int,
    ) -> None:
        ids = tuple(range(1, voters + 1))
        self.configuration = Configuration(ids, tuple(learners))
        self.draw, self.options = draw, options
        self.members = {
            node: Member(node, self.configuration, draw, **options) for node in (*ids, *learners, *others)
        }
        self.wire: list[Message] = []
        self.is_cut: Callable[[Message], bool] = lambda message: False
        self.ships = True
        self.after: Callable[[Member], None] = lambda member: None
        self.watch: Callable[[list[Message]], None] = lambda messages: None

    def __getitem__(self, node: int) -> Member:
        return self.members[node]

    def elect(self, node: int) -> Member:
        """Let a member win an election."""
        self[node].raft.campaign()
        self.settle()
        assert self[node].raft.role is Role.LEADER
        return self[node]

    def pump(self) -> None:
        """Take what the members want sent, without finishing any write."""
        for member in self.members.values():
            if member.is_up:
                member.pump()
                self.collect(member)
                self.after(member)

    def collect(self, member: Member) -> None:
        """Put on the wire what is ready to leave."""
        self.watch(member.outbox)
        self.wire += member.outbox
        member.outbox = []

    def persist(self, *ids: int) -> None:
        """Finish the writes of these members (default: all)."""
        for node in ids or self.members:
            if self[node].is_up:
                self[node].persist()
                self.collect(self[node])
                self.after(self[node])

    def deliver(self, wanted: Callable[[Message], bool] = lambda message: True) -> int:
        """Deliver the messages on the wire that are wanted, in order; those of a cut link are lost."""
        taken = [message for message in self.wire if wanted(message)]
        self.wire = [message for message in self.wire if not wanted(message)]
        for message in taken:
            target = self.members.get(message.target)
            if target is not None and target.is_up and not self.is_cut(message):
                target.raft.step(message)
                self.after(target)
        return len(taken)

    def settle(self) -> None:
        """Persist, send, deliver, apply and ship until nothing is left to do."""
        for _ in range(10_000):
            self.pump()
            self.persist()
            self.pump()
            if self.ships:
                self.ship()
            up = [member for member in self.members.values() if member.is_up]
            if not self.deliver() and not any(member.raft.has_ready() or member.under_way for member in up):
                return
        raise AssertionError("the group never comes to rest")

    def ship(self) -> None:
        """Ship the saved states that leaders want shipped."""
        for member in self.members.values():
            wanted, member.wanted = member.wanted if member.raft.is_leader else [], []
            for peer in wanted:
                message = self.snapshot_for(member, peer)
                if not self[peer].is_up or self.is_cut(message):
                    member.raft.report_snapshot(peer, ok=False)
                    continue
                self[peer].raft.step(message)
                member.raft.report_snapshot(peer, ok=True)

    def snapshot_for(self, leader: Member, peer: int) -> InstallSnapshot:
        """Stage the leader's saved state at a peer; returns the message that makes it take it."""
        saved = leader.disk.durable.saved
        self[peer].staged[saved.meta.index, saved.meta.term] = saved
        return InstallSnapshot(leader.id, peer, leader.raft.term, saved.meta)

    def tick(self, count: int = 1, *ids: int) -> None:
        """Let time pass for these members (default: all), settling after each tick."""
        for _ in range(count):
            for node in ids or self.members:
                if self[node].is_up:
                    self[node].raft.tick()
            self.settle()

    def isolate(self, *ids: int) -> None:
        """Cut these members off from all others, but not from each other."""
        self.is_cut = lambda message: (message.source in ids) != (message.target in ids)

    def heal(self) -> None:
        """Mend all links."""
        self.is_cut = lambda message: False

    def forget_wire(self) -> None:
        """Lose everything under way."""
        self.wire = []

    @property
    def leaders(self) -> list[int]:
        return [node for node, member in self.members.items() if member.is_up and member.raft.is_leader]
