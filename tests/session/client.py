"""A client for the tests of sessions: methods to bytes, bytes to methods and contents. Knows no rules."""

import struct
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from node.wire import methods
from node.wire.methods import Method, decode_method, method_frame
from node.wire.properties import BasicProperties, decode_header, encode_header

_FRAME = struct.Struct(">BHI")
_CONTENT = (methods.BasicDeliver, methods.BasicGetOk, methods.BasicReturn)

M = TypeVar("M", bound=Method)


class Received(NamedTuple):
    """What the broker said: on a channel, a method, and the body and the content header where it has content."""

    channel: int
    method: Any
    body: bytes | None = None
    header: bytes | None = None

    @property
    def properties(self) -> BasicProperties:
        """The properties of the content."""
        assert self.header is not None, "no content"
        return decode_header(self.header)[1]


class Client:
    """One end of a connection.

    Args:
        conn: its number.
        write: takes bytes for the broker.
    """

    def __init__(self, conn: int, write: "Callable[[Client, bytes], None]") -> None:
        self.conn = conn
        self.is_closed = False
        self.paused = False
        self.received: list[Received] = []
        self._write = write
        self._buffer = b""
        self._content: list[Any] = []

    def is_paused(self) -> bool:
        """Whether the broker has stopped reading."""
        return self.paused

    def write(self, data: bytes) -> None:
        """Send bytes."""
        self._write(self, data)

    def send(self, channel: int, *sent: Method) -> None:
        """Send methods in one piece."""
        self.write(b"".join(method_frame(channel, method) for method in sent))

    def login(self, *, user: str = "guest", vhost: str = "/", capabilities: tuple[str, ...] = ()) -> "Client":
        """Shake hands as far as the broker lets it."""
        properties: dict[str, Any] = {"capabilities": dict.fromkeys(capabilities, True)}
        self.write(b"AMQP\x00\x00\x09\x01")
        response = f"\0{user}\0{user}".encode()
        self.send(0, methods.ConnectionStartOk(properties, "PLAIN", response, "en_US"))
        self.send(0, methods.ConnectionTuneOk(2047, 131072, 60), methods.ConnectionOpen(vhost))
        return self

    def open(self, channel: int = 1) -> "Client":
        """Open a channel and forget what was received so far."""
        self.send(channel, methods.ChannelOpen())
        self.received.clear()
        return self

    def call(self, method: Method, answer: type[M], channel: int = 1) -> M:
        """Send a method; the last thing received must be the answer to it."""
        self.send(channel, method)
        assert self.received, f"no answer to {method}"
        last = self.received.pop()
        assert isinstance(last.method, answer), f"{last} is no answer to {method}"
        return last.method

    def publish(self, routing_key: str, *bodies: bytes, channel: int = 1, **options: Any) -> None:
        """Publish messages in one piece. Options: exchange, mandatory, headers, properties."""
        self.write(b"".join(content(channel, routing_key, body, **options) for body in bodies))

    def take(self) -> list[Received]:
        """Everything received since the last call."""
        taken, self.received = self.received, []
        return taken

    def take_methods(self) -> list[Any]:
        """The methods among it."""
        return [item.method for item in self.take()]

    def feed(self, chunks: list[bytes]) -> None:
        """Bytes from the broker."""
        data = self._buffer + b"".join(chunks)
        offset = 0
        while len(data) - offset >= _FRAME.size:
            kind, channel, size = _FRAME.unpack_from(data, offset)
            end = offset + _FRAME.size + size
            if len(data) <= end:
                break
            assert data[end] == 0xCE
            self._take_frame(kind, channel, data[offset + _FRAME.size : end])
            offset = end + 1
        self._buffer = data[offset:]

    def _take_frame(self, kind: int, channel: int, payload: bytes) -> None:
        if kind == 1:
            class_id, method_id = struct.unpack_from(">HH", payload)
            method = decode_method(class_id << 16 | method_id, payload[4:])
            if isinstance(method, _CONTENT):
                self._content = [channel, method, -1, b"", b""]
            else:
                self.received.append(Received(channel, method))
        elif kind in (2, 3):
            if kind == 2:
                self._content[2] = struct.unpack_from(">Q", payload, 4)[0]
                self._content[4] = payload
            else:
                self._content[3] += payload
            if len(self._content[3]) == self._content[2]:
                channel, method, _, body, header = self._content
                self.received.append(Received(channel, method, body, header))


def content(
    channel: int,
    routing_key: str,
    body: bytes,
    *,
    exchange: str = "",
    mandatory: bool = False,
    headers: dict[str, Any] | None = None,
    properties: BasicProperties | None = None,
) -> bytes:
    """The frames of one basic.publish with a small body."""
    publish = methods.BasicPublish(exchange=exchange, routing_key=routing_key, mandatory=mandatory)
    header = encode_header(len(body), properties or BasicProperties(headers=headers))
    frames = method_frame(channel, publish) + _frame(2, channel, header)
    return frames + (_frame(3, channel, body) if body else b"")


def _frame(kind: int, channel: int, payload: bytes) -> bytes:
    return _FRAME.pack(kind, channel, len(payload)) + payload + b"\xce"
