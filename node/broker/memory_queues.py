"""The queue machine of a node's memory: other nodes may ask whether a queue is there.

Nobody but its own node hears what it replies. So a question of another node becomes an effect, and the answer is a
command into the memory of the node that asked (see `node.core`).
"""

from cluster.machine import Meta
from node.broker import commands_read
from node.broker.commands import Kind
from node.broker.effects import Probed, Reply
from node.broker.queue import QueueMachine


class MemoryQueueMachine(QueueMachine):
    """See the module."""

    def __init__(self, local_node: int) -> None:
        super().__init__(local_node)
        self._handlers[Kind.PROBE] = self._probe
        self._handlers[Kind.ANSWER] = self._answer

    def _probe(self, meta: Meta, data: bytes, _offset: int, body: int, end: int) -> None:
        ticket, uid = commands_read.decode_pair(data, body, end)
        self._effects.append(Probed(meta.origin, ticket, self.has_queue(uid)))

    def _answer(self, _meta: Meta, data: bytes, _offset: int, body: int, end: int) -> None:
        self._effects.append(Reply(*commands_read.decode_pair(data, body, end)))
