"""The codec: what scan and content_frames say, by both implementations, which must be equal on all bytes."""

from __future__ import annotations

import struct
import time
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.errors import AmqpError, AmqpSyntaxError, FrameError, UnexpectedFrame
from node.wire import codec
from node.wire.content_header import header_adds_up
from node.wire.items import ACK, BODY, ERROR, HEADER, HEARTBEAT, METHOD, PUBLISH
from node.wire.methods import BasicAck, BasicNack, BasicPublish, ChannelOpen, frame, method_frame
from node.wire.properties import BasicProperties, decode_header, encode_header
from tests.wire.streams import (
    CODECS,
    PROPERTIES,
    asks,
    content_frame_list,
    frames_meant,
    joined_bodies,
    message,
    publish_frame,
    streams,
)

RUN_MAX = 262144
EXRK = b"\x01x\x03key"
ARGS = EXRK + b"\x00"
PLAIN_HEADER = encode_header(3, BasicProperties())

both = pytest.mark.parametrize("codec", CODECS, ids=lambda module: module.__name__)
EXRKS = st.sampled_from((EXRK, b"\0\0", b"\0\x05hello", b"", b"\1", b"\xffx\0"))
any_frame_max = st.sampled_from((0, 64, 4096, 131072))
any_run_max = st.sampled_from((0, 1, 100, 400, RUN_MAX))


def record(body: bytes, payload: bytes | None = None, exrk: bytes = EXRK) -> bytes:
    payload = encode_header(len(body), BasicProperties(delivery_mode=2)) if payload is None else payload
    return struct.pack(">II", len(exrk) + len(payload), len(body)) + exrk + payload + body


def same(call: str, *args: object) -> object:
    """What all codecs answer, or raise."""
    answers = []
    for module in CODECS:
        try:
            answers.append(getattr(module, call)(*args))
        except (AmqpError, ValueError) as error:
            answers.append((type(error), str(error)))
    assert all(answer == answers[0] for answer in answers)
    return answers[0]


@both
def test_scan_makes_one_run_of_like_publishes(codec: ModuleType) -> None:
    """Design 2.1: consecutive messages that go the same way are one item."""
    stream = message(1, b"a") + message(1, b"") + message(1, b"ccc", piece=1)
    packed = record(b"a") + record(b"") + record(b"ccc")
    assert codec.scan(stream, 131072, RUN_MAX) == ([(PUBLISH, 1, [(ARGS, 3, packed)])], len(stream))


@both
def test_scan_ends_a_burst_where_the_channel_changes_and_a_run_where_the_key_does(codec: ModuleType) -> None:
    stream = message(1, b"a") + message(2, b"b") + message(2, b"c", routing_key="kez")
    items, consumed = codec.scan(stream, 131072, RUN_MAX)
    other = b"\x01x\x03kez"
    assert items == [
        (PUBLISH, 1, [(ARGS, 1, record(b"a"))]),
        (PUBLISH, 2, [(ARGS, 1, record(b"b")), (other + b"\x00", 1, record(b"c", exrk=other))]),
    ]
    assert consumed == len(stream)


@both
def test_scan_ends_a_burst_where_something_else_comes(codec: ModuleType) -> None:
    """What a channel says takes effect in its order (AMQP 4.7)."""
    stream = message(1, b"a") + method_frame(1, BasicAck(5)) + message(1, b"b")
    assert [item[0] for item in codec.scan(stream, 131072, RUN_MAX)[0]] == [PUBLISH, ACK, PUBLISH]


@both
def test_scan_ends_a_run_at_its_bound(codec: ModuleType) -> None:
    """A message larger than the bound stands alone; others share a run up to the bound, no byte more."""
    size = len(record(b"12345"))
    stream = message(1, b"12345") * 4
    for bytes_max, counts in ((2 * size, [2, 2]), (2 * size - 1, [1, 1, 1, 1])):
        (item,), _ = codec.scan(stream, 0, bytes_max)
        assert [count for _, count, _ in item[2]] == counts


@both
def test_scan_waits_for_the_rest_of_a_small_message(codec: ModuleType) -> None:
    whole = message(1, b"a" * 100, piece=30)
    for cut in range(len(whole)):
        assert codec.scan(whole + whole[:cut], 131072, RUN_MAX)[1] == len(whole)
        assert codec.scan(whole[:cut], 131072, RUN_MAX) == ([], 0)


