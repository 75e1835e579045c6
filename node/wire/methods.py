"""Every method of AMQP 0-9-1 and of RabbitMQ's extensions, one class each: this module is the table of them.

The specification is frozen, so nothing generates this; tests/spec holds its own copy of the table and proves
the two equal. Field names are the specification's. Three give way to Python or to Method: `global_`
(basic.qos), and `failed_class_id` and `failed_method_id` (connection.close and channel.close), the method
that the close is about.
"""

from __future__ import annotations

from dataclasses import field

from node.errors import FrameError
from node.wire.fields import (
    Bit,
    Long,
    Longlong,
    Longstr,
    Octet,
    Short,
    Shortstr,
    Table,
    amqp_method,
)

# ruff: noqa: D101, PLC0414 - the specification describes the methods; `as` makes names part of this module.
from node.wire.fields import Method as Method
from node.wire.fields import all_methods as all_methods
from node.wire.fields import decode_method as decode_method
from node.wire.fields import frame as frame
from node.wire.fields import method_frame as method_frame
from node.wire.primitives import Reader


@amqp_method("connection.start", 10, 10, synchronous=True)
class ConnectionStart(Method):
    version_major: Octet = 0
    version_minor: Octet = 9
    server_properties: Table = field(default_factory=dict)
    mechanisms: Longstr = b"PLAIN"
    locales: Longstr = b"en_US"


@amqp_method("connection.start-ok", 10, 11)
class ConnectionStartOk(Method):
    client_properties: Table = field(default_factory=dict)
    mechanism: Shortstr = "PLAIN"
    response: Longstr = b""
    locale: Shortstr = "en_US"


@amqp_method("connection.secure", 10, 20, synchronous=True)
class ConnectionSecure(Method):
    challenge: Longstr = b""


@amqp_method("connection.secure-ok", 10, 21)
class ConnectionSecureOk(Method):
    response: Longstr = b""


@amqp_method("connection.tune", 10, 30, synchronous=True)
class ConnectionTune(Method):
    channel_max: Short = 0
    frame_max: Long = 0
    heartbeat: Short = 0


@amqp_method("connection.tune-ok", 10, 31)
class ConnectionTuneOk(Method):
    channel_max: Short = 0
    frame_max: Long = 0
    heartbeat: Short = 0


@amqp_method("connection.open", 10, 40, synchronous=True)
class ConnectionOpen(Method):
    virtual_host: Shortstr = "/"
    capabilities: Shortstr = ""
    insist: Bit = False


@amqp_method("connection.open-ok", 10, 41)
class ConnectionOpenOk(Method):
    known_hosts: Shortstr = ""


@amqp_method("connection.close", 10, 50, synchronous=True)
class ConnectionClose(Method):
    reply_code: Short = 0
    reply_text: Shortstr = ""
    failed_class_id: Short = 0
    failed_method_id: Short = 0


@amqp_method("connection.close-ok", 10, 51)
class ConnectionCloseOk(Method):
    pass


@amqp_method("connection.blocked", 10, 60)
class ConnectionBlocked(Method):
    reason: Shortstr = ""


@amqp_method("connection.unblocked", 10, 61)
class ConnectionUnblocked(Method):
    pass


@amqp_method("connection.update-secret", 10, 70, synchronous=True)
class ConnectionUpdateSecret(Method):
    new_secret: Longstr = b""
    reason: Shortstr = ""


@amqp_method("connection.update-secret-ok", 10, 71)
class ConnectionUpdateSecretOk(Method):
    pass


@amqp_method("channel.open", 20, 10, synchronous=True)
class ChannelOpen(Method):
    out_of_band: Shortstr = ""


@amqp_method("channel.open-ok", 20, 11)
class ChannelOpenOk(Method):
    channel_id: Longstr = b""


@amqp_method("channel.flow", 20, 20, synchronous=True)
class ChannelFlow(Method):
    active: Bit = False


@amqp_method("channel.flow-ok", 20, 21)
class ChannelFlowOk(Method):
    active: Bit = False


@amqp_method("channel.close", 20, 40, synchronous=True)
class ChannelClose(Method):
    reply_code: Short = 0
    reply_text: Shortstr = ""
    failed_class_id: Short = 0
    failed_method_id: Short = 0


@amqp_method("channel.close-ok", 20, 41)
class ChannelCloseOk(Method):
    pass


