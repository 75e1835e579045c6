"""basic.consume, cancel, get, qos and recover: what a client asks of its own deliveries."""

from typing import TYPE_CHECKING

from node.broker import commands
from node.broker.arguments import queue_type
from node.broker.effects import GetResult, Refusal
from node.broker.permissions import resource_name
from node.broker.queue import NO_ACK_WINDOW
from node.errors import AmqpNotImplemented, NotAllowed, PreconditionFailed, ResourceLocked
from node.session.deliver import Consumer, send_got, window_of
from node.session.rules import check_access, ensure, find_queue, made_name, queue_name, refused
from node.session.script import Script
from node.session.settle import by_consumer, let_go
from node.wire import methods
from node.wire.primitives import type_name

if TYPE_CHECKING:
    from node.session.channel import ChannelSession

CONSUMER_TAG_PREFIX = "amq.ctag-"


def qos(channel: "ChannelSession", method: methods.BasicQos) -> None:
    """basic.qos: the window of the consumers that are started from now on."""
    if method.prefetch_size:
        raise AmqpNotImplemented(f"prefetch_size!=0 ({method.prefetch_size})")
    channel.prefetch = method.prefetch_count
    channel.send(methods.BasicQosOk())


def recover(channel: "ChannelSession", method: methods.BasicRecover | methods.BasicRecoverAsync) -> None:
    """basic.recover and recover-async: what the client holds goes back to its queues."""
    if not method.requeue:
        raise AmqpNotImplemented("requeue=false")
    submit = channel.session.node.submit
    returned = by_consumer(channel.amqp.take_all())
    for consumer, ranges in returned.items():
        submit(channel.holders[consumer], commands.give_back(consumer, ranges, failed=False))
    if isinstance(method, methods.BasicRecover):
        channel.send(methods.BasicRecoverOk())
    # Only now: what a client gets before the answer, it takes for returned.
    for consumer, ranges in returned.items():
        let_go(channel.session, consumer, ranges)


def consume(channel: "ChannelSession", method: methods.BasicConsume) -> Script:
    """basic.consume."""
    session = channel.session
    name = queue_name(channel, method.queue)
    check_access(session, "read", "queue", name)
    tag = method.consumer_tag or made_name(session, CONSUMER_TAG_PREFIX)
    if tag in channel.consumers:
        raise NotAllowed(f"attempt to reuse consumer tag '{tag}'")
    priority = _priority(channel, method, name)
    record = yield from find_queue(channel, name)
    ensure(session.shared, record)
    window = NO_ACK_WINDOW if method.no_ack else window_of(channel.prefetch)
    consumer = Consumer(
        session.node.next_id(),
        channel,
        tag,
        record.group,
        no_ack=method.no_ack,
        window=window,
        prefetch=channel.prefetch,
    )
    channel.groups[record.group] = None
    command = commands.attach(
        channel.ask(record.group),
        channel.id,
        consumer.id,
        record.uid,
        prefetch=window,
        no_ack=method.no_ack,
        exclusive=method.exclusive,
        priority=priority,
    )
    session.node.submit(record.group, command)
    value = yield
    if isinstance(value, Refusal):
        raise refused(session, value, name)
    # The machine's first delivery comes after this reply, so nothing can have been missed.
    channel.consumers[tag] = consumer
    channel.holders[consumer.id] = record.group
    session.shared.consumers[consumer.id] = consumer
    if not method.no_wait:
        channel.send(methods.BasicConsumeOk(consumer_tag=tag))


def cancel(channel: "ChannelSession", method: methods.BasicCancel) -> Script:
    """basic.cancel; a consumer that is not there is cancelled already."""
    session = channel.session
    consumer = channel.consumers.get(method.consumer_tag)
    if consumer is not None:
        session.node.submit(consumer.group, commands.detach(channel.ask(consumer.group), consumer.id))
        yield
        forget(consumer)
        if consumer.backlog:
            # Assigned and never sent: the client must not get them after cancel-ok.
            ranges = [(piece.first_id, piece.first_id + piece.count - 1) for piece in consumer.backlog]
            session.node.submit(consumer.group, commands.give_back(consumer.id, ranges, failed=False))
            consumer.backlog.clear()
        channel.forget_holders()
    if not method.no_wait:
        channel.send(methods.BasicCancelOk(consumer_tag=method.consumer_tag))


def get(channel: "ChannelSession", method: methods.BasicGet) -> Script:
    """basic.get."""
    session = channel.session
    name = queue_name(channel, method.queue)
    check_access(session, "read", "queue", name)
    record = yield from find_queue(channel, name)
    if record.arguments.get("x-single-active-consumer") is True:
        raise ResourceLocked(
            f"cannot obtain access to locked {resource_name('queue', name, session.vhost)}. basic.get operations "
            f"are not supported by {queue_type(record.arguments)} queues with single active consumer"
        )
    ensure(session.shared, record)
    holder = channel.getters.get(record.uid)
    if holder is None:
        holder = channel.getters[record.uid] = session.node.next_id()
        channel.holders[holder] = record.group
    channel.groups[record.group] = None
    session.node.submit(record.group, commands.get(channel.ask(record.group), channel.id, holder, record.uid))
    value = yield
    if isinstance(value, Refusal):
        raise refused(session, value, name)
    if isinstance(value, GetResult):
        if channel.gone:
            return
        send_got(channel, record.group, holder, value, no_ack=method.no_ack)
        if method.no_ack:
            first_id = value.slice.first_id
            session.node.submit(
                record.group, commands.settle(holder, [(first_id, first_id)]), is_patient=True
            )
    else:
        channel.send(methods.BasicGetEmpty())


def cancelled(consumer: Consumer) -> None:
    """Its queue is gone: tell a client that wants to know."""
    forget(consumer)
    consumer.backlog.clear()
    channel = consumer.channel
    if channel.session.amqp.capabilities.get("consumer_cancel_notify"):
        channel.notify(methods.BasicCancel(consumer_tag=consumer.tag, no_wait=True))


def forget(consumer: Consumer) -> None:
    """No delivery goes to it any more. What it holds is still known by its id."""
    channel = consumer.channel
    if channel.consumers.get(consumer.tag) is consumer:
        del channel.consumers[consumer.tag]
    channel.session.shared.consumers.pop(consumer.id, None)
    channel.session.stalled.pop(consumer.id, None)


def _priority(channel: "ChannelSession", method: methods.BasicConsume, name: str) -> int:
    priority = method.arguments.get("x-priority", 0)
    if isinstance(priority, int) and not isinstance(priority, bool):
        return priority
    queue = resource_name("queue", name, channel.session.vhost)
    reason = f"{{unacceptable_type,{type_name(priority)}}}"
    raise PreconditionFailed(f"invalid arg 'x-priority' for {queue}: {reason}")