@both
def test_scan_hands_out_the_frames_of_a_large_message_as_they_come(codec: ModuleType) -> None:
    """The buffer must not grow to the size of a body: what is complete is taken."""
    whole = message(1, b"a" * 65537, piece=60000)
    items, consumed = codec.scan(whole[:-1], 131072, RUN_MAX)
    assert [item[0] for item in items] == [METHOD, HEADER, BODY]
    assert len(whole) - consumed == 8 + 5537
    assert [item[0] for item in codec.scan(whole, 131072, RUN_MAX)[0]] == [PUBLISH]


@both
def test_scan_does_not_wait_for_many_small_body_frames(codec: ModuleType) -> None:
    """What a scan looks at again is bounded, or a peer that dribbles costs the square of what it sends."""
    whole = message(1, b"a" * 60000, piece=1)
    items, consumed = codec.scan(whole[:-1], 131072, RUN_MAX)
    assert [item[0] for item in items[:3]] == [METHOD, HEADER, BODY]
    assert consumed == len(whole) - 9


@both
def test_scan_hands_out_single_frames_when_channels_are_mixed(codec: ModuleType) -> None:
    """AMQP 4.2.6: frames of other channels may stand between those of a content."""
    one = message(1, b"a")
    at = len(method_frame(1, BasicPublish(exchange="x", routing_key="key")))
    items, _ = codec.scan(one[:at] + frame(8, 0, b"") + one[at:] + message(1, b"b"), 131072, RUN_MAX)
    assert [item[0] for item in items] == [METHOD, HEARTBEAT, HEADER, BODY, PUBLISH]


@both
@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x00\x3c\x00\x00",
        PLAIN_HEADER[:13],
        b"\x00\x32" + PLAIN_HEADER[2:],
        b"\x00\x3c\x00\x01" + PLAIN_HEADER[4:],
        PLAIN_HEADER + b"x",
        PLAIN_HEADER[:12] + b"\x00\x01",
        PLAIN_HEADER[:12] + b"\x00\x02",
        PLAIN_HEADER[:12] + b"\x80\x00",
        PLAIN_HEADER[:12] + b"\x80\x00\x02a",
        PLAIN_HEADER[:12] + b"\x20\x00\x00\x00\x00",
        PLAIN_HEADER[:12] + b"\x20\x00\xff\xff\xff\xff",
        PLAIN_HEADER[:12] + b"\x20\x00\x00\x00\x00\x03\x01a?",
        PLAIN_HEADER[:12] + b"\x20\x00\x00\x00\x00\x07\x01aS\xff\xff\xff\xff",
        PLAIN_HEADER[:12] + b"\x00\x40\x00\x00\x00\x00\x00\x00\x00",
    ],
)
def test_scan_leaves_a_broken_header_to_the_channel(codec: ModuleType, payload: bytes) -> None:
    """A header that does not add up is handed out alone, before any body; check_header names the fault."""
    method = method_frame(1, BasicPublish(exchange="x"))
    items, _ = codec.scan(method + frame(2, 1, payload), 131072, RUN_MAX)
    assert [item[0] for item in items] == [METHOD, HEADER]
    with pytest.raises(AmqpError):
        codec.check_header(payload)


@both
def test_scan_joins_acknowledgements_that_follow_each_other(codec: ModuleType) -> None:
    tags = [(1, False), (2, False), (3, False), (5, False), (9, True), (10, False)]
    stream = b"".join(method_frame(1, BasicAck(delivery_tag=tag, multiple=many)) for tag, many in tags)
    stream += method_frame(2, BasicAck(delivery_tag=11))
    assert codec.scan(stream, 131072, RUN_MAX)[0] == [
        (ACK, 1, 1, 3, False),
        (ACK, 1, 5, 5, False),
        (ACK, 1, 9, 9, True),
        (ACK, 1, 10, 10, False),
        (ACK, 2, 11, 11, False),
    ]


@both
def test_scan_does_not_join_acknowledgements_around_the_largest_tag(codec: ModuleType) -> None:
    stream = b"".join(method_frame(1, BasicAck(delivery_tag=tag)) for tag in ((1 << 64) - 1, 0))
    largest = (1 << 64) - 1
    assert codec.scan(stream, 0, RUN_MAX)[0] == [(ACK, 1, largest, largest, False), (ACK, 1, 0, 0, False)]


