"""Bytes that have arrived and were not yet understood, joined no more often than a frame needs."""

from typing import Final

_FRAME_HEAD_BYTES: Final = 7
_FRAMES_LOOKED_AT_MAX: Final = 4


class ReceiveBuffer:
    """What is left between two calls of receive_data.

    A large frame that comes in small pieces is joined once, when its announced size is there: joining at each
    piece would copy it as often as there are pieces.

    Attributes:
        size_bytes: bytes in it.
    """

    __slots__ = ("_needed_bytes", "_parts", "size_bytes")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._needed_bytes = 0  # with fewer there is nothing new to understand
        self.size_bytes = 0

    def add(self, data: bytes) -> None:
        """Append what has arrived."""
        if data:
            self._parts.append(data)
            self.size_bytes += len(data)

    def take(self) -> bytes:
        """Everything, or nothing while a frame is known to be incomplete. Give back what is left over."""
        if self.size_bytes < self._needed_bytes:
            return b""
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self.clear()
        return data

    def put_back(self, data: bytes, offset: int) -> None:
        """Keep what follows `offset`; nothing may have been added since `take`."""
        if offset < len(data):
            rest = data[offset:] if offset else data
            self._parts = [rest]
            self.size_bytes = len(rest)

    def put_back_incomplete(self, data: bytes, offset: int) -> None:
        """Keep what follows `offset`, of which `scan` could make nothing yet."""
        self.put_back(data, offset)
        if offset < len(data):
            self._needed_bytes = _needed_bytes(self._parts[0])

    def clear(self) -> None:
        """Forget everything."""
        self._parts = []
        self._needed_bytes = 0
        self.size_bytes = 0


def _needed_bytes(data: bytes) -> int:
    """How many bytes there must be for the first incomplete frame to be complete."""
    offset = 0
    for _ in range(_FRAMES_LOOKED_AT_MAX):
        end = frame_end(data, offset)
        if end > len(data):
            return end
        offset = end
    return len(data) + 1


def frame_end(data: bytes, offset: int) -> int:
    """Where the frame at `offset` ends, or its head, while that is incomplete."""
    body = offset + _FRAME_HEAD_BYTES
    if body > len(data):
        return body
    return body + int.from_bytes(data[offset + 3 : body], "big") + 1