@amqp_method("access.request", 30, 10, synchronous=True)
class AccessRequest(Method):
    realm: Shortstr = "/data"
    exclusive: Bit = False
    passive: Bit = True
    active: Bit = True
    write: Bit = True
    read: Bit = True


@amqp_method("access.request-ok", 30, 11)
class AccessRequestOk(Method):
    ticket: Short = 1


@amqp_method("exchange.declare", 40, 10, synchronous=True)
class ExchangeDeclare(Method):
    ticket: Short = 0
    exchange: Shortstr = ""
    type: Shortstr = "direct"
    passive: Bit = False
    durable: Bit = False
    auto_delete: Bit = False
    internal: Bit = False
    no_wait: Bit = False
    arguments: Table = field(default_factory=dict)


@amqp_method("exchange.declare-ok", 40, 11)
class ExchangeDeclareOk(Method):
    pass


@amqp_method("exchange.delete", 40, 20, synchronous=True)
class ExchangeDelete(Method):
    ticket: Short = 0
    exchange: Shortstr = ""
    if_unused: Bit = False
    no_wait: Bit = False


@amqp_method("exchange.delete-ok", 40, 21)
class ExchangeDeleteOk(Method):
    pass


@amqp_method("exchange.bind", 40, 30, synchronous=True)
class ExchangeBind(Method):
    ticket: Short = 0
    destination: Shortstr = ""
    source: Shortstr = ""
    routing_key: Shortstr = ""
    no_wait: Bit = False
    arguments: Table = field(default_factory=dict)


@amqp_method("exchange.bind-ok", 40, 31)
class ExchangeBindOk(Method):
    pass


@amqp_method("exchange.unbind", 40, 40, synchronous=True)
class ExchangeUnbind(Method):
    ticket: Short = 0
    destination: Shortstr = ""
    source: Shortstr = ""
    routing_key: Shortstr = ""
    no_wait: Bit = False
    arguments: Table = field(default_factory=dict)


@amqp_method("exchange.unbind-ok", 40, 51)
class ExchangeUnbindOk(Method):
    pass


@amqp_method("queue.declare", 50, 10, synchronous=True)
class QueueDeclare(Method):
    ticket: Short = 0
    queue: Shortstr = ""
    passive: Bit = False
    durable: Bit = False
    exclusive: Bit = False
    auto_delete: Bit = False
    no_wait: Bit = False
    arguments: Table = field(default_factory=dict)


@amqp_method("queue.declare-ok", 50, 11)
class QueueDeclareOk(Method):
    queue: Shortstr = ""
    message_count: Long = 0
    consumer_count: Long = 0


@amqp_method("queue.bind", 50, 20, synchronous=True)
class QueueBind(Method):
    ticket: Short = 0
    queue: Shortstr = ""
    exchange: Shortstr = ""
    routing_key: Shortstr = ""
    no_wait: Bit = False
    arguments: Table = field(default_factory=dict)


@amqp_method("queue.bind-ok", 50, 21)
class QueueBindOk(Method):
    pass


@amqp_method("queue.purge", 50, 30, synchronous=True)
class QueuePurge(Method):
    ticket: Short = 0
    queue: Shortstr = ""
    no_wait: Bit = False


@amqp_method("queue.purge-ok", 50, 31)
class QueuePurgeOk(Method):
    message_count: Long = 0


@amqp_method("queue.delete", 50, 40, synchronous=True)
class QueueDelete(Method):
    ticket: Short = 0
    queue: Shortstr = ""
    if_unused: Bit = False
    if_empty: Bit = False
    no_wait: Bit = False


@amqp_method("queue.delete-ok", 50, 41)
class QueueDeleteOk(Method):
    message_count: Long = 0


@amqp_method("queue.unbind", 50, 50, synchronous=True)
class QueueUnbind(Method):
    ticket: Short = 0
    queue: Shortstr = ""
    exchange: Shortstr = ""
    routing_key: Shortstr = ""
    arguments: Table = field(default_factory=dict)


@amqp_method("queue.unbind-ok", 50, 51)
class QueueUnbindOk(Method):
    pass


@amqp_method("basic.qos", 60, 10, synchronous=True)
class BasicQos(Method):
    prefetch_size: Long = 0
    prefetch_count: Short = 0
    global_: Bit = False


@amqp_method("basic.qos-ok", 60, 11)
class BasicQosOk(Method):
    pass