@both
def test_scan_hands_out_other_methods_with_their_ids(codec: ModuleType) -> None:
    nack = method_frame(3, BasicNack(delivery_tag=7, multiple=True, requeue=False))
    assert codec.scan(method_frame(1, ChannelOpen()) + nack, 131072, RUN_MAX)[0] == [
        (METHOD, 1, 20 << 16 | 10, b"\x00"),
        (METHOD, 3, 60 << 16 | 120, b"\x00\x00\x00\x00\x00\x00\x00\x07\x01"),
    ]


@both
@pytest.mark.parametrize(
    ("stream", "text"),
    [
        (
            b"\x03\x00\x01\x00\x00\x00\x02ab\xcf",
            'type 3, all octets = <<"ab">>: {invalid_frame_end_marker,207}',
        ),
        (
            b"\x03\x00\x01\x00\x00\x00\x11" + bytes(17) + b"\x00",
            f"type 3, first 16 octets = <<{','.join('0' * 16)}>>: {{invalid_frame_end_marker,0}}",
        ),
        (b"\x01\x00\x01\x00\x00\x10\x01", "type 1, all octets = <<>>: {frame_too_large,4097,4088}"),
        (b"\x04\x00\x01\x00\x00\x00\x00", "type 4, all octets = <<>>: unknown_frame"),
        (b"\x00\x00\x01\x00\x00\x00\x00", "type 0, all octets = <<>>: unknown_frame"),
        (b"\x01\x00\x01\x00\x00\x00\x02\x00\x0a\xce", "type 1, all octets = <<0,10>>: unknown_frame"),
    ],
)
def test_scan_ends_with_an_error_item_at_a_malformed_frame(
    codec: ModuleType, stream: bytes, text: str
) -> None:
    """AMQP 4.2.3: a frame that cannot be one ends the connection with 501; nothing after it is looked at."""
    good = message(1, b"a")
    items, consumed = codec.scan(good + stream + good, 4096, RUN_MAX)
    assert [item[0] for item in items] == [PUBLISH, ERROR]
    assert items[1] == (ERROR, 1, 501, text)
    assert consumed == len(good + stream + good)


@both
def test_scan_takes_a_frame_of_exactly_the_limit(codec: ModuleType) -> None:
    """A payload may have frame_max bytes: 8 more than the specification says, as clients are used to."""
    assert codec.scan(frame(3, 1, b"a" * 4096), 4096, RUN_MAX)[0] == [(BODY, 1, b"a" * 4096)]
    assert codec.scan(frame(3, 1, b"a" * 4097), 4096, RUN_MAX)[0][0][0] == ERROR


def test_scan_is_the_same_by_all_codecs_on_any_bytes() -> None:
    @settings(max_examples=300, deadline=None)
    @given(st.binary(max_size=200), any_frame_max, any_run_max)
    def check(data: bytes, frame_max: int, run_max: int) -> None:
        same("scan", data, frame_max, run_max)

    check()


@settings(max_examples=400, deadline=None)
@given(streams(), any_frame_max, any_run_max)
def test_scan_is_the_same_by_all_codecs_on_near_streams(stream: bytes, frame_max: int, run_max: int) -> None:
    answer = same("scan", stream, frame_max, run_max)
    assert isinstance(answer, tuple)
    assert 0 <= answer[1] <= len(stream)


@settings(max_examples=200, deadline=None)
@given(streams(), st.sampled_from((0, 131072)), st.data())
def test_scan_means_the_same_however_the_stream_is_cut(
    stream: bytes, frame_max: int, data: st.DataObject
) -> None:
    """Where TCP cuts a stream must not matter: the same frames, or the runs that stand for them."""
    whole, _ = codec.scan(stream, frame_max, RUN_MAX)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    items, buffer = [], b""
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        buffer += stream[start:end]
        found, consumed = codec.scan(buffer, frame_max, RUN_MAX)
        items += found
        buffer = buffer[consumed:]
        if found and found[-1][0] == ERROR:
            break
    assert joined_bodies(frames_meant(items)) == joined_bodies(frames_meant(whole))


