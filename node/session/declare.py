"""exchange.* and queue.*: what changes or reads the topology.

Metadata says what should be, and the queue's group follows: a declaration is answered when group 0 has it, and
the queue's group hears of it from the first who uses it, on the same stream and before anything that does; a
deletion goes to the queue's group first, which alone knows whether the queue is empty or in use.
"""

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from cluster.types import METADATA_GROUP
from node.broker import commands, topology_commands
from node.broker.arguments import check_exchange_type
from node.broker.effects import Refusal
from node.broker.records import QueueRecord
from node.broker.topology_commands import strip_name
from node.broker.topology_effects import QueueDeclared
from node.errors import AccessRefused, AmqpError, NotFound
from node.session import direct_reply
from node.session.rules import (
    check_access,
    check_may_see,
    create,
    current,
    ensure,
    find_queue,
    made_name,
    queue_name,
    refused,
)
from node.session.script import Script
from node.wire import methods

if TYPE_CHECKING:
    from node.session.channel import ChannelSession
    from node.session.session import Session
    from node.wire.primitives import Table

SERVER_NAME_PREFIX = "amq.gen-"


# exchange.*


def exchange_declare(channel: "ChannelSession", method: methods.ExchangeDeclare) -> Script:
    """exchange.declare, passive or not."""
    session = channel.session
    name = strip_name(method.exchange)
    if not method.passive:
        check_exchange_type(method.type)
    if not name:
        raise AccessRefused("operation not permitted on the default exchange")
    if method.passive:
        yield from _exchange_exists(channel, name)
    else:
        check_access(session, "configure", "exchange", name)
        alternate = method.arguments.get("alternate-exchange")
        if isinstance(alternate, str):
            check_access(session, "read", "exchange", name)
            check_access(session, "write", "exchange", alternate)
        command = topology_commands.declare_exchange(
            channel.ask(METADATA_GROUP),
            session.vhost,
            name,
            method.type,
            durable=method.durable,
            auto_delete=method.auto_delete,
            internal=method.internal,
            arguments=method.arguments,
        )
        yield from _change(channel, command)
    if not method.no_wait:
        channel.send(methods.ExchangeDeclareOk())


def exchange_delete(channel: "ChannelSession", method: methods.ExchangeDelete) -> Script:
    """exchange.delete; one that is not there is deleted already."""
    session = channel.session
    check_access(session, "configure", "exchange", strip_name(method.exchange))
    ticket = channel.ask(METADATA_GROUP)
    command = topology_commands.delete_exchange(
        ticket, session.vhost, method.exchange, if_unused=method.if_unused
    )
    yield from _change(channel, command)
    if not method.no_wait:
        channel.send(methods.ExchangeDeleteOk())


def exchange_bind(channel: "ChannelSession", method: methods.ExchangeBind) -> Script:
    """exchange.bind: the source routes to the destination."""
    yield from _bind_exchange(channel, method, topology_commands.bind_exchange)
    if not method.no_wait:
        channel.send(methods.ExchangeBindOk())


def exchange_unbind(channel: "ChannelSession", method: methods.ExchangeUnbind) -> Script:
    """exchange.unbind; a binding that is not there is undone already."""
    yield from _bind_exchange(channel, method, topology_commands.unbind_exchange)
    if not method.no_wait:
        channel.send(methods.ExchangeUnbindOk())


# queue.*


def queue_declare(channel: "ChannelSession", method: methods.QueueDeclare) -> Script:
    """queue.declare, passive or not."""
    session = channel.session
    if strip_name(method.queue).startswith(direct_reply.QUEUE):
        yield from direct_reply.declare(channel, method, strip_name(method.queue))
        return
    if method.passive:
        # Here an empty name is a name, not the queue declared last (so RabbitMQ, too).
        name = strip_name(method.queue)
        check_may_see(session, "queue", name)
        # A queue that was deleted elsewhere may still be in this replica, and would then be given to its group anew.
        yield from current(channel, METADATA_GROUP)
        record = yield from find_queue(channel, name)
        ensure(session.shared, record)
        yield from current(channel, record.group)
        machine = session.node.machine(record.group)
        if machine is not None and not machine.has_queue(record.uid):
            raise refused(session, Refusal.NO_QUEUE, name)
    else:
        is_server_named = not strip_name(method.queue)
        prefix = method.arguments.get("x-name-prefix", SERVER_NAME_PREFIX)
        name = made_name(session, str(prefix)) if is_server_named else strip_name(method.queue)
        check_access(session, "configure", "queue", name)
        _check_dead_letters(session, name, method.arguments)
        record = yield from _declare(channel, method, name, is_server_named=is_server_named)
    channel.last_queue = record.name
    if not method.no_wait:
        machine = session.node.machine(record.group)
        ready, _, consumers = machine.counts(record.uid) if machine is not None else (0, 0, 0)
        channel.send(methods.QueueDeclareOk(queue=record.name, message_count=ready, consumer_count=consumers))


def queue_delete(channel: "ChannelSession", method: methods.QueueDelete) -> Script:
    """queue.delete; one that is not there is deleted already, with no messages."""
    session = channel.session
    name = queue_name(channel, method.queue)
    check_access(session, "configure", "queue", name)
    count = 0
    try:
        record = yield from find_queue(channel, name)
    except NotFound:
        record = None
    if record is not None:
        ensure(session.shared, record)
        session.node.submit(
            record.group,
            commands.delete_queue(
                channel.ask(record.group), record.uid, if_unused=method.if_unused, if_empty=method.if_empty
            ),
        )
        value = yield
        if isinstance(value, int):
            count = value
        elif value is not Refusal.NO_QUEUE:
            raise refused(session, value, name)
        yield from _change(channel, topology_commands.delete_queue(channel.ask(METADATA_GROUP), record.uid))
    if not method.no_wait:
        channel.send(methods.QueueDeleteOk(message_count=count))


