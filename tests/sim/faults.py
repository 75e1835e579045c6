"""What goes wrong in a run: each kind is a method, drawn by the seed's own weights."""

from typing import TYPE_CHECKING

from tests.sim.world import LinkRules

if TYPE_CHECKING:
    from tests.sim.run import Run

RESTART_MS = (0, 5, 50, 300, 1_200)


class Faults:
    """Something goes wrong every few virtual milliseconds until `stop`."""

    def __init__(self, run: "Run") -> None:
        self.run, self.world, self.rng = run, run.world, run.rng
        self.stopped = False
        self.counts: dict[str, int] = {}
        weights = {kind: weight for kind, weight in run.limits.faults.items() if weight}
        self._kinds, self._weights = list(weights), list(weights.values())
        if weights:
            self._plan()

    def _plan(self) -> None:
        self.world.after(self.rng.randint(1, 2 * self.run.limits.fault_ms), self._strike)

    def _strike(self) -> None:
        if self.stopped:
            return
        kind = self.rng.choices(self._kinds, self._weights)[0]
        self.counts[kind] = self.counts.get(kind, 0) + 1
        getattr(self, kind)(self.rng.choice(list(self.world.nodes)))
        self._plan()

    def _later(self, delays_ms: tuple[int, ...], action: object) -> None:
        assert callable(action)
        self.world.after(self.rng.choice(delays_ms), lambda: None if self.stopped else action())

    def _plan_start(self, node: int) -> None:
        self._later(RESTART_MS, lambda: self.start(node))

    def start(self, node: int) -> None:
        """Start a node that is down."""
        if self.world.nodes[node].process is None:
            self.world.start(node)

    # -- processes and disks ---------------------------------------------------------------------------

    def crash(self, node: int) -> None:
        self.world.crash(node)
        self._plan_start(node)

    def crash_mid_turn(self, node: int) -> None:
        self.world.nodes[node].doom = self.rng.randint(0, 4)

    def crash_all(self, _: int) -> None:
        for node in self.world.nodes:
            self.crash(node)

    def sync_fails(self, node: int) -> None:
        self.world.nodes[node].sync_fails = True

    def stall(self, node: int) -> None:
        sim = self.world.nodes[node]
        sim.sync_ms = self.rng.choice(((0, 2), (0, 20), (30, 300), (500, 3_000)))

    def pause(self, node: int) -> None:
        if self.world.nodes[node].process is not None:
            self.world.pause(node)
            self._later((1, 50, 400, 2_000, 6_000), lambda: self.world.resume(node))

    def clock_jump(self, node: int) -> None:
        sim, jump_ms = self.world.nodes[node], self.rng.choice((-3_600_000, -500, 500, 7_000, 3_600_000))
        self.world.note(f"n{node}", "clock jump", jump_ms)
        sim.wall_ms += jump_ms
        # A process counts from its start by a clock that cannot be set: it may miss time, and never gets it twice.
        sim.clock_ms += max(0, jump_ms)

    # -- links -----------------------------------------------------------------------------------------

    def _other(self, node: int) -> int:
        others = [other for other in self.world.nodes if other != node]
        return self.rng.choice(others) if others else 0

    def _set_rules(self, node: int, rules: LinkRules) -> None:
        other = self._other(node)
        if other:
            self.world.note(f"n{node}", "link", f"n{other}", rules)
            self.world.rules[(node, other)] = rules
            self._later((100, 500, 3_000), lambda: self._mend(node, other))

    def _mend(self, node: int, other: int) -> None:
        self.world.rules[(node, other)] = LinkRules()
        self.world.break_link(node, other)

    def lossy_link(self, node: int) -> None:
        rules = LinkRules(
            (0, self.rng.choice((1, 5, 60))),
            is_ordered=False,
            loss=self.rng.choice((0, 10, 60)),
            double=self.rng.choice((0, 20, 60)),
        )
        self._set_rules(node, rules)

    def slow_link(self, node: int) -> None:
        # Stragglers outlive the connection and the process that they were for.
        self._set_rules(
            node,
            LinkRules(self.rng.choice(((20, 20), (0, 200), (0, 3_000))), is_ordered=self.rng.random() < 0.5),
        )

    def small_frames_only(self, node: int) -> None:
        self._set_rules(node, LinkRules(bytes_max=400))

    def cut_one_way(self, node: int) -> None:
        self._set_rules(node, LinkRules(cut=True))

    def cut_off(self, node: int) -> None:
        for other in self.world.nodes:
            if other != node:
                self.world.cut(node, other)
                self.world.cut(other, node)
        self._later((50, 400, 3_000), lambda: self._join(node))

    def _join(self, node: int) -> None:
        for other in self.world.nodes:
            if other != node:
                self.world.rules[(node, other)] = LinkRules()
                self.world.rules[(other, node)] = LinkRules()
                self.world.break_link(node, other)

    def break_link(self, node: int) -> None:
        other = self._other(node)
        if other:
            self.world.break_link(node, other)

    # -- what operators and clients do -----------------------------------------------------------------

    def transfer(self, node: int) -> None:
        sim, other = self.world.nodes[node], self._other(node)
        if sim.process is None or sim.paused or not other:
            return
        for group in self.run.cluster.cores[node].host.groups.values():
            if group.raft.is_leader:
                self.world.note(f"n{node}", "transfer", f"g{group.id}", f"to n{other}")
                group.raft.transfer_leader(other)
                group.touch()
        self.world.touched[node] = sim
        self.world.wake(sim)

    def campaign(self, node: int) -> None:
        sim = self.world.nodes[node]
        if sim.process is not None and not sim.paused:
            group = self.rng.choice(list(self.run.cluster.cores[node].host.groups.values()))
            self.world.note(f"n{node}", "campaign", f"g{group.id}")
            group.raft.campaign()
            group.touch()
            self.world.touched[node] = sim
            self.world.wake(sim)

    def snapshot(self, node: int) -> None:
        sim = self.world.nodes[node]
        if sim.process is not None:
            self.world.note(f"n{node}", "save all")
            for group in self.run.cluster.cores[node].host.groups.values():
                group._bytes_since = 1 << 40
                group.touch()
            self.world.wake(sim)

    def client_drops(self, _: int) -> None:
        clients = list(self.run.cluster.clients.values())
        if clients:
            self.rng.choice(clients).drop()

    def client_is_slow(self, _: int) -> None:
        clients = list(self.run.cluster.clients.values())
        if clients:
            client = self.rng.choice(clients)
            client.set_writable(is_writable=False)
            self._later((5, 100, 1_000), lambda: client.set_writable(is_writable=True))

    # -- the end of it ---------------------------------------------------------------------------------

    def stop(self) -> None:
        """Nothing goes wrong any more: all links, disks and processes work."""
        self.stopped = True
        world = self.world
        world.heal()
        for sim in world.nodes.values():
            self.mend(sim.id)
        for client in list(self.run.cluster.clients.values()):
            client.set_writable(is_writable=True)
        for node in world.nodes:
            for other in world.nodes:
                if node < other:
                    world.break_link(node, other)

    def mend(self, node: int) -> None:
        """A node works again."""
        sim = self.world.nodes[node]
        sim.sync_ms, sim.sync_fails, sim.doom = (0, 5), False, None
        self.world.resume(node)
        self.start(node)


class BadTopology:
    """One fault that stays, which leaves a quorum in good health: that quorum must get on."""

    KINDS = ("down", "paused", "cut off", "deaf", "mute", "half", "stalled")

    def __init__(self, run: "Run") -> None:
        world, rng = run.world, run.rng
        run.faults.stop()
        self.kind = rng.choice(self.KINDS)
        self.node = node = rng.choice(list(world.nodes))
        others = [other for other in world.nodes if other != node]
        self.served = others  # nodes at which clients must be served
        world.note(f"n{node}", "stays bad", self.kind)
        if self.kind == "down":
            world.crash(node)
        elif self.kind == "paused":
            world.pause(node)
        elif self.kind == "stalled":
            # Slow, not dead: it may lead, and then its own share of the work sets the pace.
            world.nodes[node].sync_ms = (300, 1_500)
        elif self.kind == "half":
            # Whoever sees both may follow the bad node, as Raft goes; it at least must be served.
            other = rng.choice(others)
            world.cut(node, other)
            world.cut(other, node)
            self.served = [third for third in others if third != other]
        for other in others:
            if self.kind in ("cut off", "mute"):
                world.cut(node, other)
            if self.kind in ("cut off", "deaf"):
                world.cut(other, node)
