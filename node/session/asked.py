"""What the properties of a special message ask of the broker: read once for each set of properties, then kept.

On a message's path between the codec, which says which runs are special, and routing. Knows RabbitMQ's rules and texts
for each of them; routes nothing and stores nothing.
"""

import math
import re
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from node.broker.arguments import EXPIRY_MS_MAX
from node.broker.commands import Options
from node.broker.values import show
from node.errors import PreconditionFailed
from node.session import direct_reply
from node.wire.primitives import Timestamp, type_name
from node.wire.properties import AskingProperties, decode_asking, decode_header, encode_header

if TYPE_CHECKING:
    from node.session.channel import ChannelSession
    from node.session.session import Session
    from node.wire.primitives import FieldValue, Table

KEPT_MAX = 1024
"""Sets of properties whose meaning is kept: most publishers ask the same with each message."""
KEPT_BYTES_MAX = 512
"""The longest of them, encoded."""
DELAY_MS_MAX = (1 << 32) - 1
"""As the plugin for delayed messages takes at most."""
DELIVER_AT_MS_MAX = 253_402_300_799_999
"""The end of the year 9999."""
DEDUP_ID_BYTES_MAX = 255

NO_OPTIONS = Options()

_PROPERTIES_OFFSET = 12
_ESCAPES = {
    ord(octet): "\\" + letter for octet, letter in zip('\b\t\n\v\f\r\x1b"\\', 'btnvfre"\\', strict=True)
}
"""How Erlang writes what else would not be seen or would end a string."""
_INTEGER = re.compile(r"([+-]?[0-9]+)(.*)", re.DOTALL)


class Asked(NamedTuple):
    """What one message asks.

    Args:
        options: as its queues are told, without the dedup id.
        dedup_id: its x-dedup-id, empty: none.
        keys: the routing keys of CC and BCC.
        user_id: as the publisher claims; None: it claims nothing.
        is_rewritten: its properties are stored otherwise than they came: see `kept_header`.
        fault: why it must be refused with 406, "": it is right.
    """

    options: Options = NO_OPTIONS
    dedup_id: bytes = b""
    keys: tuple[str, ...] = ()
    user_id: str | None = None
    is_rewritten: bool = False
    fault: str = ""


def asked_by(session: "Session", header: bytes) -> Asked:
    """What a message asks, by its content header.

    Raises:
        PreconditionFailed: 406, a property has a value that it must not have, or names another user.
    """
    properties = header[_PROPERTIES_OFFSET:]
    asked = _read_kept(properties) if len(properties) <= KEPT_BYTES_MAX else _read(properties)
    if asked.user_id is not None and asked.user_id != session.user:
        _check_impersonator(session, asked.user_id)
    if asked.fault:
        raise PreconditionFailed(asked.fault)
    return asked


def kept_header(channel: "ChannelSession", header: bytes) -> bytes:
    """The content header that is stored for a message whose properties are rewritten.

    Nobody is told of its BCC, and direct replies get an address. The one place where properties of a message change on
    their way.

    Raises:
        PreconditionFailed: 406, it asks for a direct reply, and the channel has no consumer for it.
    """
    size_bytes, properties = decode_header(header)
    if properties.reply_to == direct_reply.QUEUE:
        direct_reply.rewrite(channel, properties)
    if properties.headers is not None:
        properties.headers.pop("BCC", None)
    return encode_header(size_bytes, properties)


def _check_impersonator(session: "Session", claimed: str) -> None:
    user = session.node.topology.user(session.user)
    if user is None or "impersonator" not in user.tags:
        raise PreconditionFailed(
            f"user_id property set to '{claimed}' but authenticated user was '{session.user}'"
        )


def _read(properties: bytes) -> Asked:
    """Read encoded properties; a fault is kept rather than raised, because a wrong user id comes before it."""
    decoded = decode_asking(properties)
    try:
        return _meaning(decoded)
    except PreconditionFailed as error:
        return Asked(user_id=decoded.user_id, fault=error.text)


_read_kept = lru_cache(KEPT_MAX)(_read)


