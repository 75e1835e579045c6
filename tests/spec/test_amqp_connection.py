"""What AMQP 0-9-1 and RabbitMQ say of a connection: from the client's bytes to the server's answer.

Each case names the sentence or the error that it proves; codes and texts are those that clients know.
"""

import struct

import pytest

from node.amqp import Connection, Options
from node.amqp.events import ConnectionClosing
from node.wire.methods import (
    BasicAck,
    BasicNack,
    BasicPublish,
    BasicReject,
    ChannelFlow,
    ChannelOpen,
    ConnectionOpen,
    ConnectionStartOk,
    ConnectionTuneOk,
    Method,
    QueueDeclare,
    TxCommit,
    TxRollback,
    frame,
    method_frame,
)
from tests.amqp_client import AmqpClient, ChannelGone, ConnectionGone
from tests.pair import Pair

PUBLISH = method_frame(1, BasicPublish(routing_key="q"))


def header(body_bytes: int, properties: bytes = b"\0\0", class_id: int = 60, weight: int = 0) -> bytes:
    return frame(2, 1, struct.pack(">HHQ", class_id, weight, body_bytes) + properties)


def method(method_id: int, args: bytes = b"", channel: int = 1) -> bytes:
    return frame(1, channel, struct.pack(">HH", 60, method_id) + args)


