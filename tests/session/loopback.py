"""A broker of one node, pure: a Frontend on real machines, where every submitted command is applied at once.

`held` groups apply nothing, as if they had no quorum. Time passes only by `tick`.
"""

from collections.abc import Sequence
from typing import Any

from cluster.machine import Meta
from cluster.types import MEMORY_GROUP, METADATA_GROUP
from node.amqp.handshake import Options as AmqpOptions
from node.broker import commands
from node.broker.effects import Probed, Reply
from node.broker.memory_queues import MemoryQueueMachine
from node.broker.queue import QueueMachine
from node.broker.topology import TopologyMachine
from node.broker.topology_effects import QueueDeleted, Reason
from node.session.frontend import Frontend
from node.session.ports import CheckLogin, Close, PauseReading, ResumeReading, Write
from node.session.shared import Options
from tests.session.client import Client

NODE = 1
OTHER_NODE = 2
SHARDS = 2
HEADER_BYTES = 18


class Loopback:
    """Implements `node.session.ports.NodePort` and the shell's duties."""

    def __init__(self, **bounds: Any) -> None:
        self.node_id = NODE
        self.topology = TopologyMachine(NODE)
        self.machines: dict[int, QueueMachine] = {group: QueueMachine(NODE) for group in range(1, SHARDS + 1)}
        self.machines[MEMORY_GROUP + NODE] = MemoryQueueMachine(NODE)
        self.other_memory = MemoryQueueMachine(OTHER_NODE)
        self.entries: dict[tuple[int, int], bytes] = {}
        self.held: dict[int, None] = {}
        self.patient = 0  # of these, commands that nobody waits for
        self.submitted = 0
        self.commands: list[tuple[int, bytes]] = []  # of this node: group, command
        self._indexes: dict[int, int] = {}
        self._waiting: dict[int, list[tuple[int, tuple[bytes, ...]]]] = {}
        self._barriers: list[tuple[int, int]] = []
        self._now_ms = 1000
        self._ids = 0
        self._conns = 0
        self.frontend = Frontend(Options(amqp=AmqpOptions(), **bounds), self)
        self.clients: dict[int, Client] = {}

    # NodePort

    def machine(self, group: int) -> QueueMachine | None:
        """The replica."""
        return self.machines.get(group)

    def submit(self, group: int, parts: tuple[bytes, ...], *, is_patient: bool = False) -> None:
        """Queue a command of this node."""
        self.submitted += 1
        self.patient += is_patient
        self.commands.append((group, b"".join(parts)))
        assert self.has_group(group)
        self._waiting.setdefault(group, []).append((NODE, parts))

    def has_group(self, group: int) -> bool:
        """Two nodes and the shards."""
        return group in {METADATA_GROUP, MEMORY_GROUP + OTHER_NODE, *self.machines}

    def barrier(self, group: int, ticket: int) -> None:
        """Passed when all that was submitted before is applied."""
        self._barriers.append((group, ticket))

    def heed_metadata(self, *, is_needed: bool) -> None:
        """Whether it was said last that somebody routes."""
        self.topology.is_needed = is_needed

    def entry_data(self, group: int, index: int) -> bytes:
        """Data of a live entry."""
        return self.entries[group, index]

    def place(self, vhost: str, name: str) -> int:
        """Any shard."""
        return 1 + len(vhost + name) % SHARDS

    def now_ms(self) -> int:
        """Time of the test."""
        return self._now_ms

    def next_id(self) -> int:
        """The next number."""
        self._ids += 1
        return self._ids

    def draw(self, size_bytes: int) -> bytes:
        """Not random, but never the same."""
        return self.next_id().to_bytes(size_bytes, "little")

    # The rest of the cluster

    def submit_elsewhere(self, group: int, parts: tuple[bytes, ...]) -> None:
        """A command of another node."""
        self._waiting.setdefault(group, []).append((OTHER_NODE, parts))

    def drop_held(self, group: int) -> None:
        """The node's epoch in a group ends: what was submitted and not applied never will be."""
        del self.held[group]
        self._waiting.pop(group, None)

    def waiting(self, group: int) -> list[tuple[bytes, ...]]:
        """What was submitted to a group and is not applied, in pieces."""
        return [parts for _, parts in self._waiting.get(group, [])]

    @property
    def barriers_waiting(self) -> int:
        """How many have been asked for and have not passed."""
        return len(self._barriers)

    def drop_barriers(self) -> None:
        """The node's epoch ends: no barrier passes that was asked for in it."""
        self._barriers.clear()

    # The shell

    def connect(self, *, loopback: bool = True) -> Client:
        """A new socket; nothing has been said on it."""
        self._conns += 1
        client = Client(self._conns, self._receive)
        self.clients[client.conn] = client
        self.frontend.connect(client.conn, "127.0.0.1", loopback=loopback)
        return client

    def lose(self, client: Client) -> None:
        """The socket breaks."""
        del self.clients[client.conn]
        self.frontend.disconnect(client.conn)
        self.run()

    def tick(self, time_ms: int) -> None:
        """Let time pass."""
        self._now_ms += time_ms
        self.frontend.tick()
        for group, machine in self.machines.items():
            if 0 < machine.due_ts <= self._now_ms:
                self.submit(group, commands.tick())
        self.run()

    def writable(self, client: Client, *, is_writable: bool) -> None:
        """The socket's buffer is full, or is not."""
        self.frontend.writable(client.conn, is_writable)
        self.run()

    def run(self) -> None:
        """Turns until nothing moves."""
        while self._apply() or self._pass_barriers() or self._output():
            pass
        self._forward_letters()

    def _forward_letters(self) -> None:
        """What the leader's node does for dead letters."""
        before = (self.submitted, len(self._barriers))
        for group, machine in self.machines.items():
            if lettered := machine.duties().lettered:
                self.frontend.letters.forward(group, lettered)
        if (self.submitted, len(self._barriers)) != before:
            self.run()

    def _receive(self, client: Client, data: bytes) -> None:
        self.frontend.receive(client.conn, data)
        self.run()

    def _apply(self) -> bool:
        groups = [group for group in self._waiting if group not in self.held]
        for group in groups:
            for origin, parts in self._waiting.pop(group):
                index = self._indexes[group] = self._indexes.get(group, 0) + 1
                data = bytes(HEADER_BYTES) + b"".join(parts)
                meta = Meta(index, self._now_ms, origin)
                if group == MEMORY_GROUP + OTHER_NODE:
                    self._apply_elsewhere(meta, data, parts)
                    continue
                machine = self.machines.get(group, self.topology)
                self.entries[group, index] = data
                effects = machine.apply(meta, data, HEADER_BYTES)
                self.frontend.on_effects(group, effects)
                self._drop_memory_queues(effects)
                for dead in machine.take_dead():
                    del self.entries[group, dead]
                if index not in machine.live():
                    self.entries.pop((group, index), None)
        return bool(groups)

    def _apply_elsewhere(self, meta: Meta, data: bytes, parts: tuple[bytes, ...]) -> None:
        """What the other node does, and what this one makes of it."""
        for effect in self.other_memory.apply(meta, data, HEADER_BYTES):
            if isinstance(effect, Probed):
                self.submit_elsewhere(
                    MEMORY_GROUP + effect.origin, commands.answer(effect.question, effect.is_here)
                )
        replies = [Reply(ticket, 0) for ticket in commands.tickets(parts)]
        self.frontend.on_effects(MEMORY_GROUP + OTHER_NODE, replies)

    def _drop_memory_queues(self, effects: Sequence[object]) -> None:
        for effect in effects:
            if isinstance(effect, QueueDeleted) and effect.reason is not Reason.DELETED:
                uid = effect.record.uid
                delete = commands.delete_queue(0, uid, if_unused=False, if_empty=False)
                self.submit(effect.record.group, delete)

    def _pass_barriers(self) -> bool:
        passed = [(group, ticket) for group, ticket in self._barriers if group not in self.held]
        self._barriers = [(group, ticket) for group, ticket in self._barriers if group in self.held]
        for _, ticket in passed:
            self.frontend.on_barrier(ticket)
        return bool(passed)

    def _output(self) -> bool:
        outputs = self.frontend.take_output()
        for output in outputs:
            client = self.clients.get(output.conn)
            assert client is not None, f"{output} for a socket that is gone"
            match output:
                case Write(_, chunks):
                    client.feed(chunks)
                case Close(conn):
                    client.is_closed = True
                    del self.clients[conn]
                    self.frontend.disconnect(conn)
                case PauseReading():
                    client.paused = True
                case ResumeReading():
                    client.paused = False
                case CheckLogin(conn, _, user, password):
                    self.frontend.login_result(conn, user if password == user else None)
        return bool(outputs) or self.frontend.has_work
