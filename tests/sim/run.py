"""One run: a cluster, its clients, what goes wrong, and every check; then calm, in which all must come to rest."""

import random
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from node.broker.errors import UnknownCommand
from node.wire.primitives import Table
from tests.amqp_client import Received
from tests.sim.actors import Actor, Consumer, Founder, Owner, Publisher, Purger, Replier
from tests.sim.cluster import SimClient, SimCluster
from tests.sim.declarer import Declarer
from tests.sim.faults import BadTopology, Faults
from tests.sim.features import chosen
from tests.sim.history import History, Message, Violation
from tests.sim.limits import Limits
from tests.sim.log_model import LogModel
from tests.sim.queue_checks import QueueChecks, audit
from tests.sim.raft_checks import RaftChecks
from tests.sim.trace import Line
from tests.sim.world import SimNode

EVENTS = 2_000
PATIENCE_MS = 90_000
"""Virtual time in which a healthy cluster must come to rest, or serve a client; far more than it ever needs."""
NEWER_EVERY = 4
"""Every so many seeds end with a command from a newer version, at which nodes must halt."""
ELECTIONS_MAX = 30
"""Election timeouts within which a quorum in good health must serve."""


Watcher = Callable[[Consumer, Message, Received], None]


@dataclass(slots=True)
class Report:
    """What a run came to."""

    seed: int
    events: int
    steps: int = 0
    failure: str = ""  # the name of what was violated, with its text; empty: nothing was
    where: str = ""  # the stack, where it was no Violation
    published: int = 0
    confirmed: int = 0
    delivered: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    elections: int = 0
    installs: int = 0
    trace: list[Line] = field(default_factory=list)


