"""The AMQP listener: accepts sockets, numbers them, and carries out what the frontend wants done with them."""

import asyncio
import socket
from collections.abc import Callable
from typing import assert_never

from node.server.connection import ClientSocket
from node.session.frontend import Frontend
from node.session.ports import CheckLogin, Close, Output, PauseReading, ResumeReading, Write

LINGER_S = 5.0
"""A closed connection whose client does not read what was sent, or does not close, is cut after this long."""


class Listener:
    """All client sockets of a node."""

    def __init__(
        self,
        frontend: Frontend,
        notice: Callable[[], None],
        check_login: Callable[[CheckLogin], None],
        connections_max: int,
    ) -> None:
        """Take over nothing yet; see `start`.

        Args:
            notice: plans a turn if what came in asks for one.
            check_login: starts a password check.
            connections_max: more are refused.
        """
        self._frontend = frontend
        self._notice = notice
        self._check_login = check_login
        self._connections_max = connections_max
        self._sockets: dict[int, ClientSocket] = {}
        self._count = 0
        self._server: asyncio.Server | None = None

    async def start(self, listening: socket.socket) -> None:
        """Accept clients on a socket that listens already."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._accept, sock=listening, backlog=4096)

    def stop_accepting(self) -> None:
        """New clients are refused; those that are connected stay."""
        if self._server is not None:
            self._server.close()

    def close(self) -> None:
        """Cut every connection."""
        self.stop_accepting()
        for client in list(self._sockets.values()):
            client.abort()

    def _accept(self) -> ClientSocket:
        self._count += 1
        return ClientSocket(self, self._count)

    def opened(self, client: ClientSocket, peer: str, *, loopback: bool) -> None:
        """A client connected."""
        if len(self._sockets) >= self._connections_max:
            client.abort()
            return
        self._sockets[client.conn] = client
        self._frontend.connect(client.conn, peer, loopback=loopback)

    def received(self, conn: int, data: bytes) -> None:
        """A client sent bytes."""
        self._frontend.receive(conn, data)
        self._notice()

    def writable(self, conn: int, *, is_writable: bool) -> None:
        """A client's send buffer is full, or has room again."""
        self._frontend.writable(conn, is_writable)
        self._notice()

    def closed(self, conn: int) -> None:
        """A socket is gone."""
        if self._sockets.pop(conn, None) is not None:
            self._frontend.disconnect(conn)
            self._notice()

    def carry_out(self, outputs: list[Output]) -> None:
        """Do what the frontend wants."""
        for output in outputs:
            if isinstance(output, CheckLogin):
                self._check_login(output)
                continue
            client = self._sockets.get(output.conn)
            if client is None:
                continue
            match output:
                case Write():
                    client.write(output.chunks)
                case Close():
                    client.close()
                    asyncio.get_running_loop().call_later(LINGER_S, client.abort)
                case PauseReading():
                    client.pause_reading()
                case ResumeReading():
                    client.resume_reading()
                case _:
                    assert_never(output)