def queue_purge(channel: "ChannelSession", method: methods.QueuePurge) -> Script:
    """queue.purge: drop what is ready."""
    session = channel.session
    name = queue_name(channel, method.queue)
    check_access(session, "read", "queue", name)
    record = yield from find_queue(channel, name)
    ensure(session.shared, record)
    session.node.submit(record.group, commands.purge(channel.ask(record.group), record.uid))
    value = yield
    if isinstance(value, Refusal):
        raise refused(session, value, name)
    if not method.no_wait:
        channel.send(methods.QueuePurgeOk(message_count=value))


def queue_bind(channel: "ChannelSession", method: methods.QueueBind) -> Script:
    """queue.bind: the exchange routes to the queue."""
    yield from _bind_queue(channel, method, topology_commands.bind_queue)
    if not method.no_wait:
        channel.send(methods.QueueBindOk())


def queue_unbind(channel: "ChannelSession", method: methods.QueueUnbind) -> Script:
    """queue.unbind; a binding that is not there is undone already."""
    yield from _bind_queue(channel, method, topology_commands.unbind_queue)
    channel.send(methods.QueueUnbindOk())


def _check_dead_letters(session: "Session", name: str, arguments: "Table") -> None:
    """Raise 403 unless the user may read the queue and write to its dead letter exchange."""
    exchange = arguments.get("x-dead-letter-exchange")
    if isinstance(exchange, str):
        check_access(session, "read", "queue", name)
        check_access(session, "write", "exchange", exchange)


def _declare(
    channel: "ChannelSession", method: methods.QueueDeclare, name: str, *, is_server_named: bool
) -> Generator[None, Any, QueueRecord]:
    session = channel.session
    # Set before the command is on its way: whatever becomes of it, the session's end must clear up.
    session.may_own = session.may_own or method.exclusive
    while True:
        ticket = channel.ask(METADATA_GROUP)
        command = topology_commands.declare_queue(
            ticket,
            session.vhost,
            name,
            durable=method.durable,
            exclusive=method.exclusive,
            auto_delete=method.auto_delete,
            arguments=method.arguments,
            group=session.node.place(session.vhost, name),
            session=session.id,
            server_named=is_server_named,
        )
        declared: QueueDeclared = yield from _change(channel, command)
        record = declared.record
        if declared.created:
            if record.exclusive:
                # Others cannot look into this node's memory: nobody else could see that it lacks the queue.
                create(session.shared, record, 0)
            # The metadata is what should be. A shard hears of the queue from the first who uses it, on the same
            # stream, and else from its leader: a queue that it lacks is empty, which is what was declared.
            return record
        machine = session.node.machine(record.group)
        assert machine is not None, "an exclusive queue lives where it was declared"
        if machine.has_queue(record.uid) and "x-expires" not in record.arguments:
            yield from current(channel, record.group)
        else:
            # Also for one that was there: who declared it may have died before its group had it, and to declare it is
            # to use it.
            create(session.shared, record, channel.ask(record.group))
            yield
        if machine.has_queue(record.uid):
            return record
        # It ended in its group, with its last consumer or by a deletion elsewhere, and the metadata is about
        # to follow. Each round ends one such queue, and the time is bounded by the deadline of the tickets.
        yield from _change(channel, topology_commands.delete_queue(channel.ask(METADATA_GROUP), record.uid))


def _exchange_exists(channel: "ChannelSession", name: str) -> Generator[None, Any, None]:
    session = channel.session
    check_may_see(session, "exchange", name)
    found = session.node.topology.find_exchange(session.vhost, name)
    if isinstance(found, AmqpError):
        yield from current(channel, METADATA_GROUP)
        found = session.node.topology.find_exchange(session.vhost, name)
        if isinstance(found, AmqpError):
            raise found


def _bind_exchange(
    channel: "ChannelSession", method: methods.ExchangeBind | methods.ExchangeUnbind, command: Any
) -> Generator[None, Any, None]:
    session = channel.session
    destination, source = strip_name(method.destination), strip_name(method.source)
    check_access(session, "write", "exchange", destination)
    check_access(session, "read", "exchange", source)
    ticket = channel.ask(METADATA_GROUP)
    parts = command(ticket, session.vhost, destination, source, method.routing_key, method.arguments)
    yield from _change(channel, parts)


def _bind_queue(
    channel: "ChannelSession", method: methods.QueueBind | methods.QueueUnbind, command: Any
) -> Generator[None, Any, None]:
    session = channel.session
    queue, exchange = queue_name(channel, method.queue), strip_name(method.exchange)
    # As 0-9-1 says of an empty queue name: the routing key, if empty too, is the name of the queue.
    routing_key = method.routing_key or ("" if method.queue else queue)
    check_access(session, "write", "queue", queue)
    check_access(session, "read", "exchange", exchange)
    direct_reply.check_bindable(queue)
    ticket = channel.ask(METADATA_GROUP)
    parts = command(ticket, session.vhost, queue, exchange, routing_key, method.arguments, session.id)
    yield from _change(channel, parts)


def _change(channel: "ChannelSession", command: tuple[bytes, ...]) -> Generator[None, Any, Any]:
    """Submit a command to group 0 and wait; raises what the topology refuses it with."""
    channel.session.node.submit(METADATA_GROUP, command)
    value = yield
    if isinstance(value, AmqpError):
        raise value
    return value
