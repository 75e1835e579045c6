"""One group under chance: loss, repetition and disorder on the wire, power cuts between write and sync,
membership changes, hand-overs, reads, compaction; then calm, in which the group must get on.

Everything follows from the seed. Each event is one call into one core; all invariants are checked after it.
"""

import random
from collections.abc import Callable

from cluster.raft.membership import Operation
from cluster.raft.rpc import InstallSnapshot, Message
from tests.raft.invariants import Invariants
from tests.raft.network import Member, Network

NODES = 5


class Simulation:
    """A group of up to five members and what can happen to it, weighted by the seed."""

    def __init__(self, seed: int) -> None:
        self.chance = chance = random.Random(seed)
        voters = chance.choice([1, 2, 3, 3, 3, 4, 5])
        learners = [node for node in range(voters + 1, NODES + 1) if chance.random() < 0.4]
        others = [node for node in range(voters + 1, NODES + 1) if node not in learners]
        self.group = Network(
            voters,
            learners,
            others=others,
            draw=chance.randint,
            heartbeat_ticks=chance.choice([1, 2]),
            election_ticks=chance.choice([3, 5, 10]),
            message_bytes_max=chance.choice([1, 20, 1000]),
            inflight_max=chance.choice([1, 2, 16]),
            inflight_bytes_max=chance.choice([20, 100, 10_000]),
            applying_bytes_max=chance.choice([1, 30, 10_000]),
            uncommitted_bytes_max=chance.choice([50, 10_000]),
        )
        self.group.ships = False
        self.invariants = Invariants(self.group)
        self.group.watch = self.invariants.sent
        self.group.after = self.invariants.check
        self.loss = chance.choice([0.0, 0.02, 0.2])
        self.repetition = chance.choice([0.0, 0.05, 0.3])
        self.disorder = chance.choice([0.0, 0.3, 1.0])
        self.slow = chance.choice([0, 0, *range(1, NODES + 1)])
        self.count = 0
        self.partition: tuple[int, ...] = ()
        self.snapshots: list[InstallSnapshot] = []
        self.events = [self._deliver, self._ready, self._persist, self._apply, self._tick, self._propose]
        self.weights = [40.0, 25, 15, 10, chance.choice([1, 3]), 6]
        for event, weight in (
            (self._crash, 0.3),
            (self._boot, 2),
            (self._change, 1),
            (self._transfer, 0.5),
            (self._read, 2),
            (self._save, 1),
            (self._ship, 3),
            (self._cut, 0.5),
            (self._lose_peer, 0.5),
            (self._campaign, 0.3),
            (self._doze, 0.3),
        ):
            # Swarm testing: each seed has its own mixture of faults.
            self.events.append(event)
            self.weights.append(weight * chance.choice([0, 1, 1, 3]) if event != self._boot else weight)

    def run(self, events: int) -> None:
        """Let that many things happen."""
        for event in self.chance.choices(self.events, self.weights, k=events):
            if event == self._boot:
                member = self._one_of(lambda member: not member.is_up)
            elif event == self._ready:
                member = self._one_of(lambda member: member.is_up and member.raft.has_ready())
            elif event == self._persist:
                member = self._one_of(lambda member: member.is_up and bool(member.under_way))
            elif event == self._apply:
                member = self._one_of(lambda member: member.is_up and bool(member.backlog))
            elif event in (self._propose, self._change, self._transfer):
                member = self._one_of(lambda member: member.is_up and member.raft.is_leader)
            else:
                member = self._one_of(lambda member: member.is_up)
            if member is None or (event == self._deliver and not self.group.wire):
                # Nothing of that kind to do; time passes only when nothing is under way, or all is elections.
                event = self._deliver if self.group.wire else self._tick
                member = self._one_of(lambda member: member.is_up)
            if member is not None:
                member.raft.clock.ts = self.chance.randint(0, 1000)
                event(member)

    def _one_of(self, is_fit: Callable[[Member], bool]) -> Member | None:
        fit = [member for member in self.group.members.values() if is_fit(member)]
        return self.chance.choice(fit) if fit else None

    def calm(self, rounds: int = 400) -> None:
        """End all faults: a leader must be found, commit, and bring all members along."""
        group = self.group
        group.ships, self.partition = True, ()
        group.wire = []
        for member in group.members.values():
            if not member.is_up:
                member.boot()
            member.apply()
        group.settle()
        self._check_all()
        for turn in range(rounds):
            group.tick()
            self._check_all()
            if len(group.leaders) == 1 and turn % 10 == 9:
                leader = group[group.leaders[0]]
                index = leader.propose(b"calm")
                # Where nobody waits the entry comes with a heartbeat, and its commit with the next.
                group.tick(2 * leader.options.heartbeat_ticks)
                self._check_all()
                configuration = leader.raft.configuration
                behind = [
                    node
                    for node in (*configuration.voters, *configuration.learners)
                    if index is None or group[node].state_index < index
                ]
                if not behind and not configuration.outgoing:
                    return
        raise AssertionError("the group does not get on although nothing disturbs it")

    def _check_all(self) -> None:
        for member in self.group.members.values():
            self.invariants.check(member)

    def _after(self, member: Member) -> None:
        self.group.collect(member)
        self.invariants.check(member)

    def _deliver(self, _: Member) -> None:
        wire = self.group.wire
        if not wire:
            return
        position = self.chance.randrange(len(wire)) if self.chance.random() < self.disorder else 0
        message = wire[position] if self.chance.random() < self.repetition else wire.pop(position)
        target = self.group[message.target]
        if self.chance.random() < self.loss or self._is_cut(message) or not target.is_up:
            return
        target.raft.step(message)
        self._after(target)

    def _is_cut(self, message: Message) -> bool:
        return (message.source in self.partition) != (message.target in self.partition)

    def _ready(self, member: Member) -> None:
        if member.raft.has_ready():
            was_leader = member.raft.is_leader
            ready = member.take_ready()
            assert not (was_leader and ready.truncate_from is not None), (
                "a leader truncates its log (Raft 5.3)"
            )
            self._after(member)

    def _persist(self, member: Member) -> None:
        if member.under_way and not self._is_slow(member):
            member.persist(self.chance.randint(1, len(member.under_way)))
            self._after(member)

    def _apply(self, member: Member) -> None:
        if member.backlog:
            member.apply(self.chance.randint(1, len(member.backlog)))
            self._after(member)

    def _tick(self, member: Member) -> None:
        if self._is_slow(member):
            return
        member.raft.tick()
        self._after(member)

    def _propose(self, member: Member) -> None:
        self.count += 1
        member.propose(*[b"%d.%d" % (self.count, i) for i in range(self.chance.choice([1, 1, 2, 5]))])
        self._after(member)

    def _crash(self, member: Member) -> None:
        member.crash(self.chance.randint(0, len(member.disk.pending)))
        self.invariants.crashed(member)
        if self.chance.random() < 0.5:
            self._boot(member)

    def _boot(self, member: Member) -> None:
        if not member.is_up:
            member.boot()
            self._after(member)

    def _change(self, member: Member) -> None:
        operations = [
            (self.chance.choice(list(Operation)), self.chance.randint(1, NODES))
            for _ in range(self.chance.choice([1, 1, 2, 3]))
        ]
        member.change(*operations)
        self._after(member)

    def _transfer(self, member: Member) -> None:
        member.raft.transfer_leader(self.chance.randint(1, NODES))
        self._after(member)

    def _read(self, member: Member) -> None:
        leaders = [self.group[node] for node in self.group.leaders]
        if len(leaders) > 1:
            # The one that was voted out and has not heard of it is the one that could answer wrongly.
            member = min(leaders, key=lambda leader: leader.raft.term)
        self.count += 1
        self.invariants.asked(member, self.count)
        member.raft.read_index(self.count)
        self._after(member)

    def _save(self, member: Member) -> None:
        member.save()
        self._after(member)

    def _ship(self, member: Member) -> None:
        if self.snapshots and self.chance.random() < 0.5:
            message = self.snapshots[self.chance.randrange(len(self.snapshots))]
            target = self.group[message.target]
            if target.is_up and (message.meta.index, message.meta.term) in target.staged:
                target.raft.step(message)
                self._after(target)
            return
        while member.wanted:
            peer = member.wanted.pop()
            ok = self.chance.random() < 0.7
            if ok and member.raft.is_leader:
                self.snapshots.append(self.group.snapshot_for(member, peer))
            member.raft.report_snapshot(peer, ok=ok)
            self._after(member)

    def _campaign(self, member: Member) -> None:
        member.raft.campaign()
        self._after(member)

    def _is_slow(self, member: Member) -> bool:
        """One member of a cluster may have a slow clock and a slow disk."""
        return member.id == self.slow and self.chance.random() < 0.9

    def _doze(self, member: Member) -> None:
        member.raft.is_lazy = not member.raft.is_lazy

    def _cut(self, _: Member) -> None:
        size = self.chance.choice([0, 0, 1, 2])
        self.partition = tuple(self.chance.sample(sorted(self.group.members), size))
        leaders = self.group.leaders
        if leaders and self.chance.random() < 0.5:
            # A leader that does not know yet that it is none any more is worth as much as all other cuts.
            self.slow = self.chance.choice(leaders)
            self.partition = (self.slow,)

    def _lose_peer(self, member: Member) -> None:
        peer = self.chance.randint(1, NODES)
        if peer != member.id:
            report = self.chance.choice([member.raft.peer_lost, member.raft.report_unreachable])
            report(peer)
            self._after(member)
