"""A minimal AMQP client without a socket: calls become bytes, bytes become events.

Written for tests and the simulator, on the broker's own codec; it trusts the server where a real client would
check.
"""

import struct
from dataclasses import dataclass
from typing import Any

from node.wire.codec import ACK, BODY, ERROR, HEADER, HEARTBEAT, METHOD, Item, scan
from node.wire.methods import (
    BasicAck,
    BasicCancel,
    BasicConsume,
    BasicDeliver,
    BasicGet,
    BasicGetOk,
    BasicNack,
    BasicPublish,
    BasicQos,
    BasicReject,
    BasicReturn,
    ChannelClose,
    ChannelCloseOk,
    ChannelOpen,
    ConfirmSelect,
    ConnectionClose,
    ConnectionCloseOk,
    ConnectionOpen,
    ConnectionOpenOk,
    ConnectionStart,
    ConnectionStartOk,
    ConnectionTune,
    ConnectionTuneOk,
    ExchangeDeclare,
    ExchangeDelete,
    Method,
    QueueBind,
    QueueDeclare,
    QueueDelete,
    QueuePurge,
    decode_method,
    frame,
    method_frame,
)
from node.wire.primitives import Table
from node.wire.properties import BasicProperties, encode_header

NO_PROPERTIES = b"\x00\x00"
PERSISTENT = b"\x10\x00\x02"  # only delivery-mode, 2
RUN_BYTES_MAX = 1 << 20


@dataclass(slots=True)
class ConnectionReady:
    """connection.open-ok has come."""


@dataclass(slots=True)
class ConnectionGone:
    """The server has closed the connection, or answered our close (code 0)."""

    reply_code: int
    reply_text: str


@dataclass(slots=True)
class ChannelGone:
    """The server has closed the channel."""

    channel: int
    reply_code: int
    reply_text: str


@dataclass(slots=True)
class Replied:
    """Any method without content."""

    channel: int
    method: Method


@dataclass(slots=True)
class Confirmed:
    """The broker took (or refused) these messages; each number is told once, ascending."""

    channel: int
    seqs: list[int]
    ok: bool


@dataclass(slots=True)
class Received:
    """A message: `method` is a BasicDeliver, BasicGetOk or BasicReturn."""

    channel: int
    method: BasicDeliver | BasicGetOk | BasicReturn
    properties: bytes
    body: bytes


ClientEvent = ConnectionReady | ConnectionGone | ChannelGone | Replied | Confirmed | Received


@dataclass(slots=True)
class _Incoming:
    method: Any
    properties: bytes = b""
    missing: int = -1
    body: bytes = b""


