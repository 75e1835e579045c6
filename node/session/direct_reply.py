"""Direct reply-to: a request names `amq.rabbitmq.reply-to`, and the reply finds its way without a declared queue.

Consuming from that name makes a queue in the memory of the client's node, which ends with its consumer and of which
the metadata knows nothing. `reply-to` of a request becomes its address: the node and the number of the queue, drawn by
chance, so that only who was sent a request can reply to it. A message published to the default exchange with an address
as routing key goes to that queue, whichever node it is on; once the requester has gone, it goes nowhere.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cluster.types import MEMORY_GROUP
from node.broker import commands
from node.broker.permissions import resource_name
from node.broker.records import OUTSIDE_METADATA
from node.errors import AccessRefused, NotFound, PreconditionFailed
from node.session.script import Script
from node.wire import methods

if TYPE_CHECKING:
    from node.session.channel import ChannelSession
    from node.session.ports import NodePort
    from node.wire.properties import BasicProperties

QUEUE: Final = "amq.rabbitmq.reply-to"
"""The queue that is none: to be consumed from, and named in `reply-to`."""
_PREFIX: Final = f"{QUEUE}."
_NODE_BYTES: Final = 2
_UID_BYTES: Final = 8
_ADDRESS_CHARACTERS: Final = 14  # of base64, without its padding
_PADDING: Final = "=="


class ReplyConsumer(NamedTuple):
    """What a channel consumes its replies with.

    Args:
        tag: of the consumer.
        address: the routing key of replies.
    """

    tag: str
    address: str


def open_queue(channel: "ChannelSession", method: methods.BasicConsume, tag: str) -> tuple[int, int]:
    """Make the queue for the replies of a channel, for a consumer that is attached next; its group and uid.

    Raises:
        PreconditionFailed: 406, the consumer would acknowledge, or the channel has one already.
    """
    if not method.no_ack:
        raise PreconditionFailed("reply consumer cannot acknowledge")
    if channel.reply_consumer is not None:
        raise PreconditionFailed("reply consumer already set")
    node = channel.session.node
    group = MEMORY_GROUP + node.node_id
    uid = OUTSIDE_METADATA | int.from_bytes(node.draw(_UID_BYTES), "big")
    # It ends with its consumer, however that ends.
    config = commands.QueueConfig(durable=False, exclusive=True, auto_delete=True).encode()
    node.submit(group, commands.create_queue(0, uid, config))
    channel.reply_consumer = ReplyConsumer(tag, address(node.node_id, uid))
    return group, uid


def rewrite(channel: "ChannelSession", properties: "BasicProperties") -> None:
    """Replace the name in `reply_to` by the address of the channel's consumer.

    Raises:
        PreconditionFailed: 406, the channel has none.
    """
    if channel.reply_consumer is None:
        raise PreconditionFailed("fast reply consumer does not exist")
    properties.reply_to = channel.reply_consumer.address


def address(node_id: int, uid: int) -> str:
    """The routing key of replies to a queue in a node's memory."""
    data = node_id.to_bytes(_NODE_BYTES, "big") + uid.to_bytes(_UID_BYTES, "big")
    return _PREFIX + urlsafe_b64encode(data).decode("ascii").removesuffix(_PADDING)


def target(node: "NodePort", routing_key: str) -> tuple[int, int] | None:
    """The group and uid that an address stands for; None if it is no address of this cluster."""
    text = routing_key.removeprefix(_PREFIX)
    if text == routing_key or len(text) != _ADDRESS_CHARACTERS:
        return None
    try:
        data = urlsafe_b64decode(text + _PADDING)
    except ValueError:
        return None
    group = MEMORY_GROUP + int.from_bytes(data[:_NODE_BYTES], "big")
    uid = int.from_bytes(data[_NODE_BYTES:], "big")
    # What a client makes up must name no other queue, and no other node.
    if len(data) != _NODE_BYTES + _UID_BYTES or not uid & OUTSIDE_METADATA or not node.has_group(group):
        return None
    return group, uid


def declare(channel: "ChannelSession", method: methods.QueueDeclare, name: str) -> Script:
    """queue.declare of an address, always passive: answered while the requester is there.

    Raises:
        NotFound: 404, it is not.
    """
    if name != QUEUE and not (yield from _is_alive(channel, name)):
        raise NotFound(f"no {resource_name('queue', name, channel.session.vhost)}")
    channel.last_queue = name
    if not method.no_wait:
        channel.send(methods.QueueDeclareOk(queue=name, message_count=0, consumer_count=1))


def check_bindable(name: str) -> None:
    """Raise 403 for a queue that nothing can be bound to."""
    if name.startswith(QUEUE):
        raise AccessRefused("cannot bind or unbind to a volatile (direct reply-to) queue")


def _is_alive(channel: "ChannelSession", name: str) -> Generator[None, Any, bool]:
    node = channel.session.node
    found = target(node, name)
    if found is None:
        return False
    group, uid = found
    machine = node.machine(group)
    if machine is not None:
        return machine.has_queue(uid)
    node.submit(group, commands.probe(channel.ask(group), uid))
    return bool((yield))
