"""A cluster in one process: virtual time, a heap of actions, links and disks that fail as told.

Nothing here is a re-implementation: nodes are `node.core.NodeCore` (or anything with the same methods), disks
implement the store's interface, links carry the real envelopes. The same seed gives the same run.
"""

import heapq
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from cluster.envelope import Envelope
from tests.sim.disk import Disk
from tests.sim.trace import LINES_KEPT, Line

TICK_MS = 50
START_MS = 1_700_000_000_000


class Process(Protocol):
    """A running node, as the world drives it."""

    def receive(self, envelope: Envelope) -> None: ...
    def tick(self, now_ms: int) -> None: ...
    def ask_all_if_late(self, now_ms: int) -> bool: ...
    def flush(self, now_ms: int) -> Any: ...
    def persisted(self, number: int) -> None: ...
    def peer_up(self, node: int, boot: int) -> None: ...
    def peer_down(self, node: int, *, refused: bool) -> None: ...


@dataclass(slots=True)
class LinkRules:
    """How a directed link behaves now.

    Args:
        delay_ms: bounds of the delay of an envelope, drawn for each.
        loss, double: probability per envelope, in percent.
        cut: nothing passes.
        bytes_max: larger envelopes vanish (a network that loses large packets); None: no limit.
        is_ordered: envelopes of one connection never overtake each other.
    """

    delay_ms: tuple[int, int] = (0, 3)
    loss: int = 0
    double: int = 0
    cut: bool = False
    bytes_max: int | None = None
    is_ordered: bool = True


@dataclass(slots=True)
class SimNode:
    """A node's machine: its disk stays, its process comes and goes."""

    id: int
    disk: Disk
    boot: int = 0
    process: Process | None = None
    paused: bool = False
    wall_ms: int = 0  # what its wall clock shows, against the world's time
    clock_ms: int = 0  # what the process goes by: the wall clock at its start, and never back since
    sync_ms: tuple[int, int] = (0, 5)
    sync_fails: bool = False  # the next one will
    doom: int | None = (
        None  # the process ends in its next turn, after so many of its writes, sends and outputs
    )
    flush_planned: bool = False
    syncing: bool = False
    inbox: list[Callable[[], None]] = field(default_factory=list)  # what came while it stood still
    links_up: set[int] = field(default_factory=set)


