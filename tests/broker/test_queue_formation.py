"""A machine that began with no saved rows must save enough to be read back."""

from cluster.machine import Meta
from node.broker import commands
from node.broker.commands import QueueConfig
from node.broker.queue import QueueMachine


def test_state_saved_after_an_empty_restore_is_read_back() -> None:
    """A node that forms a cluster restores nothing, saves, and restarts."""
    machine = QueueMachine(1)
    machine.restore([])
    machine.apply(Meta(1, 0, 1), b"".join(commands.create_queue(1, 7, QueueConfig().encode())), 0)
    saved = {key: value for key, value in machine.checkpoint(full=False) if value is not None}
    other = QueueMachine(1)
    other.restore(saved.items())
    assert other.state_bytes() == machine.state_bytes()
    assert other.has_queue(7)
