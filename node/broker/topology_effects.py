"""What the metadata group tells a node: replies to its own sessions, and changes that every node must act on.

`effects.Reply(ticket, value)` goes only to the node that submitted the command. Its value is a result below,
None, or an AmqpError (not raised). The other effects go out on every node, in the order in which things
happened.
"""

from enum import Enum
from typing import NamedTuple

from node.broker.records import ExchangeRecord, QueueRecord


class QueueDeclared(NamedTuple):
    """Reply to declare_queue: the queue as it is, and whether this command made it."""

    record: QueueRecord
    created: bool


class ExchangeDeclared(NamedTuple):
    """Reply to declare_exchange: the exchange as it is, and whether this command made it."""

    record: ExchangeRecord
    created: bool


class Reason(Enum):
    """Why a queue is gone."""

    DELETED = "deleted"  # delete_queue: its shard has deleted it already
    SESSION_CLOSED = "session closed"  # exclusive: its owner closed
    ORIGIN_GONE = "origin gone"  # exclusive: its owner's node ended
    VHOST_DELETED = "vhost deleted"


class QueueDeleted(NamedTuple):
    """A queue is gone from the topology, with its bindings.

    Its group must drop it too where the reason is not DELETED: the owner's node for an exclusive queue (the
    node that ended needs nothing), the shard's leader for the rest. Its consumers are told by the group's
    machine.
    """

    record: QueueRecord
    reason: Reason


class VhostDeleted(NamedTuple):
    """Connections to this vhost must be closed. The QueueDeleted of its queues came before."""

    name: str


class UserChanged(NamedTuple):
    """Password, tags or permissions of a user changed, or the user is gone."""

    name: str
    deleted: bool
