"""Published content: the arguments of basic.publish, and messages that arrive frame by frame (AMQP 4.2.6).

Most messages never come here: the codec hands out whole runs. Here are the large ones, whose frames arrive
one by one, and the wrong ones, so that each gets its error.
"""

import struct
from functools import lru_cache
from typing import Final, NamedTuple

from node.errors import AmqpNotImplemented, FrameError, PreconditionFailed, ResourceError, UnexpectedFrame
from node.limits import ASSEMBLY_MESSAGES_MAX, MESSAGE_SIZE_BYTES_MAX, PUBLISH_ARGUMENTS_KEPT_MAX
from node.wire.codec import check_header, is_special
from node.wire.items import PublishedRun, publish_args
from node.wire.primitives import Reader

_RECORD: Final = struct.Struct(">II")
_BASIC: Final = 60
_FLAGS_BYTES: Final = 1
_MANDATORY: Final = 1
_IMMEDIATE: Final = 2
PIECE_BYTES_MIN: Final = 1024
"""Of a body's frame that is kept as it came; smaller ones that follow each other become one piece, so that thousands
of them are no thousands of objects."""


class Publishing(NamedTuple):
    """The arguments of basic.publish.

    Args:
        exchange, routing_key: as text.
        mandatory: return the messages that no queue takes.
    """

    exchange: str
    routing_key: str
    mandatory: bool


@lru_cache(PUBLISH_ARGUMENTS_KEPT_MAX)  # publishers say the same again and again
def parse_publish(args: bytes) -> Publishing:
    """Read the arguments of basic.publish that follow the reserved short, as sent or as a run has them.

    Raises:
        FrameError: 501, they do not add up.
        AmqpNotImplemented: 540, `immediate` is set.
    """
    reader = Reader(args)
    exchange = reader.shortstr()
    routing_key = reader.shortstr()
    flags = reader.octet()
    reader.finish()
    if flags & _IMMEDIATE:
        msg = "immediate=true"
        raise AmqpNotImplemented(msg)
    return Publishing(exchange, routing_key, bool(flags & _MANDATORY))


class AssemblyBudget:
    """What the unfinished contents of all channels of a connection take together.

    Args:
        message_size_bytes_max: the greatest body.
    """

    __slots__ = ("message_size_bytes_max", "used_bytes")

    def __init__(self, message_size_bytes_max: int) -> None:
        self.message_size_bytes_max = message_size_bytes_max
        self.used_bytes = 0

    def check_size(self, body_bytes: int) -> None:
        """Raise 406 for a body that is too large, 501 for one that nobody could mean."""
        if body_bytes > MESSAGE_SIZE_BYTES_MAX:
            msg = f"content body size {body_bytes} exceeds maximum allowed size {MESSAGE_SIZE_BYTES_MAX}"
            raise FrameError(msg)
        if body_bytes > self.message_size_bytes_max:
            msg = (
                f"message size {body_bytes} is larger than configured max size {self.message_size_bytes_max}"
            )
            raise PreconditionFailed(msg)

    def take(self, count: int) -> None:
        """Count `count` bytes in. Raises 506 where that is too much."""
        bytes_max = self.message_size_bytes_max * ASSEMBLY_MESSAGES_MAX
        if self.used_bytes + count > bytes_max:
            msg = f"unfinished contents of this connection exceed {bytes_max} bytes"
            raise ResourceError(msg)
        self.used_bytes += count


class Assembly:
    """One message under way: its basic.publish has come, its header or body has not, or not wholly.

    Args:
        args: of basic.publish, parsed before; without the reserved short.
        budget: of the connection.
    """

    __slots__ = ("_body_bytes", "_budget", "_came_bytes", "_header", "_pieces", "_taken_bytes", "args")

    def __init__(self, args: bytes, budget: AssemblyBudget) -> None:
        self.args = args
        self._budget = budget
        self._header: bytes | None = None
        # Of the body; not one buffer that grows, and is copied as it does.
        self._pieces: list[bytes | bytearray] = []
        self._came_bytes = 0
        self._body_bytes = 0
        self._taken_bytes = 0

    def add_header(self, payload: bytes) -> bool:
        """Take the header frame; true where the message is complete. Raises 505, 501, 502, 406, 506."""
        if self._header is not None:
            raise self.wrong_frame()
        class_id = int.from_bytes(payload[:2], "big")
        if len(payload) >= 2 and class_id != _BASIC:
            msg = f"expected content header for class {_BASIC}, got one for class {class_id} instead"
            raise UnexpectedFrame(msg)
        body_bytes = check_header(payload)
        self._budget.check_size(body_bytes)
        self._take(len(payload))
        self._header = payload
        self._body_bytes = body_bytes
        return body_bytes == 0

    def add_body(self, payload: bytes) -> bool:
        """Take a content body frame; true where the message is complete. Raises 505, 501, 506."""
        if self._header is None:
            raise self.wrong_frame()
        if self._came_bytes + len(payload) > self._body_bytes:
            msg = "content body frame exceeds remaining content size"
            raise FrameError(msg)
        self._take(len(payload))
        self._came_bytes += len(payload)
        if len(payload) >= PIECE_BYTES_MIN:
            self._pieces.append(payload)
        elif self._pieces and isinstance(self._pieces[-1], bytearray):
            self._pieces[-1] += payload
        else:
            self._pieces.append(bytearray(payload))
        return self._came_bytes == self._body_bytes

    def wrong_frame(self) -> UnexpectedFrame:
        """The error for a frame that is not the one that must come next."""
        if self._header is None:
            return UnexpectedFrame(
                f"expected content header for class {_BASIC}, got non content header frame instead"
            )
        return UnexpectedFrame("expected content body, got non content body frame instead")

    def run(self) -> PublishedRun:
        """The complete message as a run of one."""
        assert self._header is not None and self._came_bytes == self._body_bytes, "incomplete"
        exrk = self.args[:-_FLAGS_BYTES]
        lengths = _RECORD.pack(len(exrk) + len(self._header), self._body_bytes)
        packed = b"".join((lengths, exrk, self._header, *self._pieces))
        return publish_args(self.args, special=is_special(self._header)), 1, packed

    def release(self) -> None:
        """Give the bytes back to the budget: the message is complete, or its channel has gone."""
        self._budget.used_bytes -= self._taken_bytes
        self._taken_bytes = 0

    def _take(self, count: int) -> None:
        self._budget.take(count)
        self._taken_bytes += count