class Run:
    """See the module. `execute` runs it to the end or to the first violation."""

    def __init__(
        self, seed: int, events: int = EVENTS, mode: str = "safety", *, keep_trace: bool = False
    ) -> None:
        """Args: mode: safety, or liveness: from half of the events on a quorum is well and must serve."""
        self.seed, self.events, self.mode = seed, events, mode
        self.rng = rng = random.Random(seed)
        self.limits = Limits.drawn(rng)
        if mode == "liveness":
            # A refused batch is offered again a second later: with a small bound nothing would tell slow from stuck.
            self.limits.raft["uncommitted_bytes_max"] = 64 << 20
        self.node_count = 3 if mode == "liveness" else rng.choice((3, 3, 3, 3, 3, 4, 5, 1))
        self.shards = rng.choice((1, 2, 3))
        self.history = History()
        self.groups: dict[str, int] = {}  # group of each durable queue
        self.replies: dict[str, str] = {}  # exclusive queues in use, by owner
        self.actors: list[Actor] = []
        self.given_up: dict[int, None] = {}
        self.watchers: dict[str, Watcher] = {}  # by queue: look at what its consumers are given
        self.features = chosen(self)
        self.installs = 0
        self._numbers = 0
        self._keep_trace = keep_trace

    def execute(self) -> Report:
        """Run; a violation, or an exception of the broker, ends up in the report."""
        report = Report(self.seed, self.events)
        with self.limits.in_force():
            self.cluster = SimCluster(self.seed, self.node_count, self.shards, self.limits)
            self.world = self.cluster.world
            if self._keep_trace:
                self.world.trace = deque(self.world.trace)
            try:
                self._execute()
            except Exception as error:  # whatever it is, the seed is worth keeping
                report.failure = str(error)
                if not isinstance(error, Violation):
                    report.failure = f"{type(error).__name__}: {error}"
                    report.where = traceback.format_exc()
        report.steps = self.world.steps
        report.published, report.confirmed = len(self.history.targets), len(self.history.confirmed)
        report.delivered = sum(self.history.delivered.values())
        report.faults = self.faults.counts if hasattr(self, "faults") else {}
        report.elections, report.installs = len(self.raft_checks.leaders), self.installs
        report.trace = list(self.world.trace)
        return report

    def _execute(self) -> None:
        self._watch()
        self._declare()
        self._cast()
        self.faults = Faults(self)
        if self.mode == "liveness":
            self.world.run(steps=self.events // 2)
            with self._step_of_its_own():
                topology = BadTopology(self)
            self.world.run(steps=self.events - self.events // 2)
            self._demand_service(topology)
        else:
            self.world.run(steps=self.events)
        self._calm()

    @contextmanager
    def _step_of_its_own(self) -> Iterator[None]:
        """What is done to the world between two actions of its heap is checked like one of them."""
        yield
        for check in self.world.on_step:
            check()
        self.world.touched.clear()

    # -- checks ----------------------------------------------------------------------------------------

    def _watch(self) -> None:
        self.model = LogModel(self.world, self.shards + 1)
        self.raft_checks = RaftChecks(self.world, self.model)
        self.queue_checks = QueueChecks(self.model)
        self.history.is_known = lambda queue, message: self.model.has_message(self.groups[queue], message)
        world = self.world
        world.on_step.append(self._check_touched)
        world.on_send.append(self.raft_checks.sent)
        world.on_crash.append(self.raft_checks.crashed)
        world.on_crash.append(lambda sim: self._note_given_up(sim.id))
        # Before the clients hear of a turn: what they are told of must be known to be committed.
        world.on_turn.insert(0, lambda sim, turn: self._check_node(sim))
        world.on_turn.insert(0, self._count_installs)

    def _note_given_up(self, node: int) -> None:
        """Owners of exclusive queues that a node took for dead: it drops and confirms what is for them."""
        for link in self.cluster.cores[node].host.links.values():
            if link.stream.epoch & 0xFFFF:
                self.given_up[link.owner] = None

    def _count_installs(self, _: SimNode, turn: object) -> None:
        self.installs += sum(1 for write in turn.writes if write.install is not None)  # type: ignore[attr-defined]

    def _check_touched(self) -> None:
        for sim in self.world.touched.values():
            self._check_node(sim)

    def _check_node(self, sim: SimNode) -> None:
        if sim.process is None:
            return
        core = self.cluster.cores[sim.id]
        for group in core.host.groups.values():
            if self.raft_checks.check(sim, group):
                self.queue_checks.check(sim, core, group)

    def violate(self, name: str, text: str) -> None:
        """A client saw what must not be."""
        raise Violation(name, text)

    def is_current(self, client: SimClient, group: int) -> bool:
        """Whether the group has not declared the client's node gone."""
        if group == 0:
            return True
        epoch = self.cluster.cores[client.node].host.groups[group].stream.epoch
        return self.model.is_current(group, client.node, epoch)

    def new_number(self) -> int:
        """A number never used before in this run."""
        self._numbers += 1
        return self._numbers

    # -- the play --------------------------------------------------------------------------------------

    def _until(self, holds: Callable[[], bool], what: str, limit_ms: int = PATIENCE_MS) -> None:
        deadline = self.world.now_ms + limit_ms
        while not holds():
            if self.world.now_ms >= deadline:
                raise Violation("no progress", f"{what} within {limit_ms} ms")
            self.world.run(until_ms=self.world.now_ms + 50)

    def _declare(self) -> None:
        """Before anything goes wrong: the queues whose routes never change, declared on various nodes."""
        queues: dict[str, Table] = {name: {} for name in ("q0", "q1", "q2", "f0", "f1", "n0", "p0")}
        for feature in self.features:
            queues |= feature.queues()

        def has_leaders() -> bool:
            return all(
                any(core.host.groups[group].leads for core in self.cluster.cores.values())
                for group in range(self.shards + 1)
            )

        self._until(has_leaders, "leaders are elected")
        founders = [Founder(self, name, arguments) for name, arguments in queues.items()]
        self._until(lambda: all(founder.is_done for founder in founders), "the queues are declared")
        cores = self.cluster.cores
        known = self.model.groups[0]
        self._until(lambda: all(c.host.groups[0].applied == known.commit for c in cores.values()), "all know")
        for name in queues:
            record = cores[1].topology.queue("/", name)
            assert record is not None
            self.groups[name] = record.group

    def routes(self) -> list[tuple[str, str, tuple[str, ...]]]:
        """(exchange, routing key, queues) of what publishers may use."""
        direct = [("", name, (name,)) for name in ("q0", "q1", "q2", "n0")]
        # f0 is reached in two ways: a burst that takes both may not be sorted as a whole.
        return [*direct, ("", "f0", ("f0",)), ("fan", "", ("f0", "f1"))]

    def _cast(self) -> None:
        routes, rng = self.routes(), self.rng
        self.history.may_lose["n0"] = None
        for number in range(rng.choice((1, 2, 3))):
            self.actors.append(Publisher(self, f"publisher{number}", routes))
        for queue in ("q0", "q1", "f0", "f1"):
            for _ in range(rng.choice((0, 1, 2))):
                self.actors.append(Consumer(self, f"consumer-{queue}", queue))
        self.actors.append(Consumer(self, "taker-n0", "n0", mode="no_ack"))
        self.actors.append(Consumer(self, "getter-q2", "q2", mode="get"))
        self.actors.append(Purger(self, "purger", "p0"))
        if rng.random() < 0.6:
            self.actors += [Owner(self, "owner"), Replier(self, "replier")]
        if rng.random() < 0.6:
            self.actors.append(Declarer(self, "declarer"))
        for feature in self.features:
            self.actors += feature.cast()

    # -- liveness --------------------------------------------------------------------------------------

    def _demand_service(self, topology: BadTopology) -> None:
        """In a bad topology that stays, every node of the healthy quorum serves its clients in time."""
        with self._step_of_its_own():
            # Others wait before the probes in the same streams: with small bounds, longer than any limit.
            for actor in self.actors:
                if isinstance(actor, Publisher):
                    actor.stop()
        limit_ms = ELECTIONS_MAX * 2 * self.limits.election_ticks * 50 + self.limits.silent_ms_max + 5_000
        for node in topology.served:
            for exchange, key, queues in self.routes():
                probe = Publisher(self, f"probe{node}-{key or exchange}", [(exchange, key, queues)], (node,))
                self.actors.append(probe)
                self._until(
                    lambda probe=probe: probe.confirms > 0,  # type: ignore[misc]
                    f"({topology.kind} n{topology.node}) n{node} confirms for {queues}",
                    limit_ms,
                )
                probe.stop()

    # -- the end ---------------------------------------------------------------------------------------

    def _calm(self) -> None:
        with self._step_of_its_own():
            self.faults.stop()
        self.world.run(until_ms=self.world.now_ms + 300)
        for node in self.world.nodes:
            # Doomed before calm came, and ended in it.
            with self._step_of_its_own():
                self.faults.mend(node)
        self._check_exclusive_queues()
        with self._step_of_its_own():
            for actor in self.actors:
                actor.stop()
            if self.features:
                self._set_clocks()
        left = self._drain()
        self.history.check_lost()
        self.history.check_purges(left)
        self.history.check_letters()
        for feature in self.features:
            feature.check()
        self._until(self._is_at_rest, "nothing is left of the clients")
        for node, core in self.cluster.cores.items():
            for machine in (*core.shards.values(), core._memory_machine):
                audit(f"n{node}", machine)
        if self.seed % NEWER_EVERY == 0:
            self._submit_newer()

    def _set_clocks(self) -> None:
        """A clock that was ahead for a while holds up the time of a group: let the others be as late."""
        newest = max(model.ts for model in self.model.groups.values()) - self.world.now_ms
        for sim in self.world.nodes.values():
            sim.wall_ms = sim.clock_ms = max(newest, sim.clock_ms)

    def _submit_newer(self) -> None:
        """A command of a kind that this version does not know stops whoever would have to apply it."""
        core = self.cluster.cores[1]
        core.host.submit(1, (b"\xfa\0\0\0\0",))
        self.world.wake(self.world.nodes[1])
        try:
            self.world.run(until_ms=self.world.now_ms + 5_000)
        except UnknownCommand:
            return
        raise Violation("newer command passed over", "nobody stopped at it")

    def _check_exclusive_queues(self) -> None:
        """What was confirmed for a queue whose owner is still connected has reached the owner."""

        def missing() -> list[tuple[str, Message]]:
            open_queues = {
                queue
                for actor in self.actors
                if isinstance(actor, Owner)
                for queue, client in actor.lives
                if client.is_open and client.node not in self.given_up
            }
            return [
                (queue, message)
                for message in self.history.confirmed
                for queue in self.history.targets[message]
                if queue in open_queues and (queue, message) not in self.history.delivered
            ]

        for node in self.world.nodes:
            self._note_given_up(node)
        for _ in range(40):
            if not missing():
                return
            self.world.run(until_ms=self.world.now_ms + 50)
        raise Violation("lost", f"exclusive queues: {missing()[:5]}")

    def _drain(self) -> dict[str, int]:
        """Consume from every node until every queue is empty everywhere; returns what was found of each."""
        before = set(self.history.acked)
        drains = [
            Consumer(self, f"drain{node}-{queue}", queue, mode="drain", nodes=(node,))
            for node in self.world.nodes
            for queue in self.groups
        ]

        def is_empty() -> bool:
            for group, model in self.model.groups.items():
                cores = [core.host.groups[group] for core in self.cluster.cores.values()]
                # After a restart of all a replica shows what is committed only when somebody leads again.
                if any(core.applied < model.commit for core in cores) or not any(
                    core.leads for core in cores
                ):
                    return False
            for queue, group in self.groups.items():
                for core in self.cluster.cores.values():
                    record = core.topology.queue("/", queue)
                    if record is None:
                        return False
                    machine = core.shards[group]
                    if sum(machine.counts(record.uid)[:2]) or sum(machine.waiting(record.uid)):
                        return False
            return not any(core.frontend.pending_bytes for core in self.cluster.cores.values())

        self.world.run(until_ms=self.world.now_ms + 200)
        self._until(is_empty, "the queues are drained")
        with self._step_of_its_own():
            for drain in drains:
                drain.stop()
        found: dict[str, int] = {}
        for queue, message in self.history.acked:
            if (queue, message) not in before:
                found[queue] = found.get(queue, 0) + 1
        return found

    def _is_at_rest(self) -> bool:
        """All replicas have applied the same, and hold nothing for clients that are gone."""
        cores = list(self.cluster.cores.values())
        for group in range(self.shards + 1):
            if len({core.host.groups[group].applied for core in cores}) > 1:
                return False
        for core in cores:
            if core.frontend.open_tickets or core.frontend.connection_count or core.frontend.pending_bytes:
                return False
            if any(machine._consumers for machine in (*core.shards.values(), core._memory_machine)):
                return False
            wanted = sorted(record.uid for record in core.topology.queues())
            if wanted != sorted(uid for machine in core.shards.values() for uid in machine.queue_uids()):
                return False
        return True
