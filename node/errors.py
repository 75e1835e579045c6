"""The faults of a peer: one exception class per reply code of AMQP 0-9-1 (constants of the specification).

A soft error closes the channel, a hard error the connection. The class carries the code and its name; the
instance carries the explanation and the method that failed. Whoever catches one can answer the peer.
"""

from __future__ import annotations

from typing import ClassVar

REPLY_TEXT_BYTES_MAX = 255
"""A reply-text is a shortstr."""
_CUT = "..."


class AmqpError(Exception):
    """A fault of the peer, to be answered with channel.close or connection.close.

    Args:
        text: the explanation, without the name of the reply code.
        class_id: class of the method that failed, 0 where no method was at fault.
        method_id: its number within the class, 0 likewise.
    """

    reply_code: ClassVar[int] = 0
    reply_name: ClassVar[str] = ""
    by_reply_code: ClassVar[dict[int, type[AmqpError]]] = {}

    def __init__(self, text: str, class_id: int = 0, method_id: int = 0) -> None:
        super().__init__(text, class_id, method_id)
        self.text = text
        self.class_id = class_id
        self.method_id = method_id

    def __init_subclass__(cls, reply_code: int = 0, reply_name: str = "") -> None:
        """Register the class under its reply code; a second claimant is refused when the module loads."""
        super().__init_subclass__()
        if reply_code:
            if reply_code in AmqpError.by_reply_code:
                msg = f"reply code {reply_code} belongs to {AmqpError.by_reply_code[reply_code].__name__}"
                raise TypeError(msg)
            cls.reply_code = reply_code
            cls.reply_name = reply_name
            AmqpError.by_reply_code[reply_code] = cls

    @property
    def reply_text(self) -> str:
        """`NAME - explanation`, cut between characters so that it fits a shortstr and always encodes."""
        text = f"{self.reply_name} - {self.text}" if self.text else self.reply_name
        encoded = text.encode("utf-8", "replace")
        if len(encoded) <= REPLY_TEXT_BYTES_MAX:
            return encoded.decode()
        return encoded[: REPLY_TEXT_BYTES_MAX - len(_CUT)].decode("utf-8", "ignore") + _CUT

    def __str__(self) -> str:
        return self.reply_text


class SoftError(AmqpError):
    """Closes the channel (the connection, where it happens on channel 0)."""


class HardError(AmqpError):
    """Closes the connection."""


class ContentTooLarge(SoftError, reply_code=311, reply_name="CONTENT_TOO_LARGE"):
    """The content is larger than the server takes at present."""


class NoRoute(SoftError, reply_code=312, reply_name="NO_ROUTE"):
    """A mandatory message reached no queue; only ever told by basic.return."""


class NoConsumers(SoftError, reply_code=313, reply_name="NO_CONSUMERS"):
    """An immediate message found no consumer; kept because the specification names it."""


class AccessRefused(SoftError, reply_code=403, reply_name="ACCESS_REFUSED"):
    """The user has no right to do that."""


class NotFound(SoftError, reply_code=404, reply_name="NOT_FOUND"):
    """The entity does not exist."""


class ResourceLocked(SoftError, reply_code=405, reply_name="RESOURCE_LOCKED"):
    """Another connection has the entity for itself."""


class PreconditionFailed(SoftError, reply_code=406, reply_name="PRECONDITION_FAILED"):
    """The request contradicts the state of the entity or of the channel."""


class ConnectionForced(HardError, reply_code=320, reply_name="CONNECTION_FORCED"):
    """An operator or the end of the node closed the connection."""


class InvalidPath(HardError, reply_code=402, reply_name="INVALID_PATH"):
    """The client named an unknown virtual host (of old; now 530)."""


class FrameError(HardError, reply_code=501, reply_name="FRAME_ERROR"):
    """The frame cannot be decoded."""


class AmqpSyntaxError(HardError, reply_code=502, reply_name="SYNTAX_ERROR"):
    """The frame holds an illegal value."""


class CommandInvalid(HardError, reply_code=503, reply_name="COMMAND_INVALID"):
    """The method does not exist or is not allowed in this state."""


class ChannelError(HardError, reply_code=504, reply_name="CHANNEL_ERROR"):
    """The channel is not open, or opened twice."""


class UnexpectedFrame(HardError, reply_code=505, reply_name="UNEXPECTED_FRAME"):
    """The frame does not follow from those before it."""


class ResourceError(HardError, reply_code=506, reply_name="RESOURCE_ERROR"):
    """The server lacks what it needs for that."""


class NotAllowed(HardError, reply_code=530, reply_name="NOT_ALLOWED"):
    """The client may not do that, whatever its rights."""


class AmqpNotImplemented(HardError, reply_code=540, reply_name="NOT_IMPLEMENTED"):
    """The server does not have the function."""


class InternalError(HardError, reply_code=541, reply_name="INTERNAL_ERROR"):
    """A fault of the server itself."""
