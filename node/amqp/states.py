"""The states of a connection and of a channel, and which method leads from which to which: data only.

The names are RabbitMQ's, because error texts show them. A method that a state's row lacks is the client's
fault: 504 `unexpected method in connection state ...` on channel 0, 503 or 504 on a channel (AMQP 2.2.4,
4.2.2).
"""

from enum import Enum
from typing import Final

START_OK: Final = 10 << 16 | 11
TUNE_OK: Final = 10 << 16 | 31
OPEN: Final = 10 << 16 | 40
CLOSE: Final = 10 << 16 | 50
CLOSE_OK: Final = 10 << 16 | 51
UPDATE_SECRET: Final = 10 << 16 | 70

CHANNEL_OPEN: Final = 20 << 16 | 10
CHANNEL_FLOW: Final = 20 << 16 | 20
CHANNEL_CLOSE: Final = 20 << 16 | 40
CHANNEL_CLOSE_OK: Final = 20 << 16 | 41

ACCESS_REQUEST: Final = 30 << 16 | 10
BASIC_PUBLISH: Final = 60 << 16 | 40
BASIC_ACK: Final = 60 << 16 | 80
BASIC_REJECT: Final = 60 << 16 | 90
BASIC_NACK: Final = 60 << 16 | 120
CONFIRM_SELECT: Final = 85 << 16 | 10
TX_SELECT: Final = 90 << 16 | 10
TX_COMMIT: Final = 90 << 16 | 20
TX_ROLLBACK: Final = 90 << 16 | 30


class ConnectionState(Enum):
    """Where a connection is in its life. The value is the name that error texts show."""

    HANDSHAKE = "handshake"  # the protocol header is awaited
    STARTING = "starting"  # start is sent
    SECURING = "securing"  # the session checks the credentials; bytes wait
    TUNING = "tuning"  # tune is sent
    AWAITING_OPEN = "opening"  # tune-ok was right
    OPENING = "opened"  # the session checks the virtual host; bytes wait
    RUNNING = "running"
    LEAVING = "leaving"  # its end is certain, earlier methods are yet to be answered; only close is looked at
    CLOSING = "closing"  # close is sent; everything but close and close-ok is ignored
    DEAF = "deaf"  # as CLOSING, but the frames are lost: nothing is read, the socket ends by the clock
    CLOSED = "closed"  # the socket is to be closed when the output has gone


class ChannelState(Enum):
    """Where a channel is in its life; a channel that is not open does not exist."""

    OPEN = "open"
    LEAVING = "leaving"  # its end is certain, earlier methods are yet to be answered; only close is looked at
    CLOSING = "closing"  # close is sent; everything but close and close-ok is ignored
    CLOSED = "closed"


_S = ConnectionState
CONNECTION_STEPS: Final[dict[ConnectionState, dict[int, ConnectionState]]] = {
    _S.HANDSHAKE: {},
    _S.STARTING: {START_OK: _S.SECURING, CLOSE: _S.LEAVING},
    _S.SECURING: {},
    _S.TUNING: {TUNE_OK: _S.AWAITING_OPEN, CLOSE: _S.LEAVING},
    _S.AWAITING_OPEN: {OPEN: _S.OPENING, CLOSE: _S.LEAVING},
    _S.OPENING: {},
    _S.RUNNING: {CLOSE: _S.LEAVING, UPDATE_SECRET: _S.RUNNING},
    _S.LEAVING: {CLOSE: _S.LEAVING},
    _S.CLOSING: {CLOSE: _S.CLOSED, CLOSE_OK: _S.CLOSED},
    _S.DEAF: {},
    _S.CLOSED: {},
}
"""On channel 0: state -> method -> next state. The steps that the session takes: SECURING -> TUNING
(login_accepted), OPENING -> RUNNING (open_accepted), LEAVING -> CLOSING or CLOSED (finish), any -> CLOSING (fail)."""

WAITING: Final = (_S.SECURING, _S.OPENING)
"""The session has the word; bytes of the client are kept unread."""
ENDED: Final = (_S.CLOSING, _S.DEAF, _S.CLOSED)
"""The last method of the server is sent."""
IGNORING: Final = (_S.LEAVING, *ENDED)
"""ConnectionClosing or ConnectionClosed was told; what the client sends means nothing but that it closes, too."""

SESSION_METHODS: Final = frozenset(
    class_id << 16 | method_id
    for class_id, method_ids in (
        (40, (10, 20, 30, 40)),  # exchange.declare delete bind unbind
        (50, (10, 20, 30, 40, 50)),  # queue.declare bind purge delete unbind
        (60, (10, 20, 30, 70, 100, 110)),  # basic.qos consume cancel get recover-async recover
    )
    for method_id in method_ids
)
"""What an open channel hands to the session as it is."""
