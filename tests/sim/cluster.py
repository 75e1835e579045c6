"""A simulated cluster of whole nodes, and client connections to them: bytes in, bytes out, no sockets."""

import random
from collections.abc import Callable, Iterable
from typing import Any

from cluster.host import HostOptions
from cluster.placement import first_configuration
from node.amqp import Options as AmqpOptions
from node.core import CoreTurn, NodeCore
from node.session.ports import CheckLogin, Close, PauseReading, ResumeReading, Write
from node.session.shared import Options as SessionOptions
from tests.amqp_client import AmqpClient, ClientEvent
from tests.sim.history import Violation
from tests.sim.limits import Limits
from tests.sim.world import SimNode, World


class SimClient:
    """A client connected to one node. `events` collects what the server said, unless `on_event` is told at once.

    `on_gone` is called when the connection has ended, for whatever reason.
    """

    def __init__(
        self,
        cluster: "SimCluster",
        node: int,
        on_event: Callable[[ClientEvent], None] | None = None,
        on_gone: Callable[[], None] | None = None,
    ) -> None:
        self.cluster = cluster
        self.node = node
        self.boot = cluster.world.nodes[node].boot
        self.amqp = AmqpClient(frame_max=cluster.limits.frame_max)
        self.events: list[ClientEvent] = []
        self.on_event = on_event
        self.on_gone = on_gone
        self.is_open = self.is_writable = True
        self.conn = cluster.connect(self)
        self._paused: list[bytes] | None = None
        self.amqp.open()
        self.flush()

    def flush(self) -> None:
        """Send what the client wants sent, in order, after a moment."""
        data = self.amqp.data_to_send()
        if data and self.is_open:
            self.cluster.world.after(1, lambda: self._deliver(data))

    def _deliver(self, data: bytes) -> None:
        if not self.is_open:
            return
        if self._paused is not None:
            self._paused.append(data)
            return
        world = self.cluster.world
        sim = world.nodes[self.node]
        if sim.paused:
            sim.inbox.append(lambda: self._deliver(data))
            return
        world.note(f"n{self.node}", "client says", self.conn, len(data), "bytes")
        world.touched[self.node] = sim
        self.cluster.cores[self.node].frontend.receive(self.conn, data)
        world.wake(sim)

    def received(self, data: bytes) -> None:
        """The server's bytes arrived."""
        if not self.is_open:
            return
        for event in self.amqp.receive_data(data):
            if self.on_event is None:
                self.events.append(event)
            elif self.is_open:
                self.on_event(event)
        self.flush()

    @property
    def is_paused(self) -> bool:
        """Whether its node stands still."""
        return self.cluster.world.nodes[self.node].paused

    def pause(self) -> None:
        """The server stopped reading."""
        if self._paused is None:
            self._paused = []

    def resume(self) -> None:
        """It reads again."""
        held, self._paused = self._paused, None
        for data in held or []:
            self._deliver(data)

    def set_writable(self, *, is_writable: bool) -> None:
        """The client's socket takes no more for now, or does again."""
        self.is_writable = is_writable
        sim = self.cluster.world.nodes[self.node]
        if self.is_open and sim.process is not None and sim.boot == self.boot:
            self.cluster.cores[self.node].frontend.writable(self.conn, is_writable)
            self.cluster.world.wake(sim)

    def drop(self) -> None:
        """The connection breaks; the server notices."""
        if self.is_open:
            self.ended()
            self.cluster.disconnect(self)

    def ended(self) -> None:
        """The connection is no more."""
        if self.is_open:
            self.is_open = False
            if self.on_gone is not None:
                self.on_gone()


class WatchedFrontend:
    """A node's sessions; what its groups tell them must answer this process, not one before it."""

    def __init__(self, core: NodeCore) -> None:
        self._core = core
        self._frontend = core.frontend

    def __getattr__(self, name: str) -> Any:
        return getattr(self._frontend, name)

    def on_effects(self, group: int, effects: Iterable[object]) -> None:
        """Effects name tickets and consumers by numbers that the process has given out."""
        for effect in effects:
            number = getattr(effect, "ticket", getattr(effect, "consumer", 0))
            if number > self._core._ids:
                raise Violation("effect of an earlier process", f"n{self._core.node_id} g{group} {effect}")
        self._frontend.on_effects(group, effects)


