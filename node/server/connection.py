"""One client socket. Bytes go to the frontend as they come; what the frontend wants written goes out in one call."""

import asyncio
import ipaddress
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from node.server.listener import Listener

READ_BYTES_MAX = 1 << 20
"""Read from one client until there was a turn: less than goes out to one in a turn (`output_bytes_max`), so that a
publisher without confirms does not outrun the consumers."""
WRITE_BUFFER_BYTES_MAX = 1 << 20
"""Above this the frontend is told that the socket is not writable: a slow client's deliveries wait as references."""


class ClientSocket(asyncio.Protocol):
    """asyncio's side of one connection."""

    __slots__ = ("_is_ending", "_listener", "_read_bytes", "_transport", "conn", "is_paused")

    def __init__(self, listener: "Listener", conn: int) -> None:
        self._listener = listener
        self._transport: asyncio.Transport | None = None
        self._is_ending = False  # True: the end of the stream is sent, what still comes is dropped
        self._read_bytes = 0
        self.conn = conn
        self.is_paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client connected."""
        # Not isinstance: uvloop's transports do not derive from asyncio's.
        self._transport = transport = cast("asyncio.Transport", transport)
        transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES_MAX)
        peer = transport.get_extra_info("peername") or ("", 0)
        self._listener.opened(self, f"{peer[0]}:{peer[1]}", loopback=is_loopback(str(peer[0])))

    def data_received(self, data: bytes) -> None:
        """The client sent bytes."""
        if self._is_ending:
            return
        self._listener.received(self.conn, data)
        self._read_bytes += len(data)
        if self._read_bytes >= READ_BYTES_MAX:
            self._rest()

    def _rest(self) -> None:
        """Let the loop go on: uvloop reads a socket that stays readable 32 times, which is megabytes."""
        self._read_bytes = 0
        if self._transport is not None and not self.is_paused and not self._transport.is_closing():
            self._transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._read_on)

    def _read_on(self) -> None:
        if self._transport is not None and not self.is_paused and not self._transport.is_closing():
            self._transport.resume_reading()

    def pause_writing(self) -> None:
        """The client reads too slowly."""
        self._listener.writable(self.conn, is_writable=False)

    def resume_writing(self) -> None:
        """It has caught up."""
        self._listener.writable(self.conn, is_writable=True)

    def eof_received(self) -> bool:
        """The client will send no more: that ends the connection."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - why does not matter
        """The socket is gone."""
        self._listener.closed(self.conn)

    def write(self, chunks: list[bytes]) -> None:
        """Send chunks in order, with one system call where that is possible."""
        if self._transport is not None and not self._is_ending and not self._transport.is_closing():
            self._transport.writelines(chunks)

    def pause_reading(self) -> None:
        """Read no more for now."""
        if self.is_paused or self._is_ending or self._transport is None:
            return
        if not self._transport.is_closing():
            self.is_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        if self._transport is not None and self.is_paused and not self._transport.is_closing():
            self.is_paused = False
            self._transport.resume_reading()

    def close(self) -> None:
        """Send the end of the stream after all else, and close once the client has closed too.

        Frames that the client had under way when it said goodbye are read and dropped: a socket closed with
        bytes unread is reset, and a reset may take close-ok from the client.
        """
        if self._transport is None or self._transport.is_closing():
            return
        self.resume_reading()
        self._is_ending = True
        self._transport.write_eof()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own."""
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False
