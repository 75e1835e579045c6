"""Three client libraries behind one small interface: pika, aio-pika and amqplib (Node)."""

import asyncio
import base64
import json
import shutil
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import aio_pika
import pika

NODE_DIRECTORY = Path(__file__).parent / "node"
TAKE_S_MAX = 15.0

Queues = Sequence[tuple[str, Sequence[str]]]
"""Names and the keys that bind each."""


class Driver(ABC):
    """One connection with one channel in confirm mode."""

    @abstractmethod
    def declare(self, exchange: str, kind: str, queues: Queues) -> None:
        """Declare all; "" as exchange: only the queues. Everything is durable."""

    @abstractmethod
    def publish(self, exchange: str, key: str, body: bytes) -> None:
        """Publish a persistent, mandatory message and wait for its confirm."""

    @abstractmethod
    def take(self, queue: str, count: int) -> list[bytes]:
        """Consume and ack so many messages."""

    @abstractmethod
    def close(self) -> None:
        """End the connection."""


class Pika(Driver):
    def __init__(self, url: str) -> None:
        self._connection = pika.BlockingConnection(pika.URLParameters(url))
        self._channel = self._connection.channel()
        self._channel.confirm_delivery()

    def declare(self, exchange: str, kind: str, queues: Queues) -> None:
        if exchange:
            self._channel.exchange_declare(exchange, kind, durable=True)
        for name, keys in queues:
            self._channel.queue_declare(name, durable=True)
            for key in keys:
                self._channel.queue_bind(name, exchange, key)

    def publish(self, exchange: str, key: str, body: bytes) -> None:
        properties = pika.BasicProperties(delivery_mode=2, content_type="text/plain")
        self._channel.basic_publish(exchange, key, body, properties, mandatory=True)

    def take(self, queue: str, count: int) -> list[bytes]:
        bodies: list[bytes] = []
        deadline = time.monotonic() + TAKE_S_MAX
        if count:
            for method, _, body in self._channel.consume(queue, inactivity_timeout=TAKE_S_MAX):
                if method is None:
                    break
                bodies.append(body)
                self._channel.basic_ack(method.delivery_tag)
                if len(bodies) == count or time.monotonic() > deadline:
                    break
            self._channel.cancel()
        return bodies

    def close(self) -> None:
        self._connection.close()


class AioPika(Driver):
    def __init__(self, url: str) -> None:
        self._loop = asyncio.new_event_loop()
        try:
            self._connection, self._channel = self._do(self._open(url))
        except BaseException:
            self._loop.close()
            raise

    async def _open(self, url: str) -> Any:
        connection = await aio_pika.connect(url)
        return connection, await connection.channel(publisher_confirms=True)

    def _do(self, awaitable: Awaitable[Any]) -> Any:
        return self._loop.run_until_complete(asyncio.wait_for(awaitable, TAKE_S_MAX))

    def declare(self, exchange: str, kind: str, queues: Queues) -> None:
        self._do(self._declare(exchange, kind, queues))

    async def _declare(self, exchange: str, kind: str, queues: Queues) -> None:
        if exchange:
            await self._channel.declare_exchange(exchange, kind, durable=True)
        for name, keys in queues:
            queue = await self._channel.declare_queue(name, durable=True)
            for key in keys:
                await queue.bind(exchange, key)

    def publish(self, exchange: str, key: str, body: bytes) -> None:
        self._do(self._publish(exchange, key, body))

    async def _publish(self, exchange: str, key: str, body: bytes) -> None:
        target = (
            await self._channel.get_exchange(exchange, ensure=False)
            if exchange
            else self._channel.default_exchange
        )
        message = aio_pika.Message(
            body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT, content_type="text/plain"
        )
        await target.publish(message, key, mandatory=True)

    def take(self, queue: str, count: int) -> list[bytes]:
        return self._do(self._take(queue, count)) if count else []

    async def _take(self, queue: str, count: int) -> list[bytes]:
        bodies: list[bytes] = []
        source = await self._channel.get_queue(queue)
        async with source.iterator() as messages:
            async for message in messages:
                bodies.append(message.body)
                await message.ack()
                if len(bodies) == count:
                    break
        return bodies

    def close(self) -> None:
        self._do(self._connection.close())
        self._loop.close()


class Amqplib(Driver):
    def __init__(self, url: str) -> None:
        self._process = subprocess.Popen(
            ["node", "traffic.mjs", url],
            cwd=NODE_DIRECTORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def _do(self, **command: object) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"amqplib ended with code {self._process.wait()}"
        answer = json.loads(line)
        assert "error" not in answer, answer["error"]
        return answer["ok"]

    def declare(self, exchange: str, kind: str, queues: Queues) -> None:
        wanted = [{"name": name, "keys": list(keys)} for name, keys in queues]
        self._do(op="declare", exchange=exchange, type=kind, queues=wanted)

    def publish(self, exchange: str, key: str, body: bytes) -> None:
        self._do(op="publish", exchange=exchange, key=key, body=base64.b64encode(body).decode())

    def take(self, queue: str, count: int) -> list[bytes]:
        return [base64.b64decode(body) for body in self._do(op="take", queue=queue, count=count)]

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write('{"op": "end"}\n')
            self._process.stdin.close()
            self._process.wait(10)
        finally:
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()


DRIVERS: dict[str, Callable[[str], Driver]] = {"pika": Pika, "aio-pika": AioPika, "amqplib": Amqplib}


def amqplib_missing() -> str | None:
    """Why amqplib cannot be used here, or None. Installs it once, as package-lock.json says."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        return "Node and npm are not installed"
    if not (NODE_DIRECTORY / "node_modules" / "amqplib").exists():
        done = subprocess.run(
            ["npm", "ci", "--no-audit", "--no-fund"], cwd=NODE_DIRECTORY, capture_output=True, text=True
        )
        if done.returncode:
            return f"npm ci: {done.stderr.strip().splitlines()[-1:]}"
    return None