class World:
    """Nodes, links, time. `now_ms` is the world's time; nodes may see it shifted."""

    def __init__(self, seed: int, nodes: int, start: Callable[["World", SimNode], Process]) -> None:
        """Args: start: makes the process of a node from its disk; called at each start."""
        self.random = random.Random(seed)
        self.now_ms = START_MS
        self.nodes = {node: SimNode(node, Disk()) for node in range(1, nodes + 1)}
        self.rules = {(a, b): LinkRules() for a in self.nodes for b in self.nodes if a != b}
        self.steps = 0
        self.touched: dict[int, SimNode] = {}  # nodes that this step has done something to
        self.on_step: list[Callable[[], None]] = []
        self.on_turn: list[Callable[[SimNode, Any], None]] = []
        self.on_send: list[Callable[[SimNode, Envelope], None]] = []
        self.on_crash: list[Callable[[SimNode], None]] = []
        self.trace: deque[Line] = deque(maxlen=LINES_KEPT)
        self._start = start
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._sequence = 0
        self._arrivals: dict[tuple[int, int], int] = {}  # (source, target): when the last envelope arrives

    # -- time ------------------------------------------------------------------------------------------

    def after(self, delay_ms: int, action: Callable[[], None]) -> None:
        """Do something later; actions of one instant run in the order in which they were planned."""
        self._sequence += 1
        heapq.heappush(self._heap, (self.now_ms + delay_ms, self._sequence, action))

    def run(self, *, steps: int | None = None, until_ms: int | None = None) -> None:
        """Run that many actions, or up to a time."""
        done = 0
        heap, checks = self._heap, self.on_step
        while heap and (steps is None or done < steps):
            if until_ms is not None and heap[0][0] > until_ms:
                break
            at, _, action = heapq.heappop(heap)
            self.now_ms = max(self.now_ms, at)
            action()
            done += 1
            self.steps += 1
            for check in checks:
                check()
            self.touched.clear()
        if until_ms is not None:
            self.now_ms = max(self.now_ms, until_ms)

    def note(self, who: str, what: str, *values: Any) -> None:
        """One line of the trace; values are put into words only if somebody reads it."""
        self.trace.append((self.steps, self.now_ms - START_MS, who, what, values))

    # -- processes -------------------------------------------------------------------------------------

    def start(self, node: int) -> None:
        """Start a node's process from what its disk holds."""
        sim = self.nodes[node]
        assert sim.process is None
        sim.boot = self.next_boot(sim)
        sim.clock_ms = sim.wall_ms
        sim.paused = sim.flush_planned = sim.syncing = sim.sync_fails = False
        sim.doom = None
        sim.inbox.clear()
        sim.links_up.clear()
        self.touched[node] = sim
        self.note(f"n{node}", "start", "boot", sim.boot - START_MS)
        sim.process = self._start(self, sim)
        boot = sim.boot
        self.after(self.random.randint(1, TICK_MS), lambda: self._tick(sim, boot))
        for other in self.nodes:
            if other != node:
                self._plan_connect(node, other)
                self._plan_connect(other, node)
        self.wake(sim)

    def next_boot(self, sim: SimNode) -> int:
        """The boot epoch of a process that is about to start, higher than any before it on this disk."""
        return max(sim.boot + 1, self.now_ms)

    def crash(self, node: int, kept: int | None = None) -> None:
        """The process ends; of the turns under way `kept` (drawn if None) had reached the disk."""
        sim = self.nodes[node]
        if sim.process is None:
            return
        under_way = len(sim.disk.under_way)
        count = self.random.randint(0, under_way) if kept is None else min(kept, under_way)
        self.touched[node] = sim
        self.note(f"n{node}", "crash", count, "of", under_way, "turns kept")
        sim.process = None
        sim.disk.crash(count)
        for hook in self.on_crash:
            hook(sim)
        for other in self.nodes.values():
            if other.id != node and node in other.links_up:
                self._plan_lost(other, node, refused=not self.rules[(other.id, node)].cut)

    def _plan_lost(self, sim: SimNode, peer: int, *, refused: bool) -> None:
        boot = sim.boot
        lost = self.nodes[peer].boot

        def lose() -> None:
            if sim.process is not None and sim.boot == boot and peer in sim.links_up:
                sim.links_up.discard(peer)
                gone = refused and self.nodes[peer].process is None and self.nodes[peer].boot == lost
                self.note(f"n{sim.id}", "link down", f"n{peer}", "refused" if gone else "")
                self.touched[sim.id] = sim
                sim.process.peer_down(peer, refused=gone)
                self.wake(sim)

        self.after(self.random.randint(0, 5), lose)

    def _plan_connect(self, node: int, peer: int) -> None:
        self.after(self.random.randint(1, 20), lambda: self._connect(node, peer))

    def _connect(self, node: int, peer: int) -> None:
        sim, other = self.nodes[node], self.nodes[peer]
        if sim.process is None or peer in sim.links_up or other.process is None:
            return
        if self.rules[(node, peer)].cut or self.rules[(peer, node)].cut or sim.paused or other.paused:
            self._plan_connect(node, peer)
            return
        sim.links_up.add(peer)
        self._arrivals.pop((node, peer), None)  # what an earlier connection left behind may come later
        self.note(f"n{node}", "link up", f"n{peer}")
        self.touched[node] = sim
        sim.process.peer_up(peer, other.boot)
        self.wake(sim)

    def pause(self, node: int) -> None:
        """The process stands still, and finds its messages when it goes on."""
        self.note(f"n{node}", "pause")
        self.nodes[node].paused = True

    def resume(self, node: int) -> None:
        """It goes on."""
        sim = self.nodes[node]
        if not sim.paused:
            return
        self.note(f"n{node}", "go on")
        sim.paused = False
        inbox, sim.inbox = sim.inbox, []
        for action in inbox:
            if sim.process is not None:
                action()
        self.wake(sim)
        if sim.disk.under_way and not sim.syncing:
            self._plan_sync(sim)

    def _tick(self, sim: SimNode, boot: int) -> None:
        if sim.process is None or sim.boot != boot:
            return
        if not sim.paused:
            self.touched[sim.id] = sim
            sim.process.tick(self.now_ms + sim.clock_ms)
            sim.process.ask_all_if_late(self.now_ms + sim.clock_ms)
            self.wake(sim)
        self.after(TICK_MS, lambda: self._tick(sim, boot))

    def wake(self, sim: SimNode) -> None:
        """The node has something to do: a turn soon."""
        if not sim.flush_planned and sim.process is not None:
            sim.flush_planned = True
            boot = sim.boot
            self.after(0, lambda: self._flush(sim, boot))

    def _flush(self, sim: SimNode, boot: int) -> None:
        if sim.process is None or sim.boot != boot:
            return
        sim.flush_planned = False
        if sim.paused:
            return
        self.touched[sim.id] = sim
        turn = sim.process.flush(self.now_ms + sim.clock_ms)
        if turn.writes or turn.envelopes:
            self.note(f"n{sim.id}", "turn", turn)
        self._carry_out(sim, turn)
        if turn.more and sim.process is not None:
            self.wake(sim)

    def _carry_out(self, sim: SimNode, turn: Any) -> None:
        """Do what a turn says, as a node's shell does; a doomed process gets only so far."""
        left = sim.doom
        if left == 0:
            self.crash(sim.id)
            return
        for peer in sorted(turn.envelopes):
            if left is not None:
                left -= 1
                if left == 0:
                    self.crash(sim.id)
                    return
            self._send(sim, peer, turn.envelopes[peer])
        if turn.writes:
            sim.disk.submit(turn.number, turn.writes)
            if not sim.syncing:
                self._plan_sync(sim)
        if left is not None:
            self.crash(sim.id)
            return
        for hook in self.on_turn:
            hook(sim, turn)

    # -- disks -----------------------------------------------------------------------------------------

    def _plan_sync(self, sim: SimNode) -> None:
        sim.syncing = True
        boot = sim.boot
        count = len(sim.disk.under_way)

        def sync() -> None:
            if sim.process is None or sim.boot != boot:
                return
            sim.syncing = False
            if sim.paused:
                return
            self.touched[sim.id] = sim
            if sim.sync_fails:
                sim.sync_fails = False
                self.sync_failed(sim, count)
                return
            self.synced(sim, sim.disk.sync(count))

        self.after(self.random.randint(*sim.sync_ms), sync)

    def synced(self, sim: SimNode, number: int) -> None:
        """The turns up to `number` are durable, as far as the process is told."""
        self.note(f"n{sim.id}", "synced", number)
        assert sim.process is not None
        sim.process.persisted(number)
        self.wake(sim)
        if sim.disk.under_way:
            self._plan_sync(sim)

    def sync_failed(self, sim: SimNode, count: int) -> None:
        """The disk could not make `count` turns durable: nobody knows what it holds, and the process ends."""
        self.note(f"n{sim.id}", "sync failed", count, "turns")
        self.crash(sim.id)

    # -- links -----------------------------------------------------------------------------------------

    def _send(self, sim: SimNode, peer: int, envelope: Envelope) -> None:
        for hook in self.on_send:
            hook(sim, envelope)
        rules = self.rules[(sim.id, peer)]
        if rules.cut or peer not in sim.links_up or self.random.randrange(100) < rules.loss:
            return
        if rules.bytes_max is not None and size_of(envelope) > rules.bytes_max:
            return
        copies = 2 if self.random.randrange(100) < rules.double else 1
        for _ in range(copies):
            at_ms = self.now_ms + self.random.randint(*rules.delay_ms)
            if rules.is_ordered:
                at_ms = max(at_ms, self._arrivals.get((sim.id, peer), 0))
                self._arrivals[sim.id, peer] = at_ms
            self.after(at_ms - self.now_ms, lambda: self._arrive(sim.id, peer, envelope))

    def _arrive(self, source: int, target: int, envelope: Envelope) -> None:
        sim = self.nodes[target]
        if sim.process is None or self.rules[(source, target)].cut:
            return
        if sim.paused:
            sim.inbox.append(lambda: self._arrive(source, target, envelope))
            return
        self.note(f"n{target}", "receive", f"n{source}", envelope)
        self.touched[target] = sim
        sim.process.receive(envelope)
        self.wake(sim)

    def cut(self, source: int, target: int) -> None:
        """Nothing passes from source to target; both notice only by silence."""
        self.note(f"n{source}", "cut", f"n{target}")
        self.rules[(source, target)].cut = True

    def break_link(self, source: int, target: int) -> None:
        """The connection between two nodes breaks; it is made again when nothing is cut."""
        self.note(f"n{source}", "break", f"n{target}")
        for a, b in ((source, target), (target, source)):
            self._plan_lost(self.nodes[a], b, refused=False)
            self.after(10, lambda a=a, b=b: self._plan_connect(a, b))  # type: ignore[misc]

    def heal(self) -> None:
        """All links work as new."""
        self.note("-", "heal")
        self.rules = {pair: LinkRules() for pair in self.rules}


def size_of(envelope: Envelope) -> int:
    """About how many bytes an envelope has on the wire."""
    size = sum(len(batch.data) for batch in envelope.batches)
    for _, message in envelope.messages:
        size += 32 + sum(len(entry.data) for entry in getattr(message, "entries", ()))
    return size + sum(1000 for _ in envelope.parts)
