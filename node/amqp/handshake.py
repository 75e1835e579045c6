"""Before a connection runs: protocol header, server properties, SASL mechanisms, tuning (AMQP 2.2.4, 4.2.2).

Pure steps without state; `connection` keeps the state and calls them in turn.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeAlias

from node.errors import AmqpError, AmqpSyntaxError, CommandInvalid, NotAllowed
from node.limits import (
    CHANNEL_MAX_DEFAULT,
    CHANNEL_MAX_MIN,
    FRAME_MAX_BYTES_DEFAULT,
    FRAME_MAX_BYTES_MIN,
    HEARTBEAT_S_DEFAULT,
    MESSAGE_SIZE_BYTES_MAX,
    MESSAGE_SIZE_BYTES_MAX_DEFAULT,
    RUN_BYTES_MAX_DEFAULT,
)
from node.wire.methods import ConnectionStart, ConnectionTune, ConnectionTuneOk, method_frame
from node.wire.primitives import Table, decode_table, encode_longstr, erlang_bytes

HEADER: Final = b"AMQP\x00\x00\x09\x01"
"""What this server speaks; also its answer to whoever speaks something else (AMQP 4.2.2)."""
HEADERS: Final = (HEADER, b"AMQP\x01\x01\x00\x09")
"""What is taken for 0-9-1: the second is how clients of 0-9 say it."""

CAPABILITIES: Final = (
    "publisher_confirms",
    "exchange_exchange_bindings",
    "basic.nack",
    "consumer_cancel_notify",
    "connection.blocked",
    "consumer_priorities",
    "authentication_failure_close",
    "per_consumer_qos",
    "direct_reply_to",
)

_TUNE_IDS: Final = (10, 30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the operator decides about connections.

    Args:
        product, version: whose behaviour clients find here. Some choose theirs by it: kombu sends basic.qos with
            `global` to RabbitMQ 3.3 to 3.13 and to no other, and without it Celery's countdowns stall.
        cluster_name, platform, copyright, information: shown to clients as server properties too.
        frame_max: greatest frame in bytes, 0 for no limit.
        channel_max: channels of one connection, 0 for no limit.
        heartbeat_s: interval that is proposed to clients; their answer counts. 0: none.
        message_size_bytes_max: greatest body of a message.
        run_bytes_max: bound of the packed bytes of one Publish event; a larger message stands alone.
        mechanisms: which of MECHANISMS clients may log in with.
    """

    product: str = "RabbitMQ"
    version: str = "3.13.7"
    cluster_name: str = "warren"
    platform: str = "Python"
    copyright: str = ""
    information: str = ""
    frame_max: int = FRAME_MAX_BYTES_DEFAULT
    channel_max: int = CHANNEL_MAX_DEFAULT
    heartbeat_s: int = HEARTBEAT_S_DEFAULT
    message_size_bytes_max: int = MESSAGE_SIZE_BYTES_MAX_DEFAULT
    run_bytes_max: int = RUN_BYTES_MAX_DEFAULT
    mechanisms: tuple[str, ...] = ("PLAIN", "AMQPLAIN")

    def __post_init__(self) -> None:
        """Refuse what no connection could run with."""
        assert self.frame_max == 0 or self.frame_max >= FRAME_MAX_BYTES_MIN, "frame_max is below the minimum"
        assert 0 <= self.channel_max <= 0xFFFF and 0 <= self.heartbeat_s <= 0xFFFF, (
            "does not fit connection.tune"
        )
        assert 0 < self.message_size_bytes_max <= MESSAGE_SIZE_BYTES_MAX, (
            "message_size_bytes_max is out of range"
        )
        assert all(mechanism in MECHANISMS for mechanism in self.mechanisms), "unknown mechanism"


def is_wrong_header(data: bytes) -> bool:
    """Tell whether bytes that begin a connection, 8 or fewer, cannot become a header that is understood."""
    return not any(header.startswith(data) for header in HEADERS)


@lru_cache(maxsize=8)  # a node has one Options, and says the same to every client
def start_frame(options: Options) -> bytes:
    """The server's first method, as a frame."""
    capabilities: Table = dict.fromkeys(CAPABILITIES, True)
    properties: Table = {
        "capabilities": capabilities,
        "product": options.product,
        "version": options.version,
        "cluster_name": options.cluster_name,
        "platform": options.platform,
        "copyright": options.copyright,
        "information": options.information,
    }
    mechanisms = " ".join(options.mechanisms).encode()
    return method_frame(0, ConnectionStart(server_properties=properties, mechanisms=mechanisms))


def credentials(options: Options, mechanism: str, response: bytes) -> tuple[str, str]:
    """User and password of a start-ok.

    Raises:
        CommandInvalid: 503, the mechanism is unknown or not offered.
        AmqpSyntaxError: 502, the response is not of its form.
    """
    read = MECHANISMS.get(mechanism)
    if read is None:
        msg = f"unknown authentication mechanism '{mechanism}'"
        raise CommandInvalid(msg)
    if mechanism not in options.mechanisms:
        msg = f"invalid authentication mechanism '{mechanism}'"
        raise CommandInvalid(msg)
    return read(response)


def tune(options: Options) -> ConnectionTune:
    """The server's proposal."""
    return ConnectionTune(
        channel_max=options.channel_max, frame_max=options.frame_max, heartbeat=options.heartbeat_s
    )


def check_tune_ok(options: Options, tune_ok: ConnectionTuneOk) -> None:
    """Raise 530 where the client takes more than was offered, or less than the least."""
    _check_negotiated("frame_max", tune_ok.frame_max, FRAME_MAX_BYTES_MIN, options.frame_max)
    _check_negotiated("channel_max", tune_ok.channel_max, CHANNEL_MAX_MIN, options.channel_max)


def _check_negotiated(field: str, value: int, value_min: int, value_max: int) -> None:
    detail = " (no limit)" if field == "channel_max" and value == 0 else ""
    if value != 0 and value < value_min:
        msg = f"negotiated {field} = {value}{detail} is lower than the minimum allowed value ({value_min})"
        raise NotAllowed(msg, *_TUNE_IDS)
    if value_max != 0 and (value == 0 or value > value_max):
        msg = f"negotiated {field} = {value}{detail} is higher than the maximum allowed value ({value_max})"
        raise NotAllowed(msg, *_TUNE_IDS)


def _plain(response: bytes) -> tuple[str, str]:
    """RFC 4616: authorization identity, user, password, each after a zero octet but the first."""
    parts = response.split(b"\0")
    if len(parts) != 3:
        raise _invalid_response(response)
    try:
        return parts[1].decode(), parts[2].decode()
    except UnicodeDecodeError:
        raise _invalid_response(response) from None


def _amqplain(response: bytes) -> tuple[str, str]:
    """A table without its length, of LOGIN and PASSWORD."""
    try:
        table = decode_table(encode_longstr(response))
    except AmqpError:
        raise _invalid_response(response) from None
    user, password = table.get("LOGIN"), table.get("PASSWORD")
    if not isinstance(user, str) or not isinstance(password, str):
        msg = "AMQPLAIN auth info is missing LOGIN or PASSWORD field"
        raise AmqpSyntaxError(msg)
    return user, password


def _invalid_response(response: bytes) -> AmqpSyntaxError:
    return AmqpSyntaxError(f"response {erlang_bytes(response)} invalid")


Mechanism: TypeAlias = Callable[[bytes], tuple[str, str]]
MECHANISMS: Final[dict[str, Mechanism]] = {"PLAIN": _plain, "AMQPLAIN": _amqplain}
"""How the response of each SASL mechanism is read. To add one, add it here and to `Options.mechanisms`."""