class SimCluster:
    """Nodes of a `World` that are whole `NodeCore`s."""

    def __init__(self, seed: int, nodes: int = 3, shards: int = 3, limits: Limits | None = None) -> None:
        self.shards = shards
        self.limits = limits or Limits()
        self.cores: dict[int, NodeCore] = {}
        self.clients: dict[tuple[int, int], SimClient] = {}
        self._conns = 0
        self.world = World(seed, nodes, self._start)
        for sim in self.world.nodes.values():
            for group in range(shards + 1):
                sim.disk.form(group, first_configuration(group, tuple(self.world.nodes), 3))
        self.world.on_turn.append(self._on_turn)
        self.world.on_crash.append(lambda sim: self._drop_clients(sim.id))
        for node in self.world.nodes:
            self.world.start(node)

    def _start(self, world: World, sim: SimNode) -> NodeCore:
        self._drop_clients(sim.id)
        limits = self.limits
        options = HostOptions(
            sim.id,
            tuple(world.nodes),
            sim.boot,
            election_ticks=limits.election_ticks,
            heartbeat_ticks=limits.heartbeat_ticks,
            silent_ms_max=limits.silent_ms_max,
        )
        rng = random.Random(world.random.random())
        sessions = SessionOptions(
            AmqpOptions(frame_max=limits.frame_max, run_bytes_max=limits.run_bytes_max),
            connection_bytes_max=limits.connection_bytes_max,
            output_bytes_max=limits.output_bytes_max,
            request_timeout_ms=limits.request_timeout_ms,
        )
        core = NodeCore(
            options,
            sessions,
            self.shards,
            sim.disk,
            draw=rng.randint,
            draw_bytes=rng.randbytes,
            now_ms=world.now_ms + sim.clock_ms,
        )
        core.frontend = WatchedFrontend(core)  # type: ignore[assignment]  # it stands in for a Frontend
        self.cores[sim.id] = core
        return core

    def connect(self, client: SimClient) -> int:
        """A new socket to the client's node."""
        self._conns += 1
        sim = self.world.nodes[client.node]
        assert sim.process is not None
        self.clients[(client.node, self._conns)] = client
        self.cores[client.node].frontend.connect(self._conns, "sim", loopback=True)
        self.world.wake(sim)
        return self._conns

    def disconnect(self, client: SimClient) -> None:
        """The socket is gone."""
        if self.clients.pop((client.node, client.conn), None) is not None:
            sim = self.world.nodes[client.node]
            if sim.process is not None and sim.boot == client.boot:
                self.cores[client.node].frontend.disconnect(client.conn)
                self.world.wake(sim)

    def _on_turn(self, sim: SimNode, turn: CoreTurn) -> None:
        for output in turn.outputs:
            self._carry_out(sim, output)

    def _carry_out(self, sim: SimNode, output: Any) -> None:
        world = self.world
        client = self.clients.get((sim.id, output.conn))
        if client is None:
            return
        match output:
            case CheckLogin():
                core = self.cores[sim.id]
                world.after(1, lambda: self._login(sim, core, output))
            case Write():
                client.received(b"".join(output.chunks))
            case Close():
                world.after(2, client.drop)
            case PauseReading():
                client.pause()
            case ResumeReading():
                client.resume()

    def _login(self, sim: SimNode, core: NodeCore, output: CheckLogin) -> None:
        if self.cores[sim.id] is core:
            core.frontend.login_result(output.conn, output.user)
            self.world.wake(sim)

    def crash(self, node: int) -> None:
        """A node's process ends, and its clients' connections with it."""
        self.world.crash(node)

    def _drop_clients(self, node: int) -> None:
        for key in [key for key in self.clients if key[0] == node]:
            self.clients.pop(key).ended()
