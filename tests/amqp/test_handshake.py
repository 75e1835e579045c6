"""The pure steps before a connection runs."""

import pytest

from node.amqp import handshake
from node.amqp.handshake import Options
from node.errors import AmqpError
from node.wire.methods import ConnectionTuneOk
from node.wire.primitives import encode_table

OPTIONS = Options()


@pytest.mark.parametrize("header", [b"AMQP\0\0\x09\x01", b"AMQP\x01\x01\0\x09"])
def test_header_is_understood(header: bytes) -> None:
    for end in range(len(header) + 1):
        assert not handshake.is_wrong_header(header[:end])


@pytest.mark.parametrize(
    "header", [b"GET / HT", b"AMQP\x03\x01\0\0", b"AMQP\0\x01\0\0", b"\x16\x03\x01\x02", b"AX"]
)
def test_wrong_header_is_seen_as_soon_as_can_be(header: bytes) -> None:
    assert handshake.is_wrong_header(header)


def test_plain_reads_user_and_password() -> None:
    assert handshake.credentials(OPTIONS, "PLAIN", b"\0guest\0secret") == ("guest", "secret")
    assert handshake.credentials(OPTIONS, "PLAIN", b"other\0guest\0") == ("guest", "")


def test_amqplain_reads_a_table_without_length() -> None:
    response = encode_table({"LOGIN": "guest", "PASSWORD": "secret"})[4:]
    assert handshake.credentials(OPTIONS, "AMQPLAIN", response) == ("guest", "secret")


@pytest.mark.parametrize(
    ("mechanism", "response", "text"),
    [
        ("KERBEROS", b"", "COMMAND_INVALID - unknown authentication mechanism 'KERBEROS'"),
        ("EXTERNAL", b"", "COMMAND_INVALID - unknown authentication mechanism 'EXTERNAL'"),
        ("ANONYMOUS", b"", "COMMAND_INVALID - unknown authentication mechanism 'ANONYMOUS'"),
        ("PLAIN", b"guest", 'SYNTAX_ERROR - response <<"guest">> invalid'),
        ("PLAIN", b"", "SYNTAX_ERROR - response <<>> invalid"),
        ("PLAIN", b"\0\xff\0", "SYNTAX_ERROR - response <<0,255,0>> invalid"),
        ("AMQPLAIN", b"\x05LOGIN", "SYNTAX_ERROR - response <<5,76,79,71,73,78>> invalid"),
        ("AMQPLAIN", b"", "SYNTAX_ERROR - AMQPLAIN auth info is missing LOGIN or PASSWORD field"),
    ],
)
def test_credentials_refuse(mechanism: str, response: bytes, text: str) -> None:
    with pytest.raises(AmqpError) as raised:
        handshake.credentials(OPTIONS, mechanism, response)
    assert str(raised.value) == text


def test_credentials_refuse_a_mechanism_that_is_not_offered() -> None:
    with pytest.raises(AmqpError, match="invalid authentication mechanism 'AMQPLAIN'"):
        handshake.credentials(Options(mechanisms=("PLAIN",)), "AMQPLAIN", b"")


@pytest.mark.parametrize(
    ("channel_max", "frame_max", "text"),
    [
        (2047, 4095, "negotiated frame_max = 4095 is lower than the minimum allowed value (4096)"),
        (2047, 131073, "negotiated frame_max = 131073 is higher than the maximum allowed value (131072)"),
        (2047, 0, "negotiated frame_max = 0 is higher than the maximum allowed value (131072)"),
        (0, 131072, "negotiated channel_max = 0 (no limit) is higher than the maximum allowed value (2047)"),
        (2048, 131072, "negotiated channel_max = 2048 is higher than the maximum allowed value (2047)"),
    ],
)
def test_tune_ok_refuses(channel_max: int, frame_max: int, text: str) -> None:
    with pytest.raises(AmqpError) as raised:
        handshake.check_tune_ok(OPTIONS, ConnectionTuneOk(channel_max, frame_max, 0))
    assert str(raised.value) == f"NOT_ALLOWED - {text}"
    assert (raised.value.class_id, raised.value.method_id) == (10, 30)


def test_tune_ok_takes_less_and_no_limit_where_there_is_none() -> None:
    handshake.check_tune_ok(OPTIONS, ConnectionTuneOk(1, 4096, 0))
    handshake.check_tune_ok(Options(frame_max=0, channel_max=0), ConnectionTuneOk(0, 0, 0))