class AmqpClient:
    """One client connection. `open` first; take what is to be sent with `data_to_send`.

    Args:
        user, password, vhost: for the handshake.
        frame_max: greatest frame in bytes that the client takes.
        heartbeat_s: 0 for none.
        properties: client properties; capabilities belong there.
    """

    def __init__(
        self,
        user: str = "guest",
        password: str = "guest",
        vhost: str = "/",
        *,
        frame_max: int = 131_072,
        heartbeat_s: int = 0,
        properties: Table | None = None,
    ) -> None:
        self.user = user
        self.password = password
        self.vhost = vhost
        self.frame_max = frame_max
        self.heartbeat_s = heartbeat_s
        capabilities: Table = {"authentication_failure_close": True, "consumer_cancel_notify": True}
        self.properties: Table = {"capabilities": capabilities} if properties is None else properties
        self.server_properties: Table = {}
        self.ready = False
        self.closed = False
        self._out: list[bytes] = []
        self._rest = b""
        self._incoming: dict[int, _Incoming] = {}
        self._next_seq: dict[int, int] = {}  # of channels in confirm mode
        self._unconfirmed: dict[int, dict[int, None]] = {}

    # Bytes

    def data_to_send(self) -> bytes:
        """All bytes for the server since the last call."""
        data = b"".join(self._out)
        self._out.clear()
        return data

    def receive_data(self, data: bytes) -> list[ClientEvent]:
        """Take bytes of the server."""
        self._rest += data
        events: list[ClientEvent] = []
        items, consumed = scan(self._rest, self.frame_max, RUN_BYTES_MAX)
        self._rest = self._rest[consumed:]
        for item in items:
            self._receive(item, events)
        return events

    # Calls

    def open(self) -> None:
        """Begin: everything up to connection.open-ok follows by itself."""
        self._out.append(b"AMQP\x00\x00\x09\x01")

    def close(self) -> None:
        """Say goodbye."""
        self.send(0, ConnectionClose(reply_code=200, reply_text="Goodbye"))

    def send(self, channel: int, method: Method) -> None:
        """Send any method."""
        self._out.append(method_frame(channel, method))

    def open_channel(self, channel: int) -> None:
        """channel.open."""
        self._next_seq.pop(channel, None)
        self._unconfirmed.pop(channel, None)
        self.send(channel, ChannelOpen())

    def close_channel(self, channel: int) -> None:
        """channel.close."""
        self.send(channel, ChannelClose(reply_code=200))

    def confirm_select(self, channel: int, *, no_wait: bool = False) -> None:
        """Ask for confirms; `publish` returns numbers from here on."""
        self._next_seq.setdefault(channel, 1)
        self._unconfirmed.setdefault(channel, {})
        self.send(channel, ConfirmSelect(no_wait=no_wait))

    def declare(self, channel: int, queue: str, arguments: Table | None = None, **flags: bool) -> None:
        """queue.declare; flags as in the method (durable, exclusive, auto_delete, passive, no_wait)."""
        self.send(channel, QueueDeclare(queue=queue, arguments=arguments or {}, **flags))

    def delete(self, channel: int, queue: str, **flags: bool) -> None:
        """queue.delete."""
        self.send(channel, QueueDelete(queue=queue, **flags))

    def purge(self, channel: int, queue: str) -> None:
        """queue.purge."""
        self.send(channel, QueuePurge(queue=queue))

    def declare_exchange(self, channel: int, exchange: str, kind: str = "direct", **flags: bool) -> None:
        """exchange.declare."""
        self.send(channel, ExchangeDeclare(exchange=exchange, type=kind, **flags))  # type: ignore[arg-type]

    def delete_exchange(self, channel: int, exchange: str) -> None:
        """exchange.delete."""
        self.send(channel, ExchangeDelete(exchange=exchange))

    def bind(
        self, channel: int, queue: str, exchange: str, routing_key: str = "", arguments: Table | None = None
    ) -> None:
        """queue.bind."""
        self.send(
            channel,
            QueueBind(queue=queue, exchange=exchange, routing_key=routing_key, arguments=arguments or {}),
        )

    def publish(
        self,
        channel: int,
        exchange: str,
        routing_key: str,
        body: bytes,
        properties: bytes | BasicProperties = PERSISTENT,
        *,
        mandatory: bool = False,
    ) -> int:
        """basic.publish; its confirm number, 0 outside confirm mode.

        Args:
            properties: if bytes: flags and values as in the content header.
        """
        if isinstance(properties, BasicProperties):
            header = encode_header(len(body), properties)
        else:
            header = struct.pack(">HHQ", 60, 0, len(body)) + properties
        method = BasicPublish(exchange=exchange, routing_key=routing_key, mandatory=mandatory)
        self._out.append(method_frame(channel, method))
        self._out.append(frame(2, channel, header))
        size = self.frame_max - 8
        self._out.extend(frame(3, channel, body[at : at + size]) for at in range(0, len(body), size))
        if channel not in self._next_seq:
            return 0
        seq = self._next_seq[channel]
        self._next_seq[channel] = seq + 1
        self._unconfirmed[channel][seq] = None
        return seq

    def qos(self, channel: int, prefetch_count: int, *, is_global: bool = False) -> None:
        """basic.qos."""
        self.send(channel, BasicQos(prefetch_count=prefetch_count, global_=is_global))

    def consume(
        self,
        channel: int,
        queue: str,
        consumer_tag: str = "",
        *,
        no_ack: bool = False,
        exclusive: bool = False,
        arguments: Table | None = None,
    ) -> None:
        """basic.consume."""
        self.send(
            channel,
            BasicConsume(
                queue=queue,
                consumer_tag=consumer_tag,
                no_ack=no_ack,
                exclusive=exclusive,
                arguments=arguments or {},
            ),
        )

    def cancel(self, channel: int, consumer_tag: str) -> None:
        """basic.cancel."""
        self.send(channel, BasicCancel(consumer_tag=consumer_tag))

    def get(self, channel: int, queue: str, *, no_ack: bool = False) -> None:
        """basic.get."""
        self.send(channel, BasicGet(queue=queue, no_ack=no_ack))

    def ack(self, channel: int, delivery_tag: int, *, multiple: bool = False) -> None:
        """basic.ack."""
        self.send(channel, BasicAck(delivery_tag=delivery_tag, multiple=multiple))

    def nack(self, channel: int, delivery_tag: int, *, multiple: bool = False, requeue: bool = True) -> None:
        """basic.nack."""
        self.send(channel, BasicNack(delivery_tag=delivery_tag, multiple=multiple, requeue=requeue))

    def reject(self, channel: int, delivery_tag: int, *, requeue: bool = True) -> None:
        """basic.reject."""
        self.send(channel, BasicReject(delivery_tag=delivery_tag, requeue=requeue))

    def unconfirmed(self, channel: int) -> list[int]:
        """Numbers of published messages without an answer, ascending."""
        return list(self._unconfirmed.get(channel, ()))

    # What the server says

    def _receive(self, item: Item, events: list[ClientEvent]) -> None:
        channel = item[1]
        assert item[0] != ERROR, f"the server sent a broken frame: {item}"
        if item[0] == HEARTBEAT:
            return
        if item[0] in (HEADER, BODY):
            self._receive_content(channel, item, events)
        elif item[0] == ACK:
            assert isinstance(item[2], int)
            for tag in range(item[2], item[3] + 1):
                self._receive_confirm(channel, tag, multiple=item[4], ok=True, events=events)
        else:
            assert item[0] == METHOD, "clients are sent no publishes"
            self._receive_method(channel, decode_method(item[2], item[3]), events)

    def _receive_method(self, channel: int, method: Method, events: list[ClientEvent]) -> None:
        assert channel not in self._incoming, f"{method} in the middle of a content"
        match method:
            case ConnectionStart():
                self.server_properties = method.server_properties
                response = f"\0{self.user}\0{self.password}".encode()
                self.send(0, ConnectionStartOk(self.properties, "PLAIN", response))
            case ConnectionTune():
                self.frame_max = min(self.frame_max, method.frame_max) if method.frame_max else self.frame_max
                self.send(0, ConnectionTuneOk(method.channel_max, self.frame_max, self.heartbeat_s))
                self.send(0, ConnectionOpen(self.vhost))
            case ConnectionOpenOk():
                self.ready = True
                events.append(ConnectionReady())
            case ConnectionClose():
                self.send(0, ConnectionCloseOk())
                self._gone(method.reply_code, method.reply_text, events)
            case ConnectionCloseOk():
                self._gone(0, "", events)
            case ChannelClose():
                self.send(channel, ChannelCloseOk())
                events.append(ChannelGone(channel, method.reply_code, method.reply_text))
            case BasicDeliver() | BasicGetOk() | BasicReturn():
                self._incoming[channel] = _Incoming(method)
            case BasicAck() | BasicNack():
                is_ack = isinstance(method, BasicAck)
                self._receive_confirm(
                    channel, method.delivery_tag, multiple=method.multiple, ok=is_ack, events=events
                )
            case _:
                events.append(Replied(channel, method))

    def _gone(self, reply_code: int, reply_text: str, events: list[ClientEvent]) -> None:
        self.ready = False
        self.closed = True
        events.append(ConnectionGone(reply_code, reply_text))

    def _receive_content(self, channel: int, item: Item, events: list[ClientEvent]) -> None:
        incoming = self._incoming[channel]
        payload = item[2]
        assert isinstance(payload, bytes)
        if item[0] == HEADER:
            assert incoming.missing < 0, "two content headers"
            incoming.missing = int.from_bytes(payload[4:12], "big")
            incoming.properties = payload[12:]
        else:
            assert 0 < len(payload) <= incoming.missing, "body frames do not add up"
            incoming.body += payload
            incoming.missing -= len(payload)
        if incoming.missing == 0:
            del self._incoming[channel]
            events.append(Received(channel, incoming.method, incoming.properties, incoming.body))

    def _receive_confirm(
        self, channel: int, tag: int, *, multiple: bool, ok: bool, events: list[ClientEvent]
    ) -> None:
        waiting = self._unconfirmed[channel]
        seqs = [seq for seq in waiting if seq <= tag] if multiple else [tag]
        for seq in seqs:
            assert seq in waiting, f"confirm {seq} came twice or unasked"
            del waiting[seq]
        last = events[-1] if events else None
        if isinstance(last, Confirmed) and last.channel == channel and last.ok is ok:
            last.seqs += seqs
        else:
            events.append(Confirmed(channel, seqs, ok))