@pytest.mark.parametrize("piece", [1, 8, 4088])
def test_scan_of_a_dribbled_stream_costs_no_more_than_in_proportion(piece: int) -> None:
    """Ten times the body must not cost a hundred times as much when every recv brings a few bytes."""

    def cost(body_bytes: int) -> float:
        stream = message(1, b"a" * body_bytes, piece=piece)
        began = time.process_time()
        buffer = b""
        for start in range(0, len(stream), 509):
            buffer += stream[start : start + 509]
            buffer = buffer[codec.scan(buffer, 131072, RUN_MAX)[1] :]
        assert not buffer
        return time.process_time() - began

    cost(2000)
    assert min(cost(60000) for _ in range(3)) < 40 * max(min(cost(6000) for _ in range(3)), 0.0005)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.binary(max_size=30), st.binary(max_size=60), EXRKS), max_size=5),
    st.binary(max_size=5),
    st.binary(max_size=5),
    st.integers(-1, 6),
    st.sampled_from((0, 9, 20, 100, 8, 1, -5)),
    st.sampled_from((-1, 0, 1, 1 << 40)),
    st.sampled_from((0, 1, 65535, 65536, -1)),
)
def test_content_frames_are_the_same_by_all_codecs(  # noqa: PLR0917 - one for each argument
    contents: list[tuple[bytes, bytes, bytes]],
    before: bytes,
    after: bytes,
    count: int,
    frame_max: int,
    first_tag: int,
    channel: int,
) -> None:
    data = before + b"".join(record(body, payload, exrk) for payload, body, exrk in contents) + after
    same("content_frames", data, len(before), count, channel, b"head", first_tag, b"f", b"tail", frame_max)
    same("skip", data, len(before), count)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60), st.integers(-2, 70), st.integers(-1, 5))
def test_skip_is_the_same_by_all_codecs_on_any_bytes(data: bytes, offset: int, count: int) -> None:
    same("skip", data, offset, count)
    same("content_frames", data, offset, count, 1, b"", 1, b"", b"", 4096)


@both
def test_content_frames_writes_a_delivery_and_splits_its_body(codec: ModuleType) -> None:
    """AMQP 4.2.6: method frame, header frame, then body frames that fit frame_max."""
    payload = encode_header(10, BasicProperties())
    head, other = b"\x00\x3c\x00\x3c\x01c", b"\x00\x01q"
    data = b"??" + record(b"0123456789", payload) + record(b"", PLAIN_HEADER, other)
    frames, after = codec.content_frames(data, 2, 2, 5, head, 7, b"\1", b"more", 12)
    assert frames == b"".join(
        [
            frame(1, 5, head + struct.pack(">Q", 7) + b"\1" + EXRK + b"more"),
            *content_frame_list(5, payload, b"0123456789", 4),
            frame(1, 5, head + struct.pack(">Q", 8) + b"\1" + other + b"more"),
            frame(2, 5, PLAIN_HEADER),
        ]
    )
    assert after == len(data)
    assert codec.skip(data, 2, 2) == after
    untagged, _ = codec.content_frames(data, 2, 1, 5, head, -1, b"", b"", 0)
    assert untagged.startswith(frame(1, 5, head + EXRK))


@both
def test_content_frames_and_skip_refuse_data_that_ends_early(codec: ModuleType) -> None:
    data = record(b"abc")
    for size in range(len(data)):
        with pytest.raises(ValueError, match="beyond"):
            codec.content_frames(data[:size], 0, 1, 1, b"", 1, b"", b"", 0)
        with pytest.raises(ValueError, match="beyond"):
            codec.skip(data[:size], 0, 1)
    huge = b"\xff" * 8
    with pytest.raises(ValueError, match="beyond"):
        codec.skip(huge, 0, 1)


@both
@pytest.mark.parametrize("head", [b"", b"\0", b"\1x", b"\1x\1", b"\0\xff"])
def test_content_frames_refuses_a_head_that_does_not_add_up(codec: ModuleType, head: bytes) -> None:
    data = struct.pack(">II", len(head), 9) + head + b"\0" * 9
    with pytest.raises(ValueError, match="routing key"):
        codec.content_frames(data, 0, 1, 1, b"", 1, b"", b"", 0)


@both
def test_content_frames_and_scan_are_inverse(codec: ModuleType) -> None:
    stream = message(1, b"a" * 9000) + message(1, b"b")
    (item,), _ = codec.scan(stream, 131072, RUN_MAX)
    ((_, count, packed),) = item[2]
    head = struct.pack(">IH", 60 << 16 | 40, 0)
    assert codec.content_frames(packed, 0, count, 1, head, -1, b"", b"\0", 4096)[0] == stream