HARD = [
    # 4.2.2, 2.2.4: channel 0
    ("method of a channel on channel 0", method_frame(0, QueueDeclare()),
     504, "CHANNEL_ERROR - unexpected method in connection state running"),
    ("publish on channel 0", method_frame(0, BasicPublish()) + frame(2, 0, bytes([0, 60, *bytes(12)])),
     504, "CHANNEL_ERROR - unexpected method in connection state running"),
    ("ack on channel 0", method_frame(0, BasicAck(1)),
     504, "CHANNEL_ERROR - unexpected method in connection state running"),
    ("second connection.open", method_frame(0, ConnectionOpen("/")),
     504, "CHANNEL_ERROR - unexpected method in connection state running"),
    ("tune-ok while running", method_frame(0, ConnectionTuneOk()),
     504, "CHANNEL_ERROR - unexpected method in connection state running"),
    ("body on channel 0", frame(3, 0, b"abc"), 505, 'UNEXPECTED_FRAME - type 3, all octets = <<"abc">>'),
    ("header on channel 0", frame(2, 0, bytes(17)),
     505, "UNEXPECTED_FRAME - type 2, first 16 octets = <<0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0>>"),
    # 4.2.7: heartbeats are of channel 0
    ("heartbeat on a channel", frame(8, 1, b""), 505, "UNEXPECTED_FRAME - type 8, all octets = <<>>"),
    ("heartbeat that carries something", frame(8, 0, b"x"),
     501, 'FRAME_ERROR - type 8, all octets = <<"x">>: unknown_frame'),
    ("heartbeat on a closed channel", frame(8, 9, b""), 505, "UNEXPECTED_FRAME - type 8, all octets = <<>>"),
    # 2.2.5: a channel must be open
    ("method on a closed channel", method_frame(2, QueueDeclare()),
     504, "CHANNEL_ERROR - expected 'channel.open'"),
    ("ack on a closed channel", method_frame(2, BasicAck(1)), 504, "CHANNEL_ERROR - expected 'channel.open'"),
    ("body on a closed channel", frame(3, 2, b"abc"),
     505, "UNEXPECTED_FRAME - expected method frame, got non method frame instead"),
    ("second channel.open", method_frame(1, ChannelOpen()),
     504, "CHANNEL_ERROR - second 'channel.open' seen"),
    # 4.2.6: content
    ("header out of place", header(1), 505,
     "UNEXPECTED_FRAME - expected method frame, got non method frame instead"),
    ("method for header", PUBLISH + method_frame(1, QueueDeclare()), 505,
     "UNEXPECTED_FRAME - expected content header for class 60, got non content header frame instead"),
    ("body for header", PUBLISH + frame(3, 1, b"abc"), 505,
     "UNEXPECTED_FRAME - expected content header for class 60, got non content header frame instead"),
    ("header of another class", PUBLISH + header(1, class_id=50), 505,
     "UNEXPECTED_FRAME - expected content header for class 60, got one for class 50 instead"),
    ("method for body", PUBLISH + header(9) + method_frame(1, QueueDeclare()), 505,
     "UNEXPECTED_FRAME - expected content body, got non content body frame instead"),
    ("header for body", PUBLISH + header(9) + header(9), 505,
     "UNEXPECTED_FRAME - expected content body, got non content body frame instead"),
    ("publish for body", PUBLISH + header(9) + PUBLISH + header(0), 505,
     "UNEXPECTED_FRAME - expected content body, got non content body frame instead"),
    ("body longer than announced", PUBLISH + header(2) + frame(3, 1, b"abc"), 501,
     "FRAME_ERROR - content body frame exceeds remaining content size"),
    ("body above all bounds", PUBLISH + header(1 << 40), 501,
     f"FRAME_ERROR - content body size {1 << 40} exceeds maximum allowed size {512 << 20}"),
    ("properties that do not add up", PUBLISH + header(0, b"\x80\0\x05ab"), 501,
     "FRAME_ERROR - cannot decode <<128,0,5,97,98>>"),
    # 1.1: methods
    ("unknown class", frame(1, 1, struct.pack(">HH", 77, 10)), 503, "COMMAND_INVALID - unimplemented method"),
    ("method of the server", method(60, bytes(20)), 503, "COMMAND_INVALID - unimplemented method"),
    ("connection method on a channel", method_frame(1, ConnectionOpen("/")),
     503, "COMMAND_INVALID - unimplemented method"),
    ("arguments that end early", method(10, b"\0\0"), 501, "FRAME_ERROR - cannot decode <<0,0>>"),
    ("ack that ends early", method(80, b"\0\0"), 501, "FRAME_ERROR - cannot decode <<0,0>>"),
    ("text that is not UTF-8", method(30, b"\x01\xff\0"), 501, "FRAME_ERROR - Malformed UTF-8 in shortstr"),
    ("routing key that is not UTF-8", method(40, b"\0\0\0\x01\xff\0") + header(0), 501,
     "FRAME_ERROR - Malformed UTF-8 in shortstr"),
    # 1.8.3.7, 1.5.2.3, 1.9
    ("immediate", method_frame(1, BasicPublish(immediate=True)) + header(0),
     540, "NOT_IMPLEMENTED - immediate=true"),
    ("flow stopped", method_frame(1, ChannelFlow(active=False)), 540, "NOT_IMPLEMENTED - active=false"),
    # 4.2.3: frames
    ("bad end octet", frame(1, 1, b"abcdef")[:-1] + b"x",
     501, 'FRAME_ERROR - type 1, all octets = <<"abcdef">>: {invalid_frame_end_marker,120}'),
    ("unknown frame type", frame(7, 1, b""), 501, "FRAME_ERROR - type 7, all octets = <<>>: unknown_frame"),
    ("frame above frame_max", frame(3, 1, bytes(131_073)),
     501, "FRAME_ERROR - type 3, all octets = <<>>: {frame_too_large,131073,131064}"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "data", "code", "text"), HARD, ids=[case[0] for case in HARD])
def test_hard_error_closes_the_connection(name: str, data: bytes, code: int, text: str) -> None:
    """AMQP 1.4.2.5, 4.10: connection.close with the code, and nothing after it is acted on."""
    del name
    pair = Pair().opened(1)
    events = pair.receive(data)
    assert [type(event).__name__ for event in events] == ["ConnectionClosing"]
    assert pair.to_client() == [ConnectionGone(code, text)]
    pair.client.open_channel(5)
    assert pair.to_server() == []
    pair.server.tick(pair.now_ms + 3000)
    assert pair.server.closing


@pytest.mark.parametrize(
    ("method", "ids"), [(QueueDeclare(), (50, 10)), (BasicAck(1), (60, 80)), (ConnectionTuneOk(), (10, 31))]
)
def test_unexpected_method_of_a_connection_is_named(method: Method, ids: tuple[int, int]) -> None:
    """AMQP 1.4.2.5: class-id and method-id are of the method that failed."""
    pair = Pair().opened(1)
    (event,) = pair.server.receive_data(method_frame(0, method), pair.now_ms)
    assert isinstance(event, ConnectionClosing)
    assert event.error is not None
    assert (event.error.class_id, event.error.method_id) == ids


