"""The queue machine of a node's memory, and what joined commands are answered by."""

from cluster.machine import Meta
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
