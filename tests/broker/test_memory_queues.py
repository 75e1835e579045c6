"""The queue machine of a node's memory, and what joined commands are answered by."""

import tracemalloc

from cluster.machine import Meta
from cluster.memory import MemoryGroup
from node.broker import commands
from node.broker.effects import Probed, QueueEffect, Reply
from node.broker.memory_queues import MemoryQueueMachine
from tests.broker.queue_driver import CONFIG, HEADER_BYTES, TICKET, enqueue


def _apply(machine: MemoryQueueMachine, origin: int, *batch: commands.Parts) -> list[QueueEffect]:
    data = bytes(HEADER_BYTES) + b"".join(b"".join(parts) for parts in batch)
    return machine.apply(Meta(1, 1000, origin), data, HEADER_BYTES)


def test_question_of_another_node_is_an_effect_here_and_a_reply_there() -> None:
    owner, asker = MemoryQueueMachine(1), MemoryQueueMachine(2)
    _apply(owner, 1, commands.create_queue(0, 7, CONFIG))
    effects = _apply(owner, 2, commands.probe(TICKET, 7), commands.probe(TICKET + 1, 8))
    assert effects == [Probed(2, TICKET, is_here=True), Probed(2, TICKET + 1, is_here=False)]
    answers = [commands.answer(TICKET, 1), commands.answer(TICKET + 1, 0)]
    assert _apply(asker, 1, *answers) == [Reply(TICKET, 1), Reply(TICKET + 1, 0)]


def test_tickets_of_joined_commands_are_found() -> None:
    """The owner of another memory does not reply; that it has carried all out answers each."""
    parts = (
        *enqueue([7], 2, ticket=5),
        *commands.settle(6, [(1, 2)]),
        *commands.enqueue(0, commands.targets([7, 8]), 1, [bytes(8), bytes(30)]),
        *commands.probe(8, 7),
        *commands.fence(9),
    )
    assert commands.tickets(parts) == [5, 9]


def test_queues_that_come_and_go_leave_nothing_behind() -> None:
    """An application may make a queue for each request; there is no checkpoint that would take note of its end."""
    machine = MemoryQueueMachine(1)
    group = MemoryGroup(machine, 1, 1)

    def attach(uid: int) -> commands.Parts:
        return commands.attach(0, uid, uid, uid, prefetch=0, no_ack=True, exclusive=False, priority=0)

    def come_and_go(first: int, count: int) -> None:
        for uid in range(first, first + count):
            group.submit(commands.create_queue(0, uid, CONFIG))
            group.submit(attach(uid))
            group.submit(enqueue([uid], 1, ticket=0))
            group.submit(commands.delete_queue(0, uid, if_unused=False, if_empty=False))
            group.collect(1000)
            group.forget_dead()

    come_and_go(1, 4_200)
    tracemalloc.start()
    come_and_go(4_201, 200)
    before, _ = tracemalloc.get_traced_memory()
    come_and_go(4_401, 5_000)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert not machine.queue_uids()
    assert after - before < 300_000, "bytes"
