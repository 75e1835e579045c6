"""Client sockets: bytes in, bytes out, back-pressure both ways, and orderly ends."""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import cast

import pytest
import uvloop

from node.server.connection import READ_BYTES_MAX, WRITE_BUFFER_BYTES_MAX
from node.server.listener import Listener
from node.session.frontend import Frontend
from node.session.ports import CheckLogin, Close, PauseReading, ResumeReading, Write


class Recorder:
    """The frontend's inputs, recorded. The real one answers AMQP only; sockets know nothing of that."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.received = bytearray()

    def connect(self, conn: int, peer: str, *, loopback: bool) -> None:
        self.calls.append(("connect", conn, peer.rpartition(":")[0], loopback))

    def receive(self, conn: int, data: bytes) -> None:
        self.received += data

    def writable(self, conn: int, is_writable: bool) -> None:
        self.calls.append(("writable", conn, is_writable))

    def disconnect(self, conn: int) -> None:
        self.calls.append(("disconnect", conn))


class Server:
    """A listener on a free port."""

    def __init__(self, connections_max: int = 10) -> None:
        self.frontend = Recorder()
        self.logins: list[CheckLogin] = []
        self.wakes = 0
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self.port: int = self.socket.getsockname()[1]
        frontend = cast("Frontend", self.frontend)
        self.listener = Listener(frontend, self._wake, self.logins.append, connections_max)

    def _wake(self) -> None:
        self.wakes += 1

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0.005)


async def _bytes_go_both_ways() -> None:
    server = Server()
    await server.listener.start(server.socket)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"hello")
    await server.until(lambda: server.frontend.received == b"hello")
    assert server.frontend.calls == [("connect", 1, "127.0.0.1", True)]
    assert server.wakes > 0
    login = CheckLogin(1, "PLAIN", "guest", "guest")
    server.listener.carry_out([Write(1, [b"a"]), Write(1, [b"b", b"c"]), login, Write(99, [b"nobody"])])
    assert await reader.readexactly(3) == b"abc"
    assert server.logins == [login]
    server.listener.carry_out([Write(1, [b"bye"]), Close(1)])
    assert await reader.read() == b"bye"
    writer.close()
    await server.until(lambda: ("disconnect", 1) in server.frontend.calls)
    server.listener.close()


async def _frames_behind_the_goodbye_reset_nothing() -> None:
    """A client may have more to send than its connection.close; it still reads the answer and a clean end."""
    server = Server()
    await server.listener.start(server.socket)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"close")
    await server.until(lambda: server.frontend.received == b"close")
    server.listener.carry_out(
        [PauseReading(1), Write(1, [b"close-ok"]), Close(1), PauseReading(1), Write(1, [b"no"])]
    )
    await asyncio.sleep(0.05)
    for _ in range(64):
        writer.write(b"x" * 65536)
        await writer.drain()
    assert await reader.read() == b"close-ok"
    assert server.frontend.received == b"close"
    assert ("disconnect", 1) not in server.frontend.calls
    writer.close()
    await server.until(lambda: ("disconnect", 1) in server.frontend.calls)
    server.listener.close()


async def _slow_clients_are_told_of() -> None:
    server = Server()
    await server.listener.start(server.socket)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1 << 16)
    await server.until(lambda: bool(server.frontend.calls))
    size = 8 * WRITE_BUFFER_BYTES_MAX
    server.listener.carry_out([Write(1, [b"x" * size])])
    await server.until(lambda: ("writable", 1, False) in server.frontend.calls)
    assert len(await reader.readexactly(size)) == size
    await server.until(lambda: ("writable", 1, True) in server.frontend.calls)
    writer.close()
    await server.until(lambda: ("disconnect", 1) in server.frontend.calls)
    server.listener.close()


async def _paused_reading_holds_bytes_back() -> None:
    server = Server()
    await server.listener.start(server.socket)
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    await server.until(lambda: bool(server.frontend.calls))
    server.listener.carry_out([PauseReading(1), PauseReading(1)])
    writer.write(b"later")
    await asyncio.sleep(0.05)
    assert server.frontend.received == b""
    server.listener.carry_out([ResumeReading(1), ResumeReading(1)])
    await server.until(lambda: server.frontend.received == b"later")
    writer.close()
    server.listener.close()


async def _connections_are_bounded() -> None:
    server = Server(connections_max=1)
    await server.listener.start(server.socket)
    _, first = await asyncio.open_connection("127.0.0.1", server.port)
    await server.until(lambda: bool(server.frontend.calls))
    reader, second = await asyncio.open_connection("127.0.0.1", server.port)
    with contextlib.suppress(ConnectionResetError):
        assert await reader.read() == b""
    assert server.frontend.calls == [("connect", 1, "127.0.0.1", True)]
    first.close()
    second.close()
    await server.until(lambda: ("disconnect", 1) in server.frontend.calls)
    server.listener.close()


async def _who_sends_without_pause_leaves_room() -> None:
    """However fast a client sends, the loop goes on after `READ_BYTES_MAX`, and nothing is lost."""
    server = Server()
    await server.listener.start(server.socket)
    size, read_max = 64 * READ_BYTES_MAX, 256 << 10  # of either loop, in one call
    seen = [0]

    async def note() -> None:
        while True:
            seen.append(len(server.frontend.received))
            await asyncio.sleep(0)

    def flood() -> None:
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(bytes(size))

    noting = asyncio.create_task(note())
    await asyncio.to_thread(flood)
    await server.until(lambda: ("disconnect", 1) in server.frontend.calls)
    noting.cancel()
    received = len(server.frontend.received)
    most = max(after - before for before, after in pairwise(seen))
    server.listener.close()
    assert (received, most < READ_BYTES_MAX + read_max) == (size, True)


SCENARIOS = [
    _bytes_go_both_ways,
    _frames_behind_the_goodbye_reset_nothing,
    _slow_clients_are_told_of,
    _paused_reading_holds_bytes_back,
    _who_sends_without_pause_leaves_room,
    _connections_are_bounded,
]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__.strip("_"))
def test_sockets(scenario: Callable[[], Awaitable[None]], loop: str) -> None:
    """Each scenario on both event loops: uvloop's transports are not asyncio's."""
    coroutine = scenario()
    if loop == "uvloop":
        uvloop.run(coroutine)  # type: ignore[arg-type]
    else:
        asyncio.run(coroutine)  # type: ignore[arg-type]
