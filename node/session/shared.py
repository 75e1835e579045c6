"""What all sessions of a node share: the way to the groups, open tickets, consumers by id, the output."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from node.session.locator import Locator
from node.session.opening import CatchUp
from node.session.plans import Plans
from node.session.ports import NodePort, Output
from node.session.pressure import Pressure
from node.session.tickets import Tickets

if TYPE_CHECKING:
    from node.amqp import Options as AmqpOptions
    from node.session.deliver import Consumer
    from node.session.session import Session

ENSURED_MAX = 65536
"""How many queues are remembered as handed to their shard before the memory starts anew."""


@dataclass(slots=True, frozen=True)
class Options:
    """Bounds and rules of a node's sessions.

    Args:
        amqp: for each connection's protocol core.
        connection_bytes_max: handed in by one connection and not applied yet; above, it is not read.
        node_bytes_max: the same for all connections together.
        output_bytes_max: frames built for one connection in one turn; deliveries beyond wait as references.
        request_timeout_ms: how long a request waits for a quorum.
        loopback_users: who may only come from this host.
    """

    amqp: "AmqpOptions"
    connection_bytes_max: int = 8 << 20
    node_bytes_max: int = 256 << 20
    output_bytes_max: int = 3 << 19
    request_timeout_ms: int = 10_000
    loopback_users: tuple[str, ...] = ("guest",)


class Shared:
    """One per node; see the module."""

    __slots__ = (
        "_plans", "catch_up", "consumers", "dirty", "ensured", "locator", "node", "options", "outputs", "pressure",
        "stalled", "tickets", "untold",
    )  # fmt: skip

    def __init__(self, options: Options, node: NodePort) -> None:
        self.options = options
        self.node = node
        self.catch_up = CatchUp(node)
        self.outputs: list[Output] = []
        self.tickets = Tickets(node, options.request_timeout_ms)
        self.pressure = Pressure(options.connection_bytes_max, options.node_bytes_max, self.outputs)
        self.locator = Locator(node)
        self.consumers: dict[int, Consumer] = {}
        self.untold: dict[int, Consumer] = {}  # whose group was not told of all that was sent without acks
        self.dirty: dict[int, Session] = {}  # connections with something to send
        self.stalled: dict[int, Session] = {}  # writable connections whose turn's output was used up
        self.ensured: dict[int, None] = {}  # uids for which this node has submitted create_queue
        self._plans: dict[tuple[str, str], Plans] = {}  # by vhost and user; both are made by administrators

    def plans_of(self, vhost: str, user: str) -> Plans:
        """What is known of the ways of messages that a user publishes in a vhost."""
        plans = self._plans.get((vhost, user))
        if plans is None:
            plans = self._plans[vhost, user] = Plans()
        return plans

    def forget_creations(self) -> None:
        """What was submitted may never be applied: see to it anew that a queue's group has the queue."""
        self.ensured.clear()
        for plans in self._plans.values():
            plans.forget()