def test_tune_ok_twice_is_told_the_state_that_rabbitmq_is_in() -> None:
    """RabbitMQ calls a connection `opening` from its tune-ok on."""
    pair = Pair()
    pair.accept = False
    pair.client.open()
    pair.exchange()
    pair.server.login_accepted("guest")
    pair.to_client()
    pair.client.data_to_send()
    tuned = method_frame(0, ConnectionTuneOk(2047, 131_072, 0))
    pair.accept = True
    pair.receive(tuned + tuned)
    text = "CHANNEL_ERROR - unexpected method in connection state opening"
    assert pair.to_client() == [ConnectionGone(504, text)]


SOFT: list[tuple[Method, str, tuple[int, int]]] = [
    (TxCommit(), "channel is not transactional", (90, 20)),
    (TxRollback(), "channel is not transactional", (90, 30)),
    (BasicAck(5), "unknown delivery tag 5", (60, 80)),
    (BasicAck(5, multiple=True), "unknown delivery tag 5", (60, 80)),
    (BasicAck(0), "unknown delivery tag 0", (60, 80)),
    (BasicNack(5), "unknown delivery tag 5", (60, 120)),
    (BasicReject(5), "unknown delivery tag 5", (60, 90)),
]


@pytest.mark.parametrize(("wrong", "text", "ids"), SOFT)
def test_soft_error_closes_the_channel_only(wrong: Method, text: str, ids: tuple[int, int]) -> None:
    """AMQP 1.5.2.5: channel.close names the code, the text and the method at fault; other channels go on."""
    pair = Pair().opened(1, 2)
    pair.client.send(1, wrong)
    pair.to_server()
    chunks = b"".join(pair.server.data_to_send())
    assert chunks[-5:-1] == struct.pack(">HH", *ids)
    assert pair.client.receive_data(chunks) == [ChannelGone(1, 406, f"PRECONDITION_FAILED - {text}")]
    pair.client.declare(2, "q")
    (event,) = pair.to_server()
    assert type(event).__name__ == "Request"


def test_ack_of_nothing_with_multiple_and_tag_zero_is_right() -> None:
    """AMQP 1.8.3.13: zero means all messages so far, be there any or none."""
    pair = Pair().opened(1)
    pair.client.ack(1, 0, multiple=True)
    assert pair.to_server() == []
    assert pair.to_client() == []


def test_frame_may_be_eight_bytes_above_its_limit() -> None:
    """The limit is of the frame, whose payload is 8 less; who takes it for the payload's is let through."""
    pair = Pair().opened(1)
    data = PUBLISH + header(131_072) + frame(3, 1, bytes(131_072))
    (event,) = pair.receive(data)
    assert type(event).__name__ == "Publish"


@pytest.mark.parametrize("first", [b"AMQP\0\0\x09\x01", b"AMQP\x01\x01\0\x09"])
def test_protocol_header_is_answered_by_start(first: bytes) -> None:
    """AMQP 4.2.2: the client opens with the header, the server goes on with connection.start."""
    server = Connection(Options())
    for octet in first:
        assert server.receive_data(bytes([octet]), 0) == []
    data = b"".join(server.data_to_send())
    assert data[7:11] == b"\0\x0a\0\x0a"
    assert data[11:13] == b"\0\x09"
    assert b"\0\0\0\x0ePLAIN AMQPLAIN\0\0\0\x05en_US\xce" in data


@pytest.mark.parametrize(
    "first", [b"AMQP\0\0\x09\x02", b"AMQP\x03\x01\0\0", b"GET / HTTP/1.1\r\n", b"\x16\x03\x01\0"]
)
def test_wrong_protocol_header_is_answered_by_ours(first: bytes) -> None:
    """AMQP 4.2.2: the server writes a header that it supports, and closes the socket."""
    server = Connection(Options())
    assert len(server.receive_data(first, 0)) == 1
    assert server.data_to_send() == [b"AMQP\0\0\x09\x01"]
    assert server.closing


