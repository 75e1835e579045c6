"""One broker as a sequence meets it: its connections, what came on them, and what of it is unacknowledged."""

import re
import socket
from dataclasses import dataclass, field, replace

from integration.differential.steps import Step
from node.wire.methods import (
    BasicAck,
    BasicCancel,
    BasicCancelOk,
    BasicDeliver,
    BasicGetOk,
    BasicNack,
    BasicPublish,
    BasicRecover,
    BasicReject,
    ChannelClose,
    ChannelCloseOk,
    ConfirmSelect,
    ConnectionClose,
    ExchangeDelete,
    ExchangeDeleteOk,
    Method,
    QueueDelete,
    QueueDeleteOk,
    TxCommitOk,
    TxRollbackOk,
    frame,
)
from node.wire.properties import BasicProperties, encode_header
from tests.amqp_client import AmqpClient, ChannelGone, ClientEvent, ConnectionGone, Received, Replied

BARRIER = "barrier"
UNKNOWN_TAG = 4711
GENERATED = re.compile(r"amq\.(gen|ctag|rabbitmq\.reply-to)[\-.][\w\-+/=.]+")
REFERENCE = re.compile(r"amq\.(gen|ctag|rabbitmq\.reply-to)#\d+")
CONNECT_S_MAX = 20.0
CLEANING = 1900
"""First of the channels that take away what a sequence made."""


class Lost(Exception):
    """The broker closed the socket without a word."""


class Wire(AmqpClient):
    """Tells the closes of the server with all their fields."""

    def _receive_method(self, channel: int, method: Method, events: list[ClientEvent]) -> None:
        if isinstance(method, ChannelClose | ConnectionClose):
            events.append(Replied(channel, method))
        super()._receive_method(channel, method, events)


@dataclass(slots=True)
class Unacked:
    """A delivery that waits for its ack."""

    tag: int
    key: tuple[bytes, str]
    """Its body and its consumer: the same on both brokers."""


@dataclass(slots=True)
class Link:
    """One connection."""

    socket: socket.socket
    client: Wire
    channels: set[int] = field(default_factory=set)
    events: list[ClientEvent] = field(default_factory=list)
    unacked: dict[int, list[Unacked]] = field(default_factory=dict)
    settled: dict[int, list[Unacked]] = field(default_factory=dict)
    """What a transaction may yet roll back."""
    is_lost: bool = False

    def flush(self) -> None:
        """Send what the client has to say."""
        data = self.client.data_to_send()
        if data:
            try:
                self.socket.sendall(data)
            except OSError:
                self.is_lost = True

    def read(self) -> list[ClientEvent]:
        """Wait for bytes, and take them."""
        try:
            data = self.socket.recv(1 << 18)
        except OSError:
            data = b""
        if not data:
            self.is_lost = True
            return [] if self.client.closed else [ConnectionGone(-1, "the socket was closed without a word")]
        events = self.client.receive_data(data)
        self.flush()
        return events


