"""A client that may say anything: bytes out, frames in. The handshake is right unless a test wants it wrong."""

import socket
import struct
import time
from dataclasses import dataclass

from integration.harness import HOST, Node

HEADER = b"AMQP\x00\x00\x09\x01"
METHOD, CONTENT, BODY, HEARTBEAT = 1, 2, 3, 8
FRAME_MAX = 131072


def frame(kind: int, channel: int, payload: bytes, end: bytes = b"\xce") -> bytes:
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + end


def method(channel: int, class_id: int, method_id: int, arguments: bytes = b"") -> bytes:
    return frame(METHOD, channel, struct.pack(">HH", class_id, method_id) + arguments)


def short(text: str) -> bytes:
    return bytes((len(text.encode()),)) + text.encode()


def publish(channel: int, queue: str) -> bytes:
    """basic.publish to the default exchange: the method alone."""
    return method(channel, 60, 40, b"\0\0" + short("") + short(queue) + b"\0")


def content(channel: int, size: int, class_id: int = 60) -> bytes:
    """A content header without properties."""
    return frame(CONTENT, channel, struct.pack(">HHQH", class_id, 0, size, 0))


@dataclass(slots=True)
class Close:
    """connection.close or channel.close of the server."""

    channel: int
    code: int
    text: str


class Raw:
    """One socket."""

    def __init__(self, node: Node, timeout_s: float = 20.0) -> None:
        self.socket = socket.create_connection((HOST, node.amqp), timeout_s)
        self._rest = b""

    def __enter__(self) -> "Raw":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send; a server that has closed is no error here."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return

    def read(self) -> tuple[int, int, bytes] | None:
        """The next frame as (type, channel, payload); None at the end."""
        while True:
            if len(self._rest) >= 7:
                kind, channel, size = struct.unpack_from(">BHI", self._rest)
                if len(self._rest) >= size + 8:
                    payload, self._rest = self._rest[7 : 7 + size], self._rest[size + 8 :]
                    return kind, channel, payload
            try:
                data = self.socket.recv(65536)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self._rest += data

    def wait(self, class_id: int, method_id: int) -> bytes:
        """The arguments of the next such method; others are skipped."""
        while (found := self.read()) is not None:
            kind, _, payload = found
            if kind == METHOD and struct.unpack_from(">HH", payload) == (class_id, method_id):
                return payload[4:]
        raise ConnectionError(f"closed before {class_id}.{method_id}")

    def until_close(self) -> Close | None:
        """The next close of the server; None if it closed the socket without."""
        while (found := self.read()) is not None:
            kind, channel, payload = found
            if kind == METHOD and struct.unpack_from(">HH", payload) in ((10, 50), (20, 40)):
                (code,) = struct.unpack_from(">H", payload, 4)
                size = payload[6]
                return Close(channel, code, payload[7 : 7 + size].decode())
        return None

    def end(self) -> bytes:
        """All that comes until the server closes the socket."""
        data = self._rest
        while True:
            try:
                more = self.socket.recv(65536)
            except ConnectionResetError:
                return data
            if not more:
                return data
            data += more

    def open(self, channel: int = 1, frame_max: int = FRAME_MAX) -> "Raw":
        """The whole handshake, and a channel."""
        self.send(HEADER)
        self.wait(10, 10)
        capabilities = short("authentication_failure_close") + b"t\x01"
        table = short("capabilities") + b"F" + struct.pack(">I", len(capabilities)) + capabilities
        response = b"\0guest\0guest"
        self.send(
            method(
                0, 10, 11,
                struct.pack(">I", len(table)) + table + short("PLAIN") + struct.pack(">I", len(response)) + response
                + short("en_US"),
            )
        )  # fmt: skip
        self.wait(10, 30)
        self.send(method(0, 10, 31, struct.pack(">HIH", 2047, frame_max, 0)))
        self.send(method(0, 10, 40, short("/") + short("") + b"\0"))
        self.wait(10, 41)
        self.send(method(channel, 20, 10, short("")))
        self.wait(20, 11)
        return self

    def is_alive(self, channel: int = 1) -> bool:
        """Whether the channel still answers: confirm.select."""
        self.send(method(channel, 85, 10, b"\0"))
        try:
            self.wait(85, 11)
        except ConnectionError:
            return False
        return True


def elapsed_until_end(client: Raw) -> float:
    """Seconds until the server closes."""
    started = time.monotonic()
    client.end()
    return time.monotonic() - started
