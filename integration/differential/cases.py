"""The cases of `frames`: what is wrong with each is its name."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from fnmatch import fnmatchcase

from integration.raw import BODY, CONTENT, HEADER, HEARTBEAT, METHOD, content, frame, method, publish, short
from node.wire.methods import (
    AccessRequest,
    BasicAck,
    BasicCancel,
    BasicConsume,
    BasicDeliver,
    BasicGet,
    BasicNack,
    BasicPublish,
    BasicQos,
    BasicRecover,
    BasicRecoverAsync,
    BasicReject,
    ChannelClose,
    ChannelCloseOk,
    ChannelFlow,
    ChannelFlowOk,
    ChannelOpen,
    ConfirmSelect,
    ConnectionBlocked,
    ConnectionClose,
    ConnectionCloseOk,
    ConnectionOpen,
    ConnectionStartOk,
    ConnectionTuneOk,
    ConnectionUpdateSecret,
    ExchangeDeclare,
    Method,
    QueueBind,
    QueueDeclare,
    QueueDeclareOk,
    QueueDelete,
    QueuePurge,
    TxCommit,
    TxRollback,
    TxSelect,
    method_frame,
)

FRAME_MAX = 131072


class Stage(IntEnum):
    """How far a connection has come when the case begins."""

    HEADER = 0
    """Nothing was said."""
    START = 1
    """connection.start has come."""
    TUNE = 2
    """connection.tune has come."""
    OPEN = 3
    """connection.tune-ok was sent."""
    CHANNEL = 4
    """Channel 1 is open."""


@dataclass(slots=True, frozen=True)
class Case:
    """`row`: the row of docs/deviations.md that says how Warren differs; None: it must not."""

    stage: Stage
    data: bytes
    row: str | None = None


def _start_ok(mechanism: str, response: bytes, *, tells: bool = True, locale: str = "en_US") -> bytes:
    properties = {"capabilities": {"authentication_failure_close": True}} if tells else {}
    return method_frame(0, ConnectionStartOk(properties, mechanism, response, locale))  # type: ignore[arg-type]


def _amqplain(login: str, password: str) -> bytes:
    return b"".join(
        short(name) + b"S" + struct.pack(">I", len(value)) + value.encode()
        for name, value in (("LOGIN", login), ("PASSWORD", password))
    )


def _table(entries: bytes) -> bytes:
    return struct.pack(">I", len(entries)) + entries


def _declare(arguments: bytes, name: bytes = b"\x0cframes.table") -> bytes:
    """queue.declare, passive, of a queue that is not there, with a table of any bytes."""
    return method(1, 50, 10, b"\0\0" + name + b"\x01" + arguments)


def _header(properties: bytes, size: int = 1, *, class_id: int = 60, weight: int = 0) -> bytes:
    return frame(CONTENT, 1, struct.pack(">HHQ", class_id, weight, size) + properties)


PUBLISH = publish(1, "frames.none")
HEADERS = b"\x20\x00"


def _protocol() -> Iterator[tuple[str, Case]]:
    for name, data in {
        "AMQP 0-9": b"AMQP\x01\x01\x00\x09",
        "AMQP 0-8": b"AMQP\x01\x01\x08\x00",
        "AMQP 0-9-0": b"AMQP\x00\x00\x09\x00",
        "AMQP 0-9-2": b"AMQP\x00\x00\x09\x02",
        "AMQP 0-10": b"AMQP\x01\x01\x00\x0a",
        "AMQP 1.0": b"AMQP\x00\x01\x00\x00",
        "AMQP 1.0 with SASL": b"AMQP\x03\x01\x00\x00",
        "HTTP": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        "a frame without a header": method_frame(0, ConnectionOpen("/")),
    }.items():
        yield f"header: {name}", Case(Stage.HEADER, data)


def _login() -> Iterator[tuple[str, Case]]:
    plain = b"\0guest\0guest"
    for name, data in {
        "AMQPLAIN": _start_ok("AMQPLAIN", _amqplain("guest", "guest")),
        "AMQPLAIN, wrong password": _start_ok("AMQPLAIN", _amqplain("guest", "wrong")),
        "AMQPLAIN without password": _start_ok("AMQPLAIN", short("LOGIN") + b"S\0\0\0\x05guest"),
        "AMQPLAIN, broken table": _start_ok("AMQPLAIN", b"\x05LOGINS\0\0\0\x50x"),
        "wrong password": _start_ok("PLAIN", b"\0guest\0wrong"),
        "wrong password, client without capability": _start_ok("PLAIN", b"\0guest\0wrong", tells=False),
        "no such user": _start_ok("PLAIN", b"\0nobody\0guest"),
        "authorisation id": _start_ok("PLAIN", b"guest\0guest\0guest"),
        "empty response": _start_ok("PLAIN", b""),
        "response without password": _start_ok("PLAIN", b"\0guest"),
        "response of other bytes": _start_ok("PLAIN", b"\xff\xfe"),
        "unknown mechanism": _start_ok("KERBEROS", plain),
        "unknown mechanism, client without capability": _start_ok("KERBEROS", plain, tells=False),
        "unknown locale": _start_ok("PLAIN", plain, locale="xx_YY"),
        "tune-ok too early": method_frame(0, ConnectionTuneOk(2047, FRAME_MAX, 0)),
        "open too early": method_frame(0, ConnectionOpen("/")),
        "channel.open too early": method_frame(1, ChannelOpen()),
        "close at once": method_frame(0, ConnectionClose(200, "bye")),
        "a broken frame": frame(METHOD, 0, b"\0\x0a\0\x0b", b"\x00"),
        "a large frame": frame(METHOD, 0, bytes(FRAME_MAX)),
        "arguments missing": method(0, 10, 11),
    }.items():
        yield f"start: {name}", Case(Stage.START, data)


def _tuning() -> Iterator[tuple[str, Case]]:
    opened = method_frame(0, ConnectionOpen("/"))
    for name, tuned in {
        "as offered": (2047, FRAME_MAX, 60),
        "no limits": (0, 0, 0),
        "frame_max 8192": (2047, 8192, 0),
        "frame_max too large": (2047, FRAME_MAX + 1, 0),
        "frame_max of 100": (2047, 100, 0),
        "channel_max 1": (1, FRAME_MAX, 0),
        "channel_max too large": (2048, FRAME_MAX, 0),
        "long heartbeat": (2047, FRAME_MAX, 65535),
    }.items():
        yield f"tune: {name}", Case(Stage.TUNE, method_frame(0, ConnectionTuneOk(*tuned)) + opened)
    yield "tune: open instead", Case(Stage.TUNE, opened)
    yield "tune: start-ok again", Case(Stage.TUNE, _start_ok("PLAIN", b"\0guest\0guest"))
    for name, data in {
        "no such virtual host": method_frame(0, ConnectionOpen("nowhere")),
        "empty virtual host": method_frame(0, ConnectionOpen("")),
        "tune-ok again": method_frame(0, ConnectionTuneOk(2047, FRAME_MAX, 0)),
        "channel.open too early": method_frame(1, ChannelOpen()),
        "on channel 1": method_frame(1, ConnectionOpen("/")),
        "close instead": method_frame(0, ConnectionClose(200, "bye")),
        "close-ok instead": method_frame(0, ConnectionCloseOk()),
    }.items():
        yield f"open: {name}", Case(Stage.OPEN, data)


def _frames() -> Iterator[tuple[str, Case]]:
    for name, data in {
        "wrong end": frame(METHOD, 1, b"\0\x14\0\x14\x01", b"\x00"),
        "too large": frame(METHOD, 1, bytes(FRAME_MAX)),
        "just too large": frame(BODY, 1, bytes(FRAME_MAX - 7)),
        "type 0": frame(0, 1, b"x"),
        "type 4": frame(4, 1, b"x"),
        "type 9": frame(9, 1, b"x"),
        "type 9 on channel 0": frame(9, 0, b"x"),
        "empty method": frame(METHOD, 1, b""),
        "method of two bytes": frame(METHOD, 1, b"\0\x32"),
        "heartbeat": frame(HEARTBEAT, 0, b""),
        "heartbeat with payload": frame(HEARTBEAT, 0, b"x"),
        "heartbeat on a channel": frame(HEARTBEAT, 1, b""),
        "heartbeat on a channel that is not open": frame(HEARTBEAT, 7, b""),
        "unknown class": method(1, 99, 1),
        "unknown method": method(1, 50, 99),
        "unknown method on channel 0": method(0, 10, 99),
        "method on a channel that is not open": method_frame(7, QueueDeclare(queue="q")),
        "publish on a channel that is not open": publish(7, "q") + content(7, 0),
        "content header on a channel that is not open": content(7, 0),
        "body on a channel that is not open": frame(BODY, 7, b"x"),
        "content header on channel 0": content(0, 0),
        "body on channel 0": frame(BODY, 0, b"x"),
        "queue.declare on channel 0": method_frame(0, QueueDeclare(queue="q")),
        "channel.open on channel 0": method_frame(0, ChannelOpen()),
        "connection.open on channel 1": method_frame(1, ConnectionOpen("/")),
        "connection.close on channel 1": method_frame(1, ConnectionClose(200, "bye")),
        "channel 2048": method_frame(2048, ChannelOpen()),
        "channel 2047": method_frame(2047, ChannelOpen()),
        "protocol header again": HEADER,
    }.items():
        yield f"frame: {name}", Case(Stage.CHANNEL, data)


def _contents() -> Iterator[tuple[str, Case]]:
    for name, data in {
        "method instead of header": PUBLISH + method_frame(1, ChannelFlow(active=True)),
        "body instead of header": PUBLISH + frame(BODY, 1, b"x"),
        "second publish": PUBLISH + PUBLISH,
        "header without publish": content(1, 0),
        "body without publish": frame(BODY, 1, b"x"),
        "header of another class": PUBLISH + content(1, 0, class_id=50),
        "header again": PUBLISH + content(1, 1) + content(1, 1),
        "method instead of body": PUBLISH + content(1, 1) + method_frame(1, QueueDeclare(queue="q")),
        "channel.close instead of body": PUBLISH + content(1, 1) + method_frame(1, ChannelClose(200)),
        "connection.close instead of body": PUBLISH + content(1, 1) + method_frame(0, ConnectionClose(200)),
        "heartbeat instead of body": PUBLISH
        + content(1, 1)
        + frame(HEARTBEAT, 0, b"")
        + frame(BODY, 1, b"x"),
        "body too long": PUBLISH + content(1, 1) + frame(BODY, 1, b"xy"),
        "body too long in the second frame": PUBLISH
        + content(1, 2)
        + frame(BODY, 1, b"x")
        + frame(BODY, 1, b"xy"),
        "body after the end": PUBLISH + content(1, 1) + frame(BODY, 1, b"x") + frame(BODY, 1, b"x"),
        "empty bodies": PUBLISH + content(1, 1) + frame(BODY, 1, b"") * 3 + frame(BODY, 1, b"x"),
        "empty body after none": PUBLISH + content(1, 0) + frame(BODY, 1, b""),
        "weight": PUBLISH + _header(b"\0\0", weight=1) + frame(BODY, 1, b"x"),
        "size above all limits": PUBLISH + content(1, 1 << 40),
        "short header": PUBLISH + frame(CONTENT, 1, b"\0\x3c\0\0\0\0"),
        "no flags": PUBLISH + frame(CONTENT, 1, struct.pack(">HHQ", 60, 0, 1)),
        "too few properties": PUBLISH + _header(b"\x80\x00") + frame(BODY, 1, b"x"),
        "text longer than the frame": PUBLISH + _header(b"\x80\x00\x05ab") + frame(BODY, 1, b"x"),
        "more bytes than properties": PUBLISH + _header(b"\x00\x00more") + frame(BODY, 1, b"x"),
        "further flags": PUBLISH + _header(b"\x00\x01\x00\x00") + frame(BODY, 1, b"x"),
        "headers of an unknown type": PUBLISH + _header(HEADERS + _table(b"\x01a?x")) + frame(BODY, 1, b"x"),
        "headers with a broken length": PUBLISH
        + _header(HEADERS + b"\0\0\xff\xff\x01a")
        + frame(BODY, 1, b"x"),
        "content type not UTF-8": PUBLISH + _header(b"\x80\x00\x02\xff\xfe") + frame(BODY, 1, b"x"),
        "delivery mode 0": PUBLISH + _header(b"\x10\x00\x00") + frame(BODY, 1, b"x"),
        "delivery mode 3": PUBLISH + _header(b"\x10\x00\x03") + frame(BODY, 1, b"x"),
    }.items():
        yield f"content: {name}", Case(Stage.CHANNEL, data)


def _arguments() -> Iterator[tuple[str, Case]]:
    for name, data in {
        "missing": method(1, 50, 10),
        "cut": method(1, 50, 10, b"\0\0\x05ab"),
        "too many": method(1, 50, 10, b"\0\0\x01q\x01\0\0\0\0more"),
        "bits that mean nothing": method(1, 50, 10, b"\0\0\x0dframes.bits.q\xe1\0\0\0\0"),
        "name not UTF-8": _declare(b"\0\0\0\0", b"\x02\xff\xfe"),
        "NUL in a name": _declare(b"\0\0\0\0", b"\x03a\0b"),
        "line end in a name": _declare(b"\0\0\0\0", b"\x0cframes\nline\r"),
        "quote in a name": _declare(b"\0\0\0\0", b"\x08frames'q"),
        "name of 255": _declare(b"\0\0\0\0", b"\xff" + b"n" * 255),
        "table of an unknown type": _declare(_table(b"\x01a?x")),
        "table with a broken length": _declare(b"\0\0\xff\xff\x01a"),
        "table with a cut value": _declare(_table(b"\x01aI\0\0")),
        "table with equal names": _declare(_table(b"\x01at\x01\x01at\x00")),
        "table with an empty name": _declare(_table(b"\x00t\x01")),
        "table in tables": _declare(_nested(20)),
        "array with a broken length": _declare(_table(b"\x01aA\0\0\0\x09t\x01")),
        "all types of a table": _declare(
            _table(
                b"\x01at\x01\x01bb\xff\x01cB\xff\x01ds\xff\xff\x01eu\xff\xff\x01fI\xff\xff\xff\xff\x01gi\xff\xff\xff\xff"
                b"\x01hl\xff\xff\xff\xff\xff\xff\xff\xff\x01if\0\0\0\0\x01jd\0\0\0\0\0\0\0\0\x01kD\x02\0\0\0\x01"
                b"\x01lS\0\0\0\x01x\x01mA\0\0\0\x02t\x01\x01nT\0\0\0\0\0\0\0\x01\x01oF\0\0\0\0\x01pV\x01qx\0\0\0\x01x"
            )
        ),
    }.items():
        yield f"arguments: {name}", Case(Stage.CHANNEL, data)


def _nested(depth: int) -> bytes:
    table = _table(b"")
    for _ in range(depth):
        table = _table(b"\x01aF" + table)
    return table


def _methods() -> Iterator[tuple[str, Case]]:
    yield from _on_channel({
        "channel.open again": (ChannelOpen(),),
        "channel.close-ok unasked": (ChannelCloseOk(),),
        "channel.flow off": (ChannelFlow(active=False),),
        "channel.flow-ok unasked": (ChannelFlowOk(active=True),),
        "queue.declare-ok from a client": (QueueDeclareOk(),),
        "basic.deliver from a client": (BasicDeliver("t", 1, False, "", ""),),
        "access.request": (AccessRequest(),),
        "ack of nothing": (BasicAck(1),),
        "ack of all that is not there": (BasicAck(0, multiple=True),),
        "ack of 0": (BasicAck(0),),
        "ack multiple of nothing": (BasicAck(5, multiple=True),),
        "nack of nothing": (BasicNack(1),),
        "nack of all that is not there": (BasicNack(0, multiple=True),),
        "reject of nothing": (BasicReject(1),),
        "reject of 0": (BasicReject(0),),
        "qos with a size": (BasicQos(prefetch_size=7),),
        "recover": (BasicRecover(requeue=True),),
        "recover without requeue": (BasicRecover(requeue=False),),
        "recover-async": (BasicRecoverAsync(requeue=True),),
        "recover-async without requeue": (BasicRecoverAsync(requeue=False),),
    })  # fmt: skip


def _names() -> Iterator[tuple[str, Case]]:
    yield from _on_channel({
        "get of no queue": (BasicGet(queue=""),),
        "get of a queue that is not there": (BasicGet(queue="frames.none"),),
        "consume of no queue": (BasicConsume(queue=""),),
        "consume of a queue that is not there": (BasicConsume(queue="frames.none"),),
        "cancel of nothing": (BasicCancel("frames.tag"),),
        "cancel of an empty tag": (BasicCancel(""),),
        "purge of no queue": (QueuePurge(queue=""),),
        "delete of no queue": (QueueDelete(queue=""),),
        "delete of a queue that is not there": (QueueDelete(queue="frames.none"),),
        "bind of no queue with a key": (QueueBind(queue="", exchange="amq.direct", routing_key="k"),),
        "bind of no queue": (QueueBind(queue="", exchange="amq.direct"),),
        "passive declare of no queue": (QueueDeclare(queue="", passive=True),),
        "declare with a name of the broker": (QueueDeclare(queue="amq.frames"),),
        "passive declare of a name of the broker": (QueueDeclare(queue="amq.frames", passive=True),),
        "exchange of no type": (ExchangeDeclare(exchange="frames.x", type=""),),
        "exchange of an unknown type": (ExchangeDeclare(exchange="frames.x", type="fairness"),),
        "passive exchange of an unknown type": (
            ExchangeDeclare(exchange="amq.direct", type="fairness", passive=True),
        ),
        "passive default exchange": (ExchangeDeclare(exchange="", type="direct", passive=True),),
        "declare and no answer, refused": (
            QueueDeclare(queue="amq.frames", no_wait=True),
        ),
    })  # fmt: skip


def _modes() -> Iterator[tuple[str, Case]]:
    yield from _on_channel({
        "tx.commit without tx": (TxCommit(),),
        "tx.rollback without tx": (TxRollback(),),
        "tx twice": (TxSelect(), TxSelect()),
        "tx, then confirm": (TxSelect(), ConfirmSelect()),
        "confirm, then tx": (ConfirmSelect(), TxSelect()),
        "confirm twice": (ConfirmSelect(), ConfirmSelect()),
        "publish immediate": (BasicPublish(exchange="", routing_key="q", immediate=True),),
        "direct reply with acks": (BasicConsume(queue="amq.rabbitmq.reply-to", consumer_tag="c"),),
        "direct reply twice": (
            BasicConsume(queue="amq.rabbitmq.reply-to", consumer_tag="c", no_ack=True),
            BasicConsume(queue="amq.rabbitmq.reply-to", consumer_tag="d", no_ack=True),
        ),
        "direct reply": (BasicConsume(queue="amq.rabbitmq.reply-to", consumer_tag="c", no_ack=True),),
        "get from direct reply": (BasicGet(queue="amq.rabbitmq.reply-to"),),
        "passive declare of direct reply": (QueueDeclare(queue="amq.rabbitmq.reply-to", passive=True),),
        "passive declare of another's direct reply": (
            QueueDeclare(queue="amq.rabbitmq.reply-to.nobody", passive=True),
        ),
        "declare of direct reply": (QueueDeclare(queue="amq.rabbitmq.reply-to"),),
        "bind of direct reply": (QueueBind(queue="amq.rabbitmq.reply-to", exchange="amq.direct", routing_key="k"),),
        "delete of direct reply": (QueueDelete(queue="amq.rabbitmq.reply-to"),),
        "purge of direct reply": (QueuePurge(queue="amq.rabbitmq.reply-to"),),
    })  # fmt: skip


def _connection() -> Iterator[tuple[str, Case]]:
    for name, each in {
        "open again": ConnectionOpen("/"),
        "start-ok again": ConnectionStartOk({}, "PLAIN", b"\0guest\0guest"),
        "tune-ok again": ConnectionTuneOk(2047, FRAME_MAX, 0),
        "close-ok unasked": ConnectionCloseOk(),
        "close": ConnectionClose(200, "bye"),
        "update-secret": ConnectionUpdateSecret(b"guest", "renewed"),
        "blocked from a client": ConnectionBlocked("because"),
    }.items():
        yield f"connection: {name}", Case(Stage.CHANNEL, method_frame(0, each))


def _ends() -> Iterator[tuple[str, Case]]:
    """What was sent ahead is answered first."""
    lasts = {
        "unknown tag": method_frame(1, BasicAck(99)),
        "flow stopped": method_frame(1, ChannelFlow(active=False)),
        "queue that is not there": method_frame(1, QueueDeclare(queue="frames.none", passive=True)),
        "connection.close": method_frame(0, ConnectionClose(200, "bye")),
        "method on a closed channel": method_frame(9, QueueDeclare(queue="frames.four")),
    }
    for number, (name, last) in enumerate(lasts.items()):
        # Names of its own: cases run side by side, and an exclusive queue is locked for others until it is gone.
        names = (f"frames.{number}.{place}" for place in range(3))
        before = b"".join(method_frame(1, QueueDeclare(queue=queue, exclusive=True)) for queue in names)
        yield f"end: {name} after declarations", Case(Stage.CHANNEL, before + last)


def _on_channel(wrong: dict[str, tuple[Method, ...]]) -> Iterator[tuple[str, Case]]:
    for name, methods in wrong.items():
        data = b"".join(method_frame(1, each) for each in methods)
        if isinstance(methods[-1], BasicPublish):
            data += content(1, 0)
        yield f"method: {name}", Case(Stage.CHANNEL, data)


ROWS: dict[str, tuple[str, ...]] = {
    "errors during login end the connection silently": (
        *("start: AMQPLAIN without password", "start: AMQPLAIN, broken table", "start: *empty response"),
        *("start: response *", "start: unknown mechanism*", "start: * too early", "start: close at once"),
        *("start: a broken frame", "start: a large frame", "start: arguments missing", "tune: no limits"),
        *("tune: * too large", "tune: frame_max of 100", "tune: open instead", "tune: start-ok again"),
        "open: close instead",
    ),
    "an authorization identity in PLAIN": ("start: authorisation id",),
    "clients of AMQP 0-8": ("header: AMQP 0-8",),
    "unknown methods, and what cannot be decoded": (
        *("frame: too large", "frame: unknown *", "content: short header", "content: no flags"),
        *("content: too few properties", "content: text longer *", "content: more bytes *"),
        *(
            "content: further flags",
            "content: headers *",
            "arguments: name not UTF-8",
            "arguments: table of an *",
        ),
        *("arguments: table with a cut value", "arguments: array *"),
    ),
    "a frame of an unknown type": ("frame: type *", "frame: protocol header again"),
    "a body that is too long": ("content: body too long*", "content: size above all limits"),
    "a content header's weight is 0": ("content: weight",),
    "`delivery-mode` other than 1 and 2": ("content: delivery mode *",),
    "a channel.close-ok that nobody waits for": ("method: channel.close-ok unasked",),
    "a method with content that only a broker sends": ("method: basic.deliver from a client",),
    "an unknown exchange type is 503": ("method: exchange of *",),
    "to bind or unbind `amq.rabbitmq.reply-to`": ("method: bind of direct reply",),
}
"""What rows of docs/deviations.md begin with, and the cases that they explain."""


def _row_of(name: str) -> str | None:
    fitting = (row for row, patterns in ROWS.items() if any(fnmatchcase(name, each) for each in patterns))
    return next(fitting, None)


GROUPS = (
    *(_protocol, _login, _tuning, _connection),
    *(_frames, _contents, _arguments, _methods, _names, _modes, _ends),
)

CASES: dict[str, Case] = {
    name: Case(case.stage, case.data, _row_of(name)) for group in GROUPS for name, case in group()
}
