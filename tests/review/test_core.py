"""The node's duties towards its own memory."""

import random

from cluster.host import HostOptions
from cluster.types import MEMORY_GROUP, Configuration
from node.amqp.handshake import Options as AmqpOptions
from node.broker import commands
from node.core import NodeCore
from node.session.shared import Options
from tests.sim.disk import Disk

START_MS = 1_700_000_000_000


def test_memory_keeps_no_queue_that_the_metadata_has_lost() -> None:
    """When the node's epoch ends it is not told which of its exclusive queues went with it."""
    disk = Disk()
    for group in (0, 1):
        disk.form(group, Configuration((1,)))
    options = HostOptions(1, (1,), boot=START_MS, election_ticks=4)
    core = NodeCore(
        options,
        Options(amqp=AmqpOptions()),
        1,
        disk,
        draw=random.Random(1).randint,
        draw_bytes=bytes,
        now_ms=START_MS,
    )
    memory = MEMORY_GROUP + 1
    core.submit(memory, commands.create_queue(0, 1 << 16, commands.QueueConfig(exclusive=True).encode()))
    core.submit(memory, commands.enqueue(0, [1 << 16], b"\x00\x00", 1, bytes(30)))
    machine = core.machine(memory)
    assert machine is not None
    seen = False
    for tick in range(100):
        core.tick(START_MS + 50 * tick)
        for _ in range(4):
            turn = core.flush(START_MS + 50 * tick)
            seen = seen or machine.has_queue(1 << 16)
            if turn.writes:
                disk.submit(turn.number, turn.writes)
                core.persisted(disk.sync())
    assert seen and not machine.has_queue(1 << 16)
    assert core.host.memory.entries == {}