def _meaning(properties: AskingProperties) -> Asked:
    ttl_ms = -1 if properties.expiration is None else _expiration(properties.expiration)
    headers = properties.headers or {}
    keys = _routing_keys(headers, "CC") + _routing_keys(headers, "BCC")
    options = Options(
        priority=properties.priority or 0,
        ttl_ms=ttl_ms,
        delay_ms=_milliseconds(headers, "x-delay", DELAY_MS_MAX),
        deliver_at_ms=_milliseconds(headers, "x-deliver-at", DELIVER_AT_MS_MAX),
    )
    is_rewritten = "BCC" in headers or properties.reply_to == direct_reply.QUEUE
    return Asked(options, _dedup_id(headers), keys, properties.user_id, is_rewritten)


def _expiration(text: str) -> int:
    """The time to live in milliseconds; raises 406 with the term that RabbitMQ gives as the reason."""
    found = _INTEGER.fullmatch(text)
    if found is None:
        reason = "no_integer"
    elif found[2]:
        reason = f"{{leftover_string,{_erlang_string(found[2])}}}"
    else:
        ttl_ms = int(found[1])
        if 0 <= ttl_ms <= EXPIRY_MS_MAX:
            return ttl_ms
        reason = f"{{value_negative,{ttl_ms}}}" if ttl_ms < 0 else f"{{value_too_large,{ttl_ms}}}"
    raise PreconditionFailed(f"invalid expiration '{text}': {reason}")


def _erlang_string(text: str) -> str:
    """A list of bytes as Erlang prints it: as text where all of it is printable Latin-1, else as numbers."""
    octets = text.encode("utf-8", "surrogateescape")
    if all(octet in _ESCAPES or 32 <= octet < 127 or octet >= 160 for octet in octets):
        shown = octets.decode("latin-1").translate(_ESCAPES).encode("latin-1")
        return f'"{shown.decode("utf-8", "surrogateescape")}"'
    return f"[{','.join(map(str, octets))}]"


def _routing_keys(headers: "Table", name: str) -> tuple[str, ...]:
    """The further routing keys in one of the headers CC and BCC: what is no text in the array counts for nothing."""
    if name not in headers:
        return ()
    value = headers[name]
    if not isinstance(value, list):
        kind = type_name(value)
        raise PreconditionFailed(f'invalid message: {{unacceptable_type_in_header,"{name}",{kind}}}')
    encoded = [_longstr(item) for item in value]
    return tuple([key.decode("utf-8", "surrogateescape") for key in encoded if key is not None])


def _longstr(value: "FieldValue") -> bytes | None:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    return bytes(value) if type_name(value) == "longstr" and isinstance(value, bytes) else None


def _milliseconds(headers: "Table", name: str, value_max: int) -> int:
    """A time of this header, 0 where it is not there or not positive: a number, or one written as text."""
    value = headers.get(name, 0)
    time_ms = _integer(value)
    if time_ms is None:
        raise PreconditionFailed(f"invalid {name} '{show(value)}': no_integer")
    if time_ms > value_max:
        raise PreconditionFailed(f"invalid {name} '{show(value)}': {{value_too_large,{time_ms}}}")
    return max(0, time_ms)


def _integer(value: "FieldValue") -> int | None:
    if isinstance(value, str):
        found = _INTEGER.fullmatch(value)
        return int(value) if found is not None and not found[2] and len(value) <= 255 else None
    if isinstance(value, float):
        return int(value) if math.isfinite(value) else None
    if isinstance(value, Timestamp):
        return value * 1000  # the type counts seconds
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else None


def _dedup_id(headers: "Table") -> bytes:
    if "x-dedup-id" not in headers:
        return b""
    value = headers["x-dedup-id"]
    name = _longstr(value)
    if name is None:
        raise PreconditionFailed(f"invalid x-dedup-id: expected longstr, got {type_name(value)}")
    if len(name) > DEDUP_ID_BYTES_MAX:
        raise PreconditionFailed(f"invalid x-dedup-id: longer than {DEDUP_ID_BYTES_MAX} bytes")
    return name
