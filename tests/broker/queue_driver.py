"""Drives queue machines with commands: one replica on each of two nodes, and a shadow of their store."""

from collections.abc import Sequence
from typing import Any

from cluster.machine import Meta
from node.broker import commands
from node.broker.commands import Options, Parts, QueueConfig
from node.broker.effects import Cancelled, Deliver, QueueEffect, Reply, Slice
from node.broker.queue import QueueMachine
from node.broker.values import encode_table

HEADER_BYTES = 18
NODES = (1, 2)
TICKET = 9
CONFIG = QueueConfig().encode()


def packed(count: int, size: int = 0) -> bytes:
    """Return `count` records with empty headers and bodies of `size` bytes."""
    return (b"\0\0\0\0" + size.to_bytes(4, "big") + bytes(size)) * count


def enqueue(
    uids: Sequence[int], count: int, records: bytes | None = None, *, ticket: int = TICKET
) -> commands.Parts:
    """Return the command that puts a run into queues."""
    return commands.enqueue(
        ticket, commands.targets(uids), count, [packed(count) if records is None else records]
    )


def config(**arguments: Any) -> bytes:
    """Return the configuration of a queue with arguments, `x_max_length` for x-max-length."""
    table = {name.replace("_", "-"): value for name, value in arguments.items()}
    return QueueConfig(arguments=encode_table(table)).encode()


def enqueue_with(
    uids: Sequence[int], count: int, records: bytes | None = None, *, ticket: int = TICKET, **options: Any
) -> commands.Parts:
    """Return the command that puts a run with options into queues."""
    packed_records = packed(count) if records is None else records
    return commands.enqueue_with(ticket, commands.targets(uids), count, [packed_records], Options(**options))


def slices_of(effects: list[QueueEffect], consumer: int) -> list[Slice]:
    """Return what the effects deliver to a consumer."""
    return [
        slice_
        for effect in effects
        if isinstance(effect, Deliver) and effect.consumer == consumer
        for slice_ in effect.slices
    ]


def records_of(effects: list[QueueEffect], consumer: int) -> list[tuple[int, int]]:
    """Return (log index, record number) of each message that the effects deliver to a consumer."""
    return [
        (slice_.index, record)
        for slice_ in slices_of(effects, consumer)
        for record in range(slice_.first_record, slice_.first_record + slice_.count)
    ]


def replies(effects: list[QueueEffect]) -> list[object]:
    """Return the values of all replies."""
    return [effect.value for effect in effects if isinstance(effect, Reply)]


def cancelled(effects: list[QueueEffect]) -> list[int]:
    """Return the consumers that the effects cancel."""
    return [effect.consumer for effect in effects if isinstance(effect, Cancelled)]


class Driver:
    """Two replicas of one machine that apply the same log."""

    def __init__(self) -> None:
        self.machines = {node: QueueMachine(node) for node in NODES}
        self.store: dict[bytes, bytes] = {}
        self.log: list[tuple[Meta, bytes | None]] = []
        self.index = 0
        self.ts = 1000

    @property
    def machine(self) -> QueueMachine:
        """The replica on node 1."""
        return self.machines[1]

    def run(self, *batch: Parts, origin: int = 1) -> list[QueueEffect]:
        """Apply commands as one log entry; returns the effects at its origin."""
        data = bytes(HEADER_BYTES) + b"".join(b"".join(parts) for parts in batch)
        return self.run_everywhere(data, origin)[origin]

    def run_everywhere(self, data: bytes, origin: int = 1) -> dict[int, list[QueueEffect]]:
        """Apply the data of an entry; returns the effects at each node."""
        meta = self._next(origin, data)
        return {node: machine.apply(meta, data, HEADER_BYTES) for node, machine in self.machines.items()}

    def origin_gone(self, origin: int) -> dict[int, list[QueueEffect]]:
        """End a node's process; returns the effects at each node."""
        meta = self._next(origin, None)
        return {node: machine.origin_gone(meta) for node, machine in self.machines.items()}

    def checkpoint(self) -> None:
        """Bring the shadow store up to date with the incremental rows of node 1."""
        for key, value in self.machine.checkpoint(full=False):
            if value is None:
                self.store.pop(key, None)
            else:
                self.store[key] = value

    def wait(self, ms: int) -> list[QueueEffect]:
        """Let time pass, then have the leader say so; returns the effects at node 1."""
        self.ts += ms - 1
        return self.run(commands.tick())

    def restored(self) -> QueueMachine:
        """Return a machine for node 1 that starts from the shadow store."""
        machine = QueueMachine(1)
        machine.restore(self.store.items())
        return machine

    def queue(self, uid: int = 7, config: bytes = CONFIG) -> None:
        """Create a queue."""
        self.run(commands.create_queue(TICKET, uid, config))

    def publish(self, count: int, *uids: int) -> list[QueueEffect]:
        """Enqueue one run as one entry (to queue 7 unless told otherwise)."""
        return self.run(enqueue(uids or (7,), count))

    def attach(
        self,
        consumer: int,
        uid: int = 7,
        *,
        prefetch: int = 0,
        origin: int = 1,
        exclusive: bool = False,
        no_ack: bool = False,
        priority: int = 0,
        session: int = 0,
    ) -> list[QueueEffect]:
        """Attach a consumer in a session of its own (with the same number), unless one is given."""
        command = commands.attach(
            TICKET,
            session or consumer,
            consumer,
            uid,
            prefetch=prefetch,
            no_ack=no_ack,
            exclusive=exclusive,
            priority=priority,
        )
        return self.run(command, origin=origin)

    def _next(self, origin: int, data: bytes | None) -> Meta:
        self.index += 1
        self.ts += 1
        meta = Meta(self.index, self.ts, origin)
        self.log.append((meta, data))
        return meta