def test_unknown_mechanism_is_refused() -> None:
    """503 before anything else of the client counts."""
    pair = Pair()
    pair.server.receive_data(b"AMQP\0\0\x09\x01", 0)
    pair.to_client()
    pair.client.data_to_send()
    pair.client.send(0, ConnectionStartOk({}, "KERBEROS", b""))
    pair.to_server()
    assert pair.to_client() == [
        ConnectionGone(503, "COMMAND_INVALID - unknown authentication mechanism 'KERBEROS'")
    ]


def test_tune_ok_outside_the_limits_is_refused() -> None:
    """AMQP 1.4.2.6: a client may lower the proposal, never raise it."""
    pair = Pair()
    pair.client.open()
    for _ in range(2):
        pair.to_server()
        pair.to_client()
    pair.client.data_to_send()
    pair.client.send(0, ConnectionTuneOk(2047, 131_073, 60))
    pair.to_server()
    assert pair.to_client() == [
        ConnectionGone(
            530,
            "NOT_ALLOWED - negotiated frame_max = 131073 is higher than the maximum allowed value (131072)",
        )
    ]


@pytest.mark.parametrize(
    "data", [method_frame(0, ConnectionOpen("/")), method_frame(1, ChannelOpen()), frame(3, 1, b"x")]
)
def test_nothing_may_go_before_its_turn(data: bytes) -> None:
    """AMQP 2.2.4: start-ok, tune-ok, open, in this order; no channel before open-ok."""
    pair = Pair()
    pair.server.receive_data(b"AMQP\0\0\x09\x01", 0)
    pair.to_client()
    (closed,) = pair.receive(data)
    assert type(closed).__name__ == "ConnectionClosing"
    (gone,) = pair.to_client()
    assert isinstance(gone, ConnectionGone)
    assert gone.reply_code in (504, 505)


def test_channels_are_bounded_by_what_was_negotiated() -> None:
    """AMQP 1.4.2.6.1: channel-max counts the channels that are open at once."""
    pair = Pair(Options(channel_max=2)).opened(1, 2)
    pair.client.close_channel(1)
    pair.client.open_channel(7)
    pair.client.open_channel(8)
    pair.exchange()
    assert pair.client.closed
    pair = Pair(Options(channel_max=2)).opened(1, 2)
    pair.client.open_channel(3)
    pair.to_server()
    chunks = b"".join(pair.server.data_to_send())
    assert chunks[-5:-1] == struct.pack(">HH", 0, 0)
    assert pair.client.receive_data(chunks) == [
        ConnectionGone(
            530, "NOT_ALLOWED - number of channels opened (2) has reached the negotiated channel_max (2)"
        )
    ]


def test_heartbeats_may_come_within_a_content() -> None:
    """AMQP 4.2.7: heartbeats are of channel 0 and disturb no other."""
    pair = Pair().opened(1)
    beat = frame(8, 0, b"")
    data = PUBLISH + beat + header(4) + beat + frame(3, 1, b"ab") + beat + frame(3, 1, b"cd")
    (event,) = pair.receive(data)
    assert type(event).__name__ == "Publish"


def test_contents_of_two_channels_may_interleave() -> None:
    """AMQP 4.2.6: frames of one content come in order, with frames of other channels between them."""
    pair = Pair().opened(1, 2)
    other = PUBLISH[:1] + b"\0\x02" + PUBLISH[3:]
    pieces = [
        PUBLISH,
        other,
        header(2),
        header(2)[:1] + b"\0\x02" + header(2)[3:],
        frame(3, 1, b"ab"),
        frame(3, 2, b"cd"),
    ]
    events = [event for piece in pieces for event in pair.server.receive_data(piece, pair.now_ms)]
    assert [type(event).__name__ for event in events] == ["Publish", "Publish"]


def test_close_is_answered_in_every_state() -> None:
    """AMQP 1.4.2.9: also in the middle of the handshake."""
    pair = Pair()
    pair.client.open()
    pair.to_server()
    pair.to_client()
    pair.client.data_to_send()
    pair.client.close()
    pair.to_server()
    assert pair.to_client() == [ConnectionGone(0, "")]
    assert pair.server.closing


def test_client_without_capabilities_is_served() -> None:
    """Client properties are for information; none is required."""
    assert Pair(client=AmqpClient(properties={"capabilities": "none"})).opened(1).server.capabilities == {}
