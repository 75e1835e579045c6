"""Which function does which method of a channel."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from node.broker.permissions import resource_name
from node.errors import CommandInvalid
from node.session import consume, declare, prefetch, transaction
from node.session.script import Script
from node.wire import methods

if TYPE_CHECKING:
    from node.session.channel import ChannelSession


def _confirm_select(channel: "ChannelSession", method: methods.ConfirmSelect) -> None:
    if not method.no_wait:
        channel.send(methods.ConfirmSelectOk())


def _flow(channel: "ChannelSession", method: methods.ChannelFlow) -> None:
    channel.send(methods.ChannelFlowOk(active=method.active))


def _access(channel: "ChannelSession", _method: methods.AccessRequest) -> None:
    """Tickets are of AMQP 0-8; the number means nothing."""
    channel.send(methods.AccessRequestOk(1))


_AT_ONCE: dict[type[methods.Method], Callable[..., None]] = {
    methods.BasicQos: prefetch.qos,
    methods.BasicRecover: consume.recover,
    methods.BasicRecoverAsync: consume.recover,
    methods.ConfirmSelect: _confirm_select,
    methods.ChannelFlow: _flow,
    methods.AccessRequest: _access,
    methods.TxSelect: transaction.select,
    methods.TxRollback: transaction.rollback,
}
_SCRIPTS: dict[type[methods.Method], Callable[..., Script]] = {
    methods.ExchangeDeclare: declare.exchange_declare,
    methods.ExchangeDelete: declare.exchange_delete,
    methods.ExchangeBind: declare.exchange_bind,
    methods.ExchangeUnbind: declare.exchange_unbind,
    methods.QueueDeclare: declare.queue_declare,
    methods.QueueBind: declare.queue_bind,
    methods.QueueUnbind: declare.queue_unbind,
    methods.QueuePurge: declare.queue_purge,
    methods.QueueDelete: declare.queue_delete,
    methods.BasicConsume: consume.consume,
    methods.BasicCancel: consume.cancel,
    methods.BasicGet: consume.get,
    methods.TxCommit: transaction.commit,
}


def start(channel: "ChannelSession", method: methods.Method) -> None:
    """Do a request, or begin it if groups must be asked.

    Raises:
        CommandInvalid: 503, no such request.
    """
    at_once = _AT_ONCE.get(type(method))
    if at_once is not None:
        channel.method = method
        at_once(channel, method)
        return
    script = _SCRIPTS.get(type(method))
    if script is None:
        raise CommandInvalid("unimplemented method")
    channel.run(script(channel, method), method)


def subject_of(channel: "ChannelSession", method: methods.Method | None) -> str:
    """What a request is about, as error texts name it."""
    fields: Any = method
    vhost = channel.session.vhost
    if hasattr(fields, "queue"):
        return resource_name("queue", fields.queue or channel.last_queue, vhost)
    if hasattr(fields, "consumer_tag"):
        return f"consumer '{fields.consumer_tag}' in vhost '{vhost}'"
    name = fields.destination if hasattr(fields, "destination") else getattr(fields, "exchange", "")
    return resource_name("exchange", name, vhost)
