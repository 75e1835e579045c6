"""Basic properties: a round trip keeps them, and the order of the flags is the specification's."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from node.errors import UnexpectedFrame
from node.wire.properties import BasicProperties, decode_asking, decode_header, decode_headers, encode_header
from tests.wire.streams import ASKING_NAMES, PROPERTIES

# AMQP 1.8.1, typed in: name and flag
FLAGS = {
    "content_type": 0x8000,
    "content_encoding": 0x4000,
    "headers": 0x2000,
    "delivery_mode": 0x1000,
    "priority": 0x0800,
    "correlation_id": 0x0400,
    "reply_to": 0x0200,
    "expiration": 0x0100,
    "message_id": 0x0080,
    "timestamp": 0x0040,
    "type": 0x0020,
    "user_id": 0x0010,
    "app_id": 0x0008,
    "cluster_id": 0x0004,
}


@pytest.mark.parametrize(("name", "flag"), FLAGS.items())
def test_property_has_the_flag_of_the_specification(name: str, flag: int) -> None:
    value = {"headers": {}, "delivery_mode": 2, "priority": 9, "timestamp": 1}.get(name, "text")
    properties = BasicProperties()
    setattr(properties, name, value)
    payload = encode_header(0, properties)
    assert int.from_bytes(payload[12:14], "big") == flag
    assert getattr(decode_header(payload)[1], name) == value


@settings(max_examples=200, deadline=None)
@given(PROPERTIES)
def test_properties_survive_a_round_trip(properties: BasicProperties) -> None:
    payload = encode_header(7, properties)
    size, decoded = decode_header(payload)
    assert size == 7
    assert encode_header(7, decoded) == payload
    assert str(decode_headers(payload)) == str(decoded.headers or {})


@settings(max_examples=500, deadline=None)
@given(PROPERTIES)
def test_asking_properties_are_those_of_the_whole_decode(properties: BasicProperties) -> None:
    """The short way says the same as the long one, of what it tells."""
    payload = encode_header(7, properties)
    asking, whole = decode_asking(payload[12:]), decode_header(payload)[1]
    for name in ("priority", "reply_to", "expiration", "user_id"):
        assert getattr(asking, name) == getattr(whole, name)
    headers = whole.headers
    expected = None if headers is None else {key: headers[key] for key in headers if key in ASKING_NAMES}
    assert str(asking.headers) == str(expected)


def test_property_that_is_not_utf_8_survives() -> None:
    """A publisher's text is not ours to judge: it goes out as it came."""
    payload = encode_header(0, BasicProperties(app_id="\udcff", headers={"\udcfe": "a"}))
    assert b"\x01\xff" in payload
    assert encode_header(0, decode_header(payload)[1]) == payload


def test_header_of_another_class_is_refused() -> None:
    with pytest.raises(UnexpectedFrame):
        decode_header(b"\x00\x32" + encode_header(0, BasicProperties())[2:])


def test_octet_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="300"):
        encode_header(0, BasicProperties(priority=300))
