"""Streams of frames for the tests of the codec: good ones, broken ones, and what they mean."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from types import ModuleType

from hypothesis import strategies as st

from node.wire import reference
from node.wire.content_header import REPLY_TO
from node.wire.items import ACK, BODY, HEADER, HEARTBEAT, METHOD, PUBLISH, Item, PublishedRun, publish_args
from node.wire.methods import BasicAck, BasicPublish, ChannelClose, QueueDeclare, frame, method_frame
from node.wire.primitives import Decimal
from node.wire.properties import BasicProperties, encode_header

PUBLISH_ID = 60 << 16 | 40
ACK_ID = 60 << 16 | 80

try:
    from node.wire import _codec
except ImportError:
    CODECS: tuple[ModuleType, ...] = (reference,)
else:
    CODECS = (reference, _codec)

FIELD_VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(1 << 63), (1 << 63) - 1),
        st.floats(),
        st.text(max_size=5),
        st.binary(max_size=5),
        st.builds(Decimal, st.integers(0, 255), st.integers(0, (1 << 32) - 1)),
    ),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.just("CC"), inner, max_size=3)
    ),
    max_leaves=6,
)
ASKING_NAMES = ("CC", "BCC", "x-delay", "x-deliver-at", "x-dedup-id")
NAMES = st.text(max_size=6) | st.sampled_from(
    (*ASKING_NAMES, "cc", "x-delaz", "XBCC", "x-dedup-ie", "x-deliver-a")
)
TABLES = st.dictionaries(NAMES, FIELD_VALUES, max_size=4)
SHORTSTRS = st.text(max_size=8)
REPLY_TOS = SHORTSTRS | st.sampled_from((REPLY_TO.decode(), REPLY_TO.decode() + ".x", REPLY_TO.decode()[:-1]))
PROPERTIES = st.builds(
    BasicProperties,
    **{
        name: st.none() | SHORTSTRS
        for name in BasicProperties.__dataclass_fields__
        if name not in ("headers", "delivery_mode", "priority", "timestamp", "reply_to")
    },
    reply_to=st.none() | REPLY_TOS,
    headers=st.none() | TABLES,
    delivery_mode=st.none() | st.integers(0, 255),
    priority=st.none() | st.just(0) | st.integers(0, 255),
    timestamp=st.none() | st.integers(0, (1 << 64) - 1),
)
CHANNELS = st.sampled_from((1, 1, 1, 2, 0, 65535))
BODIES = st.binary(max_size=40) | st.sampled_from((b"", b"x" * 300, b"y" * 5000))


def content_frame_list(channel: int, payload: bytes, body: bytes, piece: int) -> list[bytes]:
    """The header and body frames of some content, the body in pieces of so many bytes."""
    pieces = [frame(3, channel, body[at : at + piece]) for at in range(0, len(body), piece)]
    return [frame(2, channel, payload), *pieces]


def asks(properties: BasicProperties) -> bool:
    """Whether a message with these properties is special: the naive model of `is_special`."""
    return (
        bool(properties.priority)
        or properties.expiration is not None
        or properties.user_id is not None
        or properties.reply_to == REPLY_TO.decode()
        or any(name in (properties.headers or {}) for name in ASKING_NAMES)
    )


def message(
    channel: int,
    body: bytes,
    *,
    exchange: str = "x",
    routing_key: str = "key",
    piece: int = 4088,
    properties: BasicProperties | None = None,
) -> bytes:
    """A whole basic.publish."""
    payload = encode_header(len(body), properties or BasicProperties(delivery_mode=2))
    method = method_frame(channel, BasicPublish(exchange=exchange, routing_key=routing_key))
    return method + b"".join(content_frame_list(channel, payload, body, piece))


def publish_frame(channel: int, routing_key: str, flags: int) -> bytes:
    """A basic.publish to the exchange x, with whatever flags."""
    key = routing_key.encode()
    args = b"\0\0\x01x" + bytes((len(key),)) + key + bytes((flags,))
    return frame(1, channel, struct.pack(">I", PUBLISH_ID) + args)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """A publish: often like the one before it, at times with empty body frames or a wrong size."""
    channel = draw(CHANNELS)
    body = draw(BODIES)
    properties = draw(st.just(BasicProperties(delivery_mode=2)) | PROPERTIES)
    announced = len(body) + draw(st.sampled_from((0, 0, 0, 0, 1, -1, 70000, 1 << 40)))
    payload = encode_header(max(0, announced), properties)
    frames = [
        publish_frame(
            channel, draw(st.sampled_from(("k", "kk"))), draw(st.sampled_from((0, 0, 0, 1, 4, 0x80)))
        ),
        *content_frame_list(channel, payload, body, draw(st.sampled_from((1, 3, 1000, 4088)))),
    ]
    if draw(st.integers(0, 9)) == 0:
        frames.insert(draw(st.integers(1, len(frames))), frame(3, channel, b""))
    if draw(st.integers(0, 9)) == 0:
        frames.insert(draw(st.integers(1, len(frames))), draw(OTHER_FRAMES))
    return b"".join(frames)


ACKS = st.builds(
    lambda channel, first, count, multiple: b"".join(
        method_frame(channel, BasicAck(delivery_tag=(first + i) % (1 << 64), multiple=multiple))
        for i in range(count)
    ),
    CHANNELS,
    st.sampled_from((0, 1, 2, 3, (1 << 64) - 2)),
    st.integers(1, 5),
    st.sampled_from((False, False, True)),
)
OTHER_FRAMES = st.one_of(
    st.sampled_from(
        (
            frame(8, 0, b""),
            method_frame(1, QueueDeclare(queue="q", arguments={"x-max-length": 5})),
            method_frame(2, ChannelClose(reply_code=200)),
            frame(1, 1, struct.pack(">I", PUBLISH_ID) + b"\x00\x00\x05abc"),
            frame(1, 1, struct.pack(">I", ACK_ID) + bytes(10)),
            frame(1, 1, b"\x00\x3c"),
        )
    ),
    st.builds(frame, st.sampled_from((2, 3, 8)), CHANNELS, st.binary(max_size=20)),
)


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """A stream as a client sends it, or nearly: runs, other frames, and at times a few bytes wrong or cut."""
    parts = draw(st.lists(messages() | ACKS | OTHER_FRAMES, max_size=5))
    parts = [part for part in parts for _ in range(draw(st.sampled_from((1, 1, 2, 5))))]
    stream = bytearray(b"".join(parts))
    for _ in range(draw(st.sampled_from((0, 0, 0, 1, 2)))):
        if stream:
            stream[draw(st.integers(0, len(stream) - 1))] = draw(st.integers(0, 255))
    return bytes(stream[: len(stream) - draw(st.sampled_from((0, 0, 1, 5, 30)))])


def _run_meant(channel: int, run: PublishedRun) -> Iterator[tuple[object, ...]]:
    args, count, packed = run
    exrk = args[:-1]
    offset = 0
    for _ in range(count):
        head_bytes, body_bytes = struct.unpack_from(">II", packed, offset)
        offset += 8
        head = packed[offset : offset + head_bytes]
        assert head.startswith(exrk)
        yield METHOD, channel, PUBLISH_ID, publish_args(args, special=False)
        yield HEADER, channel, head[len(exrk) :]
        offset += head_bytes
        yield from _body_octets(channel, packed[offset : offset + body_bytes])
        offset += body_bytes
    assert offset == len(packed)


def frames_meant(items: list[Item]) -> list[tuple[object, ...]]:
    """Items with runs taken apart into what single frames would have said: the same however cut."""
    meant: list[tuple[object, ...]] = []
    for item in items:
        if item[0] == PUBLISH:
            for run in item[2]:
                meant.extend(_run_meant(item[1], run))
        elif item[0] == ACK:
            _, channel, first, last, multiple = item
            meant.extend((ACK, channel, tag, multiple) for tag in range(first, last + 1))
        elif item[0] == METHOD and item[2] == PUBLISH_ID and len(item[3]) > 2:
            # Flags that no client may set mean nothing; a run has none, a single frame is not looked into.
            meant.append((METHOD, item[1], PUBLISH_ID, publish_args(item[3][2:], special=False)))
        elif item[0] == BODY:
            meant.extend(_body_octets(item[1], item[2]))
        else:
            assert item[0] in (METHOD, HEADER, HEARTBEAT, 6)
            meant.append(item)
    return meant


def _body_octets(channel: int, body: bytes) -> list[tuple[object, ...]]:
    """How a body was cut into frames means nothing: what counts is its octets."""
    return [(BODY, channel, body)] if body else []


def joined_bodies(meant: list[tuple[object, ...]]) -> list[tuple[object, ...]]:
    """The same with body pieces that follow each other on a channel as one."""
    joined: list[tuple[object, ...]] = []
    for entry in meant:
        before = joined[-1] if joined else ()
        if entry[0] == BODY and before and before[:2] == entry[:2]:
            assert isinstance(before[2], bytes)
            assert isinstance(entry[2], bytes)
            joined[-1] = (BODY, entry[1], before[2] + entry[2])
        else:
            joined.append(entry)
    return joined
