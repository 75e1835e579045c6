"""What `scan` makes of a byte stream: one tuple for each burst, range of acks or frame, told apart by its first
member.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

METHOD: Final = 0
PUBLISH: Final = 1
ACK: Final = 2
HEADER: Final = 3
BODY: Final = 4
HEARTBEAT: Final = 5
ERROR: Final = 6

PublishedRun: TypeAlias = tuple[bytes, int, bytes]
"""Arguments of basic.publish after the ticket, count, packed records.

Of the flags that end the arguments only those of the protocol are kept, and SPECIAL_FLAG is set where the messages
are special: all of a run are, or none.
"""

PUBLISH_FLAGS: Final = 3
"""The flags that a client may set in basic.publish: mandatory, immediate."""
SPECIAL_FLAG: Final = 0x80
"""The properties of these messages ask something of the broker."""

Item: TypeAlias = (
    # METHOD, channel, class << 16 | method, arguments
    tuple[Literal[0], int, int, bytes]
    # PUBLISH, channel, runs
    | tuple[Literal[1], int, list[PublishedRun]]
    # ACK, channel, first delivery tag, last delivery tag, multiple
    | tuple[Literal[2], int, int, int, bool]
    # HEADER, BODY or HEARTBEAT, channel, payload
    | tuple[Literal[3, 4, 5], int, bytes]
    # ERROR, channel, reply code, explanation (without the name of the reply code)
    | tuple[Literal[6], int, int, str]
)

WAIT_BODY_BYTES_MAX: Final = 65536
WAIT_HEADER_BYTES_MAX: Final = 8192
WAIT_BODY_FRAMES_MAX: Final = 16
"""Content that has begun to arrive is left in the buffer only within these three bounds. Beyond them its
frames are handed out one by one: the buffer stays small, and a peer that dribbles cannot make each scan
long."""


def publish_args(args: bytes, *, special: bool) -> bytes:
    """The arguments of basic.publish as a run has them; see `PublishedRun`."""
    flags = args[-1] & PUBLISH_FLAGS | (SPECIAL_FLAG if special else 0)
    return args[:-1] + bytes((flags,))