class Side:
    """All connections of one sequence to one broker."""

    def __init__(self, host: str, port: int) -> None:
        self.address = (host, port)
        self.links: dict[int, Link] = {}
        self._names: dict[str, str] = {}

    def close(self) -> None:
        """End every connection, without waiting."""
        for number in list(self.links):
            self.drop(number)

    def drop(self, number: int) -> None:
        self.links.pop(number).socket.close()

    def clean(self, queues: list[str], exchanges: list[str]) -> None:
        """Take away what a sequence has made. Connections but the first end; its channels do."""
        for number in [number for number in self.links if number]:
            self.drop(number)
        link = self.link(0)
        for channel in sorted(link.channels):
            link.client.close_channel(channel)
        channel = CLEANING
        for method in [
            *(QueueDelete(queue=self.real(name)) for name in queues),
            *(ExchangeDelete(exchange=name) for name in exchanges),
        ]:
            self.open_channel(link, channel)
            link.client.send(channel, method)
            channel += 1
        link.flush()
        while link.channels:
            for event in link.read():
                self.note(link, event)
                if isinstance(event, Replied) and isinstance(event.method, QueueDeleteOk | ExchangeDeleteOk):
                    link.client.close_channel(event.channel)
            link.flush()
            if link.is_lost or link.client.closed:
                self.drop(0)
                break
        self._names.clear()

    def link(self, number: int) -> Link:
        """The connection of a number; a new one if the last was closed."""
        found = self.links.get(number)
        if found is not None and not found.client.closed and not found.is_lost:
            return found
        if found is not None:
            self.drop(number)
        return self.links.setdefault(number, self._connect())

    def open_channel(self, link: Link, channel: int) -> None:
        """Open a channel, unless it is."""
        if channel not in link.channels:
            link.channels.add(channel)
            link.unacked[channel], link.settled[channel] = [], []
            link.client.open_channel(channel)

    def send(self, step: Step, tag: int) -> None:
        """Send a step, and the barrier if it brings no answer of its own. `tag`: what `pick` chose."""
        link = self.link(step.connection)
        self.open_channel(link, step.channel)
        method = self.resolved(step.method)
        if isinstance(method, BasicAck | BasicNack | BasicReject) and step.pick is not None:
            method = replace(method, delivery_tag=tag)  # type: ignore[type-var]
        self._take(link, step.channel, method)
        if isinstance(method, BasicPublish):
            self._publish(link, step, method)
        elif isinstance(method, ConfirmSelect):
            link.client.confirm_select(step.channel, no_wait=method.no_wait)
        else:
            link.client.send(step.channel, method)
        if not is_answered(step.method):
            link.client.cancel(step.channel, BARRIER)
        link.flush()

    @staticmethod
    def _publish(link: Link, step: Step, method: BasicPublish) -> None:
        properties = step.properties or BasicProperties()
        if not method.immediate:
            link.client.publish(
                step.channel, method.exchange, method.routing_key, step.body, properties,
                mandatory=method.mandatory,
            )  # fmt: skip
            return
        link.client.send(step.channel, method)
        link.flush()
        header = frame(2, step.channel, encode_header(len(step.body), properties))
        link.socket.sendall(header + frame(3, step.channel, step.body))

    def _take(self, link: Link, channel: int, method: Method) -> None:
        """Forget what a step settles."""
        unacked = link.unacked[channel]
        if isinstance(method, BasicRecover):
            unacked.clear()
        if not isinstance(method, BasicAck | BasicNack | BasicReject):
            return
        tag, multiple = method.delivery_tag, getattr(method, "multiple", False)
        taken = [each for each in unacked if each.tag == tag or (multiple and (each.tag < tag or not tag))]
        link.unacked[channel] = [each for each in unacked if each not in taken]
        link.settled[channel] += taken

    def tag_of(self, step: Step, key: tuple[bytes, str] | None) -> int:
        """The delivery tag of a message on the step's channel."""
        unacked = self.unacked(step)
        return next((each.tag for each in unacked if each.key == key), UNKNOWN_TAG)

    def unacked(self, step: Step) -> list[Unacked]:
        """What the step's channel has not settled, by tag."""
        link = self.links.get(step.connection)
        return link.unacked.get(step.channel, []) if link is not None else []

    def note(self, link: Link, event: ClientEvent) -> None:
        """Follow what an event changes."""
        if isinstance(event, ChannelGone):
            link.channels.discard(event.channel)
        elif isinstance(event, Replied):
            if isinstance(event.method, ChannelCloseOk):
                link.channels.discard(event.channel)
            elif isinstance(event.method, TxCommitOk):
                link.settled[event.channel] = []
            elif isinstance(event.method, TxRollbackOk):
                link.unacked[event.channel] += link.settled[event.channel]
                link.unacked[event.channel].sort(key=lambda each: each.tag)
                link.settled[event.channel] = []
        elif isinstance(event, Received) and isinstance(event.method, BasicDeliver | BasicGetOk):
            source = getattr(event.method, "consumer_tag", "get")
            key = (event.body, self.known(source))
            link.unacked[event.channel].append(Unacked(event.method.delivery_tag, key))

    # Names

    def known(self, text: str) -> str:
        """A text with the broker's own names by their numbers."""

        def number(match: re.Match[str]) -> str:
            name = match.group()
            if name not in self._names:
                kind = match.group(1)
                count = sum(1 for each in self._names.values() if each.startswith(f"amq.{kind}#"))
                self._names[name] = f"amq.{kind}#{count}"
            return self._names[name]

        return GENERATED.sub(number, text)

    def real(self, text: str) -> str:
        """A text with numbered names as this broker made them."""
        names = {reference: name for name, reference in self._names.items()}
        return REFERENCE.sub(lambda match: names.get(match.group(), match.group()), text)

    def resolved(self, method: Method) -> Method:
        """A method with the names that this broker made."""
        changed = {
            name: self.real(getattr(method, name))
            for name in ("queue", "consumer_tag", "routing_key")
            if isinstance(getattr(method, name, None), str)
        }
        return replace(method, **changed) if changed else method  # type: ignore[type-var]

    def _connect(self) -> Link:
        link = Link(socket.create_connection(self.address, CONNECT_S_MAX), Wire())
        link.client.open()
        link.flush()
        while not link.client.ready:
            link.read()
            if link.is_lost:
                raise Lost(f"no connection to {self.address}")
        return link


def is_answered(method: Method) -> bool:
    """Whether a method has an answer of its own."""
    return type(method).synchronous and not getattr(method, "no_wait", False)


def ends(step: Step, event: ClientEvent) -> bool:
    """Whether an event is the end of a step."""
    if isinstance(event, ConnectionGone):
        return True
    if getattr(event, "channel", None) != step.channel:
        return False
    if isinstance(event, ChannelGone):
        return True
    if not is_answered(step.method):
        return is_barrier(event)
    if isinstance(event, Received):
        return isinstance(event.method, BasicGetOk)
    return isinstance(event, Replied) and not isinstance(event.method, BasicCancel | ChannelClose) and (
        type(event.method).__name__ != "ChannelOpenOk"
    )  # fmt: skip


def is_barrier(event: ClientEvent) -> bool:
    """Whether an event answers the barrier."""
    return (
        isinstance(event, Replied)
        and isinstance(event.method, BasicCancelOk)
        and event.method.consumer_tag == BARRIER
    )
