"""What several requests share: names, permissions, and looking up what a request is about."""

from base64 import urlsafe_b64encode
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from cluster.types import METADATA_GROUP
from node.broker import commands
from node.broker.effects import Refusal
from node.broker.permissions import resource_name
from node.broker.records import Owner, QueueRecord
from node.broker.topology_commands import strip_name
from node.errors import AccessRefused, AmqpError, InternalError, NotFound, PreconditionFailed
from node.session.shared import ENSURED_MAX

if TYPE_CHECKING:
    from node.session.channel import ChannelSession
    from node.session.session import Session
    from node.session.shared import Shared

RANDOM_BYTES = 17
"""Drawn for a name that the server makes: 22 characters of URL-safe base64 hold 132 bits."""


def check_access(session: "Session", action: str, kind: str, name: str) -> None:
    """Raise 403 unless the user may `configure`, `write` or `read` that `queue` or `exchange`."""
    error = session.node.topology.check_access(session.user, session.vhost, action, kind, name)
    if error is not None:
        raise error


def check_may_see(session: "Session", kind: str, name: str) -> None:
    """Raise 403 unless the user may do anything with that `queue` or `exchange`: for passive declarations."""
    user, vhost, check = session.user, session.vhost, session.node.topology.check_access
    refusals = [check(user, vhost, action, kind, name) for action in ("configure", "write", "read")]
    if refusals[0] is not None and all(refusals):
        raise refusals[0]


def made_name(session: "Session", prefix: str) -> str:
    """A name nobody else has: `prefix` and 22 URL-safe characters."""
    return prefix + urlsafe_b64encode(session.node.draw(RANDOM_BYTES)).decode("ascii")[:22]


def queue_name(channel: "ChannelSession", name: str) -> str:
    """The queue that a request names; the one declared last on the channel where the name is empty.

    Raises:
        NotFound: 404, no queue was declared on this channel.
    """
    name = strip_name(name)
    if name:
        return name
    if not channel.last_queue:
        raise NotFound("no previously declared queue")
    return channel.last_queue


def current(channel: "ChannelSession", group: int) -> Generator[None, Any, None]:
    """Wait until the local replica of `group` knows all that was committed before now."""
    channel.session.node.barrier(group, channel.ask(group))
    yield


def find_queue(channel: "ChannelSession", name: str) -> Generator[None, Any, QueueRecord]:
    """The queue as the connection may use it.

    A queue that this node does not know may have been declared elsewhere a moment ago: that is checked
    before anybody is told that there is none.

    Raises:
        NotFound: 404, there is no such queue.
        ResourceLocked: 405, it belongs to another connection.
    """
    session = channel.session
    owner = Owner(session.node.node_id, session.id)
    found = session.node.topology.find_queue(session.vhost, name, owner)
    if isinstance(found, AmqpError):
        yield from current(channel, METADATA_GROUP)
        found = session.node.topology.find_queue(session.vhost, name, owner)
        if isinstance(found, AmqpError):
            raise found
    ensure(session.shared, found)
    return found


def ensure(shared: "Shared", record: QueueRecord) -> None:
    """See that the queue's group has it before the next command on the same stream names it.

    The one who declared it may have died between metadata and group. Submitted once per queue: a group that
    lacks the queue later has deleted it, and must not be given it again.
    """
    machine = shared.node.machine(record.group)
    if machine is None or machine.has_queue(record.uid):
        return
    ensured = shared.ensured
    if record.uid in ensured:
        return
    if len(ensured) >= ENSURED_MAX:
        ensured.clear()
    create(shared, record, 0)


def create(shared: "Shared", record: QueueRecord, ticket: int) -> None:
    """Hand the queue to its group; one that is there already is used by it."""
    shared.ensured[record.uid] = None
    shared.node.submit(record.group, commands.create_queue(ticket, record.uid, shard_config(record)))


def shard_config(record: QueueRecord) -> bytes:
    """What a queue's group is told of it."""
    return commands.QueueConfig(record.durable, record.exclusive, record.auto_delete, record.table).encode()


def refused(session: "Session", refusal: Refusal, name: str) -> AmqpError:
    """The client's error for what a queue's group would not do."""
    queue = resource_name("queue", name, session.vhost)
    match refusal:
        case Refusal.NO_QUEUE:
            return NotFound(f"no {queue}")
        case Refusal.EXCLUSIVE_USE:
            return AccessRefused(f"{queue} in exclusive use")
        case Refusal.IN_USE:
            return PreconditionFailed(f"{queue} in use")
        case Refusal.NOT_EMPTY:
            return PreconditionFailed(f"{queue} not empty")
        case _:
            return InternalError(f"{queue}: {refusal.value}")
