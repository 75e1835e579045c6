"""basic.consume, cancel, get and recover: what a client asks of its own deliveries."""

from typing import TYPE_CHECKING

from node.broker import commands, queue
from node.broker.arguments import queue_type
from node.broker.effects import GetResult, Refusal
from node.broker.permissions import resource_name
from node.errors import AmqpNotImplemented, NotAllowed, PreconditionFailed, ResourceLocked
from node.session import direct_reply
from node.session.deliver import Consumer, send_got, settle_sent
from node.session.prefetch import window
from node.session.rules import check_access, ensure, find_queue, made_name, queue_name, refused
from node.session.script import Script
from node.session.settle import by_consumer, let_go
from node.wire import methods
from node.wire.primitives import type_name

if TYPE_CHECKING:
    from node.session.channel import ChannelSession

CONSUMER_TAG_PREFIX = "amq.ctag-"


def recover(channel: "ChannelSession", method: methods.BasicRecover | methods.BasicRecoverAsync) -> None:
    """basic.recover and recover-async: what the client holds goes back to its queues."""
    if not method.requeue:
        raise AmqpNotImplemented("requeue=false")
    submit = channel.session.node.submit
    returned = by_consumer(channel.amqp.take_all())
    for consumer, ranges in returned.items():
        submit(channel.holders[consumer], commands.give_back(consumer, ranges, failed=True))
    if isinstance(method, methods.BasicRecover):
        channel.send(methods.BasicRecoverOk())
    # Only now: what a client gets before the answer, it takes for returned.
    for consumer, ranges in returned.items():
        let_go(channel, consumer, ranges, is_told=True)


def consume(channel: "ChannelSession", method: methods.BasicConsume) -> Script:
    """basic.consume."""
    session = channel.session
    name = queue_name(channel, method.queue)
    tag = method.consumer_tag or made_name(session, CONSUMER_TAG_PREFIX)
    if tag in channel.consumers:
        raise NotAllowed(f"attempt to reuse consumer tag '{tag}'")
    if name == direct_reply.QUEUE:
        group, uid = direct_reply.open_queue(channel, method, tag)
        priority = 0
        timeout_ms = 0
    else:
        check_access(session, "read", "queue", name)
        record = yield from find_queue(channel, name)
        if method.exclusive and record.arguments.get("x-single-active-consumer") is True:
            raise refused(session, Refusal.EXCLUSIVE_USE, name)
        group, uid = record.group, record.uid
        priority = _checked(channel, method, name, "x-priority")
        timeout_ms = _checked(channel, method, name, "x-consumer-timeout")
    consumer = _consumer(channel, method, tag, group)
    channel.groups[group] = None
    command = commands.attach(
        channel.ask(group),
        channel.id,
        consumer.id,
        uid,
        prefetch=consumer.window,
        no_ack=method.no_ack,
        exclusive=method.exclusive,
        priority=priority,
        timeout_ms=timeout_ms,
    )
    session.node.submit(group, command)
    value = yield
    if isinstance(value, Refusal):
        raise refused(session, value, name)
    # The machine's first delivery comes after this reply, so nothing can have been missed.
    channel.consumers[tag] = consumer
    channel.holders[consumer.id] = group
    session.shared.consumers[consumer.id] = consumer
    if not method.no_wait:
        channel.send(methods.BasicConsumeOk(consumer_tag=tag))


def cancel(channel: "ChannelSession", method: methods.BasicCancel) -> Script:
    """basic.cancel; a consumer that is not there is cancelled already."""
    session = channel.session
    consumer = channel.consumers.get(method.consumer_tag)
    if consumer is not None:
        settle_sent(consumer)
        session.node.submit(consumer.group, commands.detach(channel.ask(consumer.group), consumer.id))
        yield
        forget(consumer)
        if consumer.backlog:
            # Assigned and never sent: the client must not get them after cancel-ok.
            ranges = consumer.take_unsent(0)
            session.node.submit(consumer.group, commands.unsent(consumer.id, ranges))
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
    settle_sent(consumer)
    channel = consumer.channel
    if channel.consumers.get(consumer.tag) is consumer:
        del channel.consumers[consumer.tag]
        if channel.reply_consumer is not None and channel.reply_consumer.tag == consumer.tag:
            channel.reply_consumer = None
    channel.session.shared.consumers.pop(consumer.id, None)
    channel.session.stalled.pop(consumer.id, None)


def _consumer(channel: "ChannelSession", method: methods.BasicConsume, tag: str, group: int) -> Consumer:
    return Consumer(
        channel.session.node.next_id(),
        channel,
        tag,
        group,
        no_ack=method.no_ack,
        # Not imported by itself: whoever sets it sets it for the machine and for the session.
        window=queue.NO_ACK_WINDOW if method.no_ack else window(channel, channel.prefetch),
        prefetch=channel.prefetch,
    )


def _checked(channel: "ChannelSession", method: methods.BasicConsume, name: str, argument: str) -> int:
    """An argument of basic.consume, 0 where it is missing. Raises 406 where it is none of its type."""
    value = method.arguments.get(argument, 0)
    if not isinstance(value, int) or isinstance(value, bool):
        reason = f'"expected integer, got {type_name(value)}"'
    elif value < 0 and argument != "x-priority":
        reason = f"{{value_negative,{value}}}"
    else:
        return value
    queue = resource_name("queue", name, channel.session.vhost)
    raise PreconditionFailed(f"invalid arg '{argument}' for {queue}: {reason}")