@settings(max_examples=300, deadline=None)
@given(PROPERTIES, st.integers(0, (1 << 64) - 1), st.data())
def test_check_header_agrees_with_the_decoder(
    properties: BasicProperties, size: int, data: st.DataObject
) -> None:
    """A header passes exactly when its properties decode, also with an octet changed or the end cut."""
    payload = bytearray(encode_header(size, properties))
    assert same("check_header", bytes(payload)) == size
    payload[data.draw(st.integers(12, len(payload) - 1))] = data.draw(st.integers(0, 255))
    broken = bytes(payload[: len(payload) - data.draw(st.sampled_from((0, 0, 1, 4)))])
    same("check_header", broken)
    adds_up = header_adds_up(broken)
    try:
        decode_header(broken)
    except AmqpError:
        assert not adds_up
    else:
        assert adds_up


@settings(max_examples=500, deadline=None)
@given(PROPERTIES)
def test_is_special_says_what_the_decoded_properties_say(properties: BasicProperties) -> None:
    """The bit of a run is found without decoding, and is right for all properties."""
    payload = encode_header(0, properties)
    assert same("is_special", payload) == asks(decode_header(payload)[1])
    stream = publish_frame(1, "k", 0) + frame(2, 1, payload)
    for module in CODECS:
        ((_, _, [(args, _, _)]),), _ = module.scan(stream, 0, RUN_MAX)
        assert args == b"\x01x\x01k" + (b"\x80" if asks(properties) else b"\x00")


@both
def test_scan_ends_a_run_where_a_message_is_special_and_the_next_is_not(codec: ModuleType) -> None:
    """All messages of a run are special or none, so that plain ones never wait for a look into their properties."""
    timed = BasicProperties(expiration="60000")
    stream = message(1, b"a") + message(1, b"b", properties=timed) * 2 + message(1, b"c")
    ((_, _, runs),), _ = codec.scan(stream, 0, RUN_MAX)
    assert [(args[-1], count) for args, count, _ in runs] == [(0, 1), (0x80, 2), (0, 1)]


@both
@pytest.mark.parametrize("flags", [0x80, 0xFC, 0x81, 2])
def test_scan_drops_the_flags_that_no_client_may_set(codec: ModuleType, flags: int) -> None:
    """The reserved bits of basic.publish must not pass for ours."""
    stream = publish_frame(1, "k", flags) + frame(2, 1, encode_header(0, BasicProperties()))
    ((_, _, [(args, _, _)]),), _ = codec.scan(stream, 0, RUN_MAX)
    assert args[-1] == flags & 3


@both
def test_check_header_names_the_fault(codec: ModuleType) -> None:
    deep = b"A\x00\x00\x00\x00"
    for _ in range(40):
        deep = b"A" + struct.pack(">I", len(deep)) + deep
    table = b"\x01a" + deep
    for payload, error, text in (
        (b"\x00\x3c", FrameError, "type 2, all octets = <<0,60>>: unknown_frame"),
        (b"\x00\x32" + PLAIN_HEADER[2:], UnexpectedFrame, "expected content header for class 60, got one"),
        (b"\x00\x3c\x01\x00" + PLAIN_HEADER[4:], AmqpSyntaxError, "weight"),
        (PLAIN_HEADER + b"x", FrameError, "cannot decode"),
        (
            PLAIN_HEADER[:12] + b"\x20\x00" + struct.pack(">I", len(table)) + table,
            AmqpSyntaxError,
            "nested deeper",
        ),
    ):
        with pytest.raises(error, match=text):
            codec.check_header(payload)


@both
def test_scan_survives_a_table_nested_to_the_end_of_the_frame(codec: ModuleType) -> None:
    """Depth is bounded, so neither the C stack nor Python's recursion limit can be reached."""
    deep = b"".join(b"A" + struct.pack(">I", 120000 - 5 * i - 5) for i in range(23000))
    payload = PLAIN_HEADER[:12] + b"\x20\x00" + struct.pack(">I", len(deep) + 2) + b"\x01a" + deep
    stream = method_frame(1, BasicPublish()) + frame(2, 1, payload)
    assert [item[0] for item in codec.scan(stream, 131072, RUN_MAX)[0]] == [METHOD, HEADER]
