"""Publishers with confirms and consumers with acks that never give up: pika on one event loop.

When a connection fails they go to the next node. A message without a confirm is not sent again: its fate is open,
and a new one takes its place, so that whatever is doubled was doubled by the broker.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import pika
from pika.adapters.asyncio_connection import AsyncioConnection

from integration.harness import HOST, Node
from integration.history import History, Link

WINDOW = 200
"""Unconfirmed messages of a publisher."""
BURST = 20
PREFETCH = 500
ACK_EVERY = 50
RETRY_S = 0.05
CONNECT_S = 3.0
HEARTBEAT_S = 4
SILENT_S = 4.0
"""A publisher that hears nothing for this long tries another node."""
PROBE_S = 0.5
"""How often a consumer makes sure that its acks were applied."""
PERSISTENT = pika.BasicProperties(delivery_mode=2)


def encode(message: tuple[str, int, int], size: int) -> bytes:
    """The payload: the message's name, filled up with what only this message has."""
    text = f"{message[0]}/{message[1]}/{message[2]}|".encode()
    return (text * (size // len(text) + 1))[: max(size, len(text))]


def decode(body: bytes) -> tuple[str, int, int]:
    """The name of a message; ValueError if one byte of the body is wrong."""
    head = body[: body.index(b"|")]
    publisher, session, number = head.decode("ascii").split("/")
    message = publisher, int(session), int(number)
    if body != encode(message, len(body)):
        raise ValueError("damaged")
    return message


class Client:
    """Keeps one connection with one channel open, on one node or another."""

    def __init__(self, nodes: Sequence[Node], first: int) -> None:
        self._nodes = nodes
        self._next = first
        self.node = nodes[first % len(nodes)]
        self.connection: AsyncioConnection | None = None
        self.channel: Any = None
        self._stopped = False
        self._lost = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        self._stopped = True
        self._lost.set()
        if self._task is not None:
            await self._task

    async def _run(self) -> None:
        while not self._stopped:
            self.node = self._nodes[self._next % len(self._nodes)]
            self._next += 1
            self._lost = asyncio.Event()
            if await self._connect():
                self.opened()
                await self._lost.wait()
                self.closed()
            self.channel = None
            self._drop()
            if not self._stopped:
                await asyncio.sleep(RETRY_S)

    def give_up(self) -> None:
        """This connection is of no use: to the next node."""
        self._lost.set()

    async def _connect(self) -> bool:
        opened: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        lost = self._lost

        def failed(*_: object) -> None:
            lost.set()
            if not opened.done():
                opened.set_result(None)

        def on_channel(channel: Any) -> None:
            channel.add_on_close_callback(failed)
            if not opened.done():
                opened.set_result(channel)

        parameters = pika.ConnectionParameters(
            HOST, self.node.amqp, heartbeat=HEARTBEAT_S, socket_timeout=CONNECT_S, stack_timeout=CONNECT_S
        )
        self.connection = AsyncioConnection(
            parameters,
            on_open_callback=lambda connection: connection.channel(on_open_callback=on_channel),
            on_open_error_callback=failed,
            on_close_callback=failed,
            custom_ioloop=asyncio.get_running_loop(),
        )
        with contextlib.suppress(TimeoutError):
            self.channel = await asyncio.wait_for(opened, CONNECT_S)
        return self.channel is not None and self.channel.is_open

    def _drop(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None and not (connection.is_closed or connection.is_closing):
            with contextlib.suppress(Exception):
                connection.close()

    def opened(self) -> None:
        """The channel is open."""

    def closed(self) -> None:
        """The channel is gone."""


class Publisher(Client):
    """Publishes to one queue, one confirm channel a session."""

    def __init__(
        self,
        name: str,
        queue: str,
        nodes: Sequence[Node],
        first: int,
        history: History,
        *,
        size: int,
        rate: float,
    ) -> None:
        """Args: rate: messages a second at most."""
        super().__init__(nodes, first)
        self.name = name
        self.queue = queue
        self.history = history
        self.size = size
        self.enough: Callable[[], bool] = lambda: False
        self._rate = rate
        self._session = 0
        self._number = 0
        self._base = 0  # the delivery tag before the first of `_open`
        self._open: deque[tuple[str, int, int] | None] = deque()
        self._heard = 0.0
        self._started = time.monotonic()
        self._sent = 0

    def opened(self) -> None:
        self._session += 1
        self._number = self._base = 0
        self._open.clear()
        self._heard = time.monotonic()
        self.channel.confirm_delivery(self._on_confirm)
        self.channel.add_on_return_callback(self._on_return)
        self._pump(self.channel)

    def closed(self) -> None:
        self._open.clear()

    @property
    def unconfirmed(self) -> int:
        return len(self._open)

    def _pump(self, channel: Any) -> None:
        """Publish what the window and the rate allow; called again and again."""
        if channel is not self.channel or not channel.is_open or self._stopped:
            return
        now = time.monotonic()
        due = int((now - self._started) * self._rate) - self._sent
        due = min(due, BURST)
        if due < -BURST or (now - self._heard > SILENT_S and self._open):
            self.give_up()
            return
        while due > 0 and len(self._open) < WINDOW and not self.enough():
            due -= 1
            self._sent += 1
            message = self.name, self._session, self._number
            self._number += 1
            self.history.publish(message)
            self._open.append(message)
            channel.basic_publish("", self.queue, encode(message, self.size), PERSISTENT, mandatory=True)
        # What a dead node cost is not made up for in one burst.
        self._started = max(self._started, now - (self._sent + 5 * BURST) / self._rate)
        asyncio.get_running_loop().call_later(BURST / self._rate / 2, self._pump, channel)

    def _on_confirm(self, frame: Any) -> None:
        now = self._heard = time.monotonic()
        method = frame.method
        is_ack = isinstance(method, pika.spec.Basic.Ack)
        first = self._base + 1 if method.multiple else method.delivery_tag
        for tag in range(first, method.delivery_tag + 1):
            at = tag - self._base - 1
            message = self._open[at] if 0 <= at < len(self._open) else None
            if message is None:
                if not method.multiple:
                    self.history.errors.append(f"{self.name}/{self._session}: tag {tag} was confirmed twice")
                continue
            self._open[at] = None
            if is_ack:
                self.history.confirm(message, self.queue, now)
            else:
                self.history.refuse(message)
        while self._open and self._open[0] is None:
            self._open.popleft()
            self._base += 1

    def _on_return(self, _channel: Any, method: Any, _properties: Any, body: bytes) -> None:
        self.history.errors.append(f"{body[:40]!r} was returned: {method.reply_text}")


class Consumer(Client):
    """Consumes one queue and acks; probes which acks were applied."""

    def __init__(self, queue: str, nodes: Sequence[Node], first: int, history: History) -> None:
        super().__init__(nodes, first)
        self.queue = queue
        self.history = history
        self.link = Link("", 0.0)
        self._unacked: list[tuple[str, int, int]] = []
        self._acked: list[tuple[str, int, int]] = []
        self._last_tag = 0
        self._probed_at = 0.0

    def opened(self) -> None:
        self.link = Link(self.node.name, time.monotonic())
        self._unacked, self._acked, self._last_tag = [], [], 0
        self.channel.basic_qos(prefetch_count=PREFETCH)
        self.channel.basic_consume(self.queue, self._on_message)
        self._probe(self.channel)

    def closed(self) -> None:
        self.link.closed_at = time.monotonic()

    def _on_message(self, channel: Any, method: Any, _properties: Any, body: bytes) -> None:
        if channel is not self.channel:
            return
        try:
            message = decode(body)
        except ValueError:
            self.history.errors.append(f"a body was damaged: {body[:60]!r}")
            return
        self.history.deliver(message, self.link, time.monotonic(), redelivered=method.redelivered)
        self._unacked.append(message)
        self._last_tag = method.delivery_tag
        if len(self._unacked) >= ACK_EVERY:
            self._ack(channel)

    def _ack(self, channel: Any) -> None:
        if self._unacked:
            channel.basic_ack(self._last_tag, multiple=True)
            self._acked += self._unacked
            self._unacked = []

    def _probe(self, channel: Any) -> None:
        """Ack what there is, and ask whether it was applied."""
        if channel is not self.channel or not channel.is_open or self._stopped:
            return
        self._ack(channel)
        acked, self._acked = self._acked, []

        def applied(_frame: Any) -> None:
            if channel is self.channel:
                self.history.settle(acked)
                asyncio.get_running_loop().call_later(PROBE_S, self._probe, channel)

        channel.queue_declare(self.queue, passive=True, callback=applied)