@amqp_method("basic.consume", 60, 20, synchronous=True)
class BasicConsume(Method):
    ticket: Short = 0
    queue: Shortstr = ""
    consumer_tag: Shortstr = ""
    no_local: Bit = False
    no_ack: Bit = False
    exclusive: Bit = False
    no_wait: Bit = False
    arguments: Table = field(default_factory=dict)


@amqp_method("basic.consume-ok", 60, 21)
class BasicConsumeOk(Method):
    consumer_tag: Shortstr = ""


@amqp_method("basic.cancel", 60, 30, synchronous=True)
class BasicCancel(Method):
    consumer_tag: Shortstr = ""
    no_wait: Bit = False


@amqp_method("basic.cancel-ok", 60, 31)
class BasicCancelOk(Method):
    consumer_tag: Shortstr = ""


@amqp_method("basic.publish", 60, 40, has_content=True)
class BasicPublish(Method):
    ticket: Short = 0
    exchange: Shortstr = ""
    routing_key: Shortstr = ""
    mandatory: Bit = False
    immediate: Bit = False


@amqp_method("basic.return", 60, 50, has_content=True)
class BasicReturn(Method):
    reply_code: Short = 0
    reply_text: Shortstr = ""
    exchange: Shortstr = ""
    routing_key: Shortstr = ""


@amqp_method("basic.deliver", 60, 60, has_content=True)
class BasicDeliver(Method):
    consumer_tag: Shortstr = ""
    delivery_tag: Longlong = 0
    redelivered: Bit = False
    exchange: Shortstr = ""
    routing_key: Shortstr = ""


@amqp_method("basic.get", 60, 70, synchronous=True)
class BasicGet(Method):
    ticket: Short = 0
    queue: Shortstr = ""
    no_ack: Bit = False


@amqp_method("basic.get-ok", 60, 71, has_content=True)
class BasicGetOk(Method):
    delivery_tag: Longlong = 0
    redelivered: Bit = False
    exchange: Shortstr = ""
    routing_key: Shortstr = ""
    message_count: Long = 0


@amqp_method("basic.get-empty", 60, 72)
class BasicGetEmpty(Method):
    cluster_id: Shortstr = ""


@amqp_method("basic.ack", 60, 80)
class BasicAck(Method):
    delivery_tag: Longlong = 0
    multiple: Bit = False


@amqp_method("basic.reject", 60, 90)
class BasicReject(Method):
    delivery_tag: Longlong = 0
    requeue: Bit = True


@amqp_method("basic.recover-async", 60, 100)
class BasicRecoverAsync(Method):
    requeue: Bit = False


@amqp_method("basic.recover", 60, 110, synchronous=True)
class BasicRecover(Method):
    requeue: Bit = False


@amqp_method("basic.recover-ok", 60, 111)
class BasicRecoverOk(Method):
    pass


@amqp_method("basic.nack", 60, 120)
class BasicNack(Method):
    delivery_tag: Longlong = 0
    multiple: Bit = False
    requeue: Bit = True


@amqp_method("tx.select", 90, 10, synchronous=True)
class TxSelect(Method):
    pass


@amqp_method("tx.select-ok", 90, 11)
class TxSelectOk(Method):
    pass


@amqp_method("tx.commit", 90, 20, synchronous=True)
class TxCommit(Method):
    pass


@amqp_method("tx.commit-ok", 90, 21)
class TxCommitOk(Method):
    pass


@amqp_method("tx.rollback", 90, 30, synchronous=True)
class TxRollback(Method):
    pass


@amqp_method("tx.rollback-ok", 90, 31)
class TxRollbackOk(Method):
    pass


@amqp_method("confirm.select", 85, 10, synchronous=True)
class ConfirmSelect(Method):
    no_wait: Bit = False


@amqp_method("confirm.select-ok", 85, 11)
class ConfirmSelectOk(Method):
    pass


def decode_publish_args(args: bytes) -> tuple[str, str, bool, bool]:
    """What a run of basic.publish says: exchange, routing key, mandatory, immediate.

    Args:
        args: the arguments after the ticket, as `scan` hands them out.

    Raises:
        FrameError: 501, not UTF-8.
    """
    reader = Reader(args)
    try:
        exchange, routing_key, flags = reader.shortstr(), reader.shortstr(), reader.octet()
        reader.finish()
    except FrameError as error:
        error.class_id, error.method_id = BasicPublish.class_id, BasicPublish.method_id
        raise
    return exchange, routing_key, bool(flags & 1), bool(flags & 2)
