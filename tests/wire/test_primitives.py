"""Field tables and strings: a round trip keeps type and value; malformed bytes are an AmqpError, no other."""

from __future__ import annotations

import math
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.errors import AmqpError, AmqpSyntaxError, FrameError
from node.wire import primitives
from node.wire.primitives import (
    TABLE_DEPTH_MAX,
    Decimal,
    FieldValue,
    Reader,
    decode_table,
    encode_table,
    encode_value,
    type_name,
)
from tests.wire.streams import TABLES

# tag, payload, value, name in error texts: typed in from section 1 of RabbitMQ's list of field types
FIELDS: list[tuple[bytes, bytes, FieldValue, str]] = [
    (b"t", b"\x01", True, "bool"),
    (b"b", b"\xff", -1, "byte"),
    (b"B", b"\xff", 255, "unsignedbyte"),
    (b"s", b"\xff\xfe", -2, "short"),
    (b"u", b"\xff\xfe", 65534, "unsignedshort"),
    (b"I", b"\xff\xff\xff\xfd", -3, "signedint"),
    (b"i", b"\xff\xff\xff\xfd", 4294967293, "unsignedint"),
    (b"l", b"\x00\x00\x00\x00\x00\x00\x00\x05", 5, "long"),
    (b"f", b"\x3f\x00\x00\x00", 0.5, "float"),
    (b"d", b"\x3f\xe0\x00\x00\x00\x00\x00\x00", 0.5, "double"),
    (b"D", b"\x02\x00\x00\x01\x00", Decimal(2, 256), "decimal"),
    (b"S", b"\x00\x00\x00\x02\xc3\xa4", "ä", "longstr"),
    (b"S", b"\x00\x00\x00\x01\xff", b"\xff", "longstr"),
    (b"T", b"\x00\x00\x00\x00\x00\x00\x00\x09", 9, "timestamp"),
    (b"F", b"\x00\x00\x00\x03\x01aV", {"a": None}, "table"),
    (b"A", b"\x00\x00\x00\x02VV", [None, None], "array"),
    (b"x", b"\x00\x00\x00\x01\xff", b"\xff", "binary"),
    (b"V", b"", None, "void"),
]


@pytest.mark.parametrize(("tag", "payload", "value", "name"), FIELDS)
def test_field_value_keeps_its_type(tag: bytes, payload: bytes, value: FieldValue, name: str) -> None:
    """Every tag that RabbitMQ takes is decoded, named, and encoded as it came."""
    reader = Reader(tag + payload)
    decoded = reader.value()
    assert reader.at_end()
    assert decoded == value
    assert type_name(decoded) == name
    assert encode_value(decoded) == tag + payload


def test_field_value_of_tag_upper_l_is_a_long() -> None:
    assert type_name(Reader(b"L" + bytes(8)).value()) == "long"


@settings(max_examples=200, deadline=None)
@given(TABLES)
def test_table_survives_a_round_trip(table: primitives.Table) -> None:
    encoded = encode_table(table)
    assert encode_table(decode_table(encoded)) == encoded


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=60) | st.binary(max_size=40).map(lambda b: struct.pack(">I", len(b)) + b))
def test_table_decodes_or_raises_an_amqp_error(data: bytes) -> None:
    try:
        table = decode_table(data)
    except AmqpError as error:
        assert error.reply_code in (501, 502)  # noqa: PT017 - both outcomes are right
    else:
        assert isinstance(encode_table(table), bytes)


def nested(depth: int) -> bytes:
    table = b"\x00\x00\x00\x00"
    for _ in range(depth - 1):
        table = struct.pack(">I", len(table) + 3) + b"\x01aF" + table
    return table


def test_table_is_bounded_in_depth() -> None:
    """Recursion ends at the bound, not at Python's."""
    assert decode_table(nested(TABLE_DEPTH_MAX)) != {}
    for depth in (TABLE_DEPTH_MAX + 1, 20000):
        with pytest.raises(AmqpSyntaxError):
            decode_table(nested(depth))


def test_shortstr_must_be_utf_8() -> None:
    with pytest.raises(FrameError, match="Malformed UTF-8 in shortstr"):
        Reader(b"\x01\xff").shortstr()
    text = Reader(b"\x01\xff", text_errors="surrogateescape").shortstr()
    assert primitives.encode_shortstr(text) == b"\x01\xff"


@pytest.mark.parametrize(
    "encode",
    [
        lambda: primitives.encode_shortstr("a" * 256),
        lambda: primitives.encode_short(65536),
        lambda: primitives.encode_long(-1),
        lambda: primitives.encode_longlong(1 << 64),
        lambda: encode_value(1 << 63),
        lambda: encode_value(Decimal(256, 0)),
        lambda: encode_value(primitives.Byte(128)),
        lambda: encode_value(primitives.Float(1e300)),
        lambda: encode_value(object()),  # type: ignore[arg-type]  # what a test is for
    ],
)
def test_encoding_refuses_what_does_not_fit(encode: object) -> None:
    assert callable(encode)
    with pytest.raises(ValueError):
        encode()


def test_double_takes_what_is_no_number() -> None:
    value = Reader(encode_value(math.nan)).value()
    assert isinstance(value, float)
    assert math.isnan(value)


def test_erlang_bytes_are_cut() -> None:
    assert primitives.erlang_bytes(b"") == "<<>>"
    assert primitives.erlang_bytes(b'a"b') == '<<"a"b">>'
    assert primitives.erlang_bytes(b"\x00\xff") == "<<0,255>>"
    assert len(primitives.erlang_bytes(bytes(1 << 20))) < 1000
