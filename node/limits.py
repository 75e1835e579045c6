"""Every bound of the AMQP side, with the reason for its value. Defaults are RabbitMQ's."""

from typing import Final

FRAME_MAX_BYTES_MIN: Final = 4096
"""The specification's frame-min-size (AMQP 4.2.3): no client may negotiate less."""
FRAME_MAX_BYTES_DEFAULT: Final = 131_072
"""What connection.tune offers: a usual message is one frame, and channels still take turns."""
INITIAL_FRAME_MAX_BYTES: Final = 8192
"""Frames before tune-ok: start-ok is the largest, and whoever sends it is not known yet."""
CHANNEL_MAX_MIN: Final = 1
CHANNEL_MAX_DEFAULT: Final = 2047
HEARTBEAT_S_DEFAULT: Final = 60

MESSAGE_SIZE_BYTES_MAX_DEFAULT: Final = 16 * 1024 * 1024
"""One message's body; above it 406 on the channel."""
MESSAGE_SIZE_BYTES_MAX: Final = 512 * 1024 * 1024
"""What may be configured at most, and what no honest client announces: above it 501 on the connection."""
RUN_BYTES_MAX_DEFAULT: Final = 256 * 1024
"""Packed messages of one Publish: one log entry's worth, so that a run is not cut again on its way."""
ASSEMBLY_MESSAGES_MAX: Final = 16
"""Unfinished contents of a connection take at most that many messages of the greatest size: 506 above it."""
UNREAD_BYTES_MAX: Final = 1024 * 1024
"""Bytes kept while a login or virtual host is checked; who sends more did not wait for the answer: 504."""
PUBLISH_ARGUMENTS_KEPT_MAX: Final = 16_384
"""Parsed exchange and routing key pairs kept per process, some 10 MB of usual ones; the oldest are forgotten."""

HANDSHAKE_TIMEOUT_MS: Final = 10_000
"""From the connect to connection.open-ok, so that silent sockets do not pile up."""
LEAVING_TIMEOUT_MS: Final = 10_000
"""What a client asked for before it closed is answered first, but not for ever: as long as a request may wait."""
CLOSE_TIMEOUT_MS: Final = 30_000
"""How long to wait for connection.close-ok before the socket is closed anyway."""
SILENT_CLOSE_MS: Final = 3_000
"""After a refused login or a broken frame: slows down guessing, and lets the reply text reach the client."""
HEARTBEATS_MISSED_MAX: Final = 2
"""Intervals of silence after which the client is taken for dead (AMQP 4.2.7)."""
