"""Methods: a round trip gives the same method; malformed arguments name the method that failed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.errors import AmqpError, CommandInvalid, FrameError
from node.wire.methods import (
    BasicConsume,
    BasicPublish,
    ConnectionStart,
    ExchangeDeclare,
    Method,
    QueueDeclare,
    all_methods,
    decode_method,
    decode_publish_args,
    frame,
    method_frame,
)
from tests.wire.streams import TABLES

VALUES: dict[str, st.SearchStrategy[object]] = {
    "Octet": st.integers(0, 255),
    "Short": st.integers(0, 65535),
    "Long": st.integers(0, (1 << 32) - 1),
    "Longlong": st.integers(0, (1 << 64) - 1),
    "Bit": st.booleans(),
    "Shortstr": st.text(max_size=20),
    "Longstr": st.binary(max_size=20),
    "Table": TABLES,
}


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_method_survives_a_round_trip(data: st.DataObject) -> None:
    made = data.draw(st.sampled_from(all_methods()))
    method = made(**{name: data.draw(VALUES[kind]) for name, kind in made.layout})
    payload = method.encode()
    assert payload[:4] == bytes((0, made.class_id, 0, made.method_id))
    decoded = decode_method(int.from_bytes(payload[:4], "big"), payload[4:])
    assert type(decoded) is made
    assert decoded.encode() == payload


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(all_methods()), st.binary(max_size=40))
def test_method_decodes_or_raises_an_amqp_error(made: type[Method], args: bytes) -> None:
    try:
        decode_method(made.class_id << 16 | made.method_id, args)
    except AmqpError as error:
        assert error.reply_code in (501, 502)  # noqa: PT017 - both outcomes are right
        assert (error.class_id, error.method_id) == (made.class_id, made.method_id)  # noqa: PT017


def test_method_bits_share_octets() -> None:
    """AMQP 4.2.5.2: the first bit is the lowest."""
    declare = ExchangeDeclare(exchange="e", type="t", durable=True, no_wait=True)
    assert declare.encode() == b"\x00\x28\x00\x0a\x00\x00\x01e\x01t\x12\x00\x00\x00\x00"


def test_unknown_method_is_a_command_invalid() -> None:
    with pytest.raises(CommandInvalid, match="unimplemented method") as caught:
        decode_method(60 << 16 | 99, b"")
    assert (caught.value.class_id, caught.value.method_id) == (60, 99)


@pytest.mark.parametrize("args", [b"", b"\x00\x00\x01q", b"\x00\x00\x01q\x00\x00\x00\x00\x00!"])
def test_arguments_too_short_or_long_are_a_frame_error(args: bytes) -> None:
    with pytest.raises(FrameError, match="cannot decode <<"):
        decode_method(QueueDeclare.class_id << 16 | QueueDeclare.method_id, args)


@pytest.mark.parametrize("version", [256, -1])
def test_method_refuses_an_octet_out_of_range(version: int) -> None:
    with pytest.raises(ValueError, match="out of range"):
        ConnectionStart(version_major=version).encode()


def test_method_frame_has_type_channel_size_and_end() -> None:
    """AMQP 4.2.3."""
    consume = BasicConsume(queue="q")
    payload = consume.encode()
    assert (
        method_frame(258, consume) == b"\x01\x01\x02\x00\x00\x00" + bytes((len(payload),)) + payload + b"\xce"
    )
    assert frame(8, 0, b"") == b"\x08\x00\x00\x00\x00\x00\x00\xce"


def test_publish_args_are_what_scan_hands_out() -> None:
    args = BasicPublish(exchange="ex", routing_key="ä", mandatory=True).encode()[6:]
    assert decode_publish_args(args) == ("ex", "ä", True, False)
    with pytest.raises(FrameError) as caught:
        decode_publish_args(b"\x01\xff\x00\x00")
    assert (caught.value.class_id, caught.value.method_id) == (60, 40)
