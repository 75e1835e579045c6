"""The life of a connection: handshake, heartbeats, errors, ends."""

import random

import pytest

from node.amqp import Connection, Options
from node.amqp.events import (
    ChannelOpened,
    ConnectionClosed,
    ConnectionClosing,
    Event,
    Login,
    Open,
    Outcome,
    Publish,
    Settle,
)
from node.amqp.states import ConnectionState
from node.errors import ConnectionForced, NotAllowed
from node.wire.codec import skip
from node.wire.methods import (
    ConnectionBlocked,
    ConnectionStartOk,
    ConnectionUpdateSecret,
    ConnectionUpdateSecretOk,
    method_frame,
)
from tests.amqp_client import AmqpClient, ConnectionGone, Replied
from tests.pair import Pair

HEARTBEAT = b"\x08\x00\x00\x00\x00\x00\x00\xce"


def test_handshake_shows_what_the_server_can() -> None:
    pair = Pair(Options(information="Warren 1", cluster_name="c1")).opened()
    properties = pair.client.server_properties
    assert (properties["product"], properties["version"]) == ("RabbitMQ", "3.13.7")
    assert properties["information"] == "Warren 1"
    assert properties["cluster_name"] == "c1"
    assert properties["capabilities"] == {
        "publisher_confirms": True,
        "exchange_exchange_bindings": True,
        "basic.nack": True,
        "consumer_cancel_notify": True,
        "connection.blocked": True,
        "consumer_priorities": True,
        "authentication_failure_close": True,
        "per_consumer_qos": True,
        "direct_reply_to": True,
    }
    assert pair.server.capabilities["consumer_cancel_notify"] is True
    assert pair.server.frame_max == 131_072


def test_what_the_client_says_of_itself_is_kept() -> None:
    """For whoever looks at the connections: it may be anything."""
    properties = {"product": "probe", "connection_name": "one", "capabilities": "none", "nested": {"a": [1]}}
    server = Connection(Options())
    server.receive_data(b"AMQP\0\0\x09\x01", 0)
    response = b"\0guest\0guest"
    (login,) = server.receive_data(
        method_frame(0, ConnectionStartOk(properties, "PLAIN", response, "en_US")), 0
    )
    assert isinstance(login, Login)
    assert server.client_properties == properties
    assert server.capabilities == {}


def test_bytes_wait_while_the_session_thinks() -> None:
    """A client may send ahead: everything up to its first publish in one piece."""
    pair = Pair().opened()
    recorded = AmqpClient()
    recorded.open()
    probe = Pair(client=recorded)
    sent = b""
    while not recorded.ready:
        data = recorded.data_to_send()
        sent += data
        recorded._out.append(data)
        probe.to_server()
        probe.to_client()
    recorded.open_channel(1)
    recorded.publish(1, "", "q", bytes(20_000))
    sent += recorded.data_to_send()

    server = Connection(Options())
    assert [type(event) for event in server.receive_data(sent, 1)] == [Login]
    server.login_accepted("guest")
    assert [type(event) for event in server.receive_data(b"", 1)] == [Open]
    server.open_accepted()
    assert [type(event) for event in server.tick(2)] == [ChannelOpened, Publish]
    assert pair.server.state is ConnectionState.RUNNING


def test_bytes_that_wait_are_bounded() -> None:
    pair = Pair()
    pair.accept = False
    pair.client.open()
    pair.to_server()
    pair.to_client()
    pair.to_server()
    assert pair.server.state is ConnectionState.SECURING
    events: list[Event] = []
    for _ in range(20):
        events += pair.server.receive_data(bytes(100_000), pair.now_ms)
    assert [type(event) for event in events] == [ConnectionClosing]


def test_refused_login_is_told_to_clients_that_can_tell() -> None:
    pair = Pair()
    pair.accept = False
    pair.client.open()
    pair.exchange()
    pair.server.login_refused("invalid credentials")
    assert pair.to_client() == [
        ConnectionGone(
            403,
            "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. "
            "For details see the broker logfile.",
        )
    ]
    pair.to_server()
    assert pair.server.closing


def test_refused_login_is_silent_for_others() -> None:
    pair = Pair(client=AmqpClient(properties={}))
    pair.accept = False
    pair.client.open()
    pair.exchange()
    pair.server.login_refused("invalid credentials")
    assert pair.server.data_to_send() == []
    assert not pair.server.closing
    pair.server.tick(pair.now_ms + 2999)
    assert not pair.server.closing
    pair.server.tick(pair.now_ms + 3000)
    assert pair.server.closing


def test_refused_vhost_closes_the_connection() -> None:
    pair = Pair()
    pair.accept = False
    pair.client.open()
    pair.exchange()
    pair.server.login_accepted("guest")
    events, _ = pair.exchange()
    assert events == [Open("/")]
    pair.server.fail(NotAllowed("vhost / not found", 10, 40))
    assert pair.exchange()[1] == [ConnectionGone(530, "NOT_ALLOWED - vhost / not found")]
    assert pair.server.closing


def test_handshake_times_out() -> None:
    server = Connection(Options())
    assert server.tick(5_000) == []
    server.receive_data(b"AMQP", 6_000)
    assert server.tick(14_999) == []
    assert server.tick(15_000) == [ConnectionClosed("handshake_timeout")]
    assert server.closing
    assert server.tick(99_000) == []


def test_heartbeats_go_out_when_nothing_else_does() -> None:
    pair = Pair(client=AmqpClient(heartbeat_s=10)).opened(1)
    start = pair.now_ms
    assert pair.server.tick(start + 4_999) == []
    assert pair.server.data_to_send() == []
    assert pair.server.tick(start + 5_000) == []
    assert pair.server.data_to_send() == [HEARTBEAT]
    pair.server.tick(start + 9_000)
    assert pair.server.data_to_send() == []


def test_silent_client_is_dropped_after_two_intervals() -> None:
    pair = Pair(client=AmqpClient(heartbeat_s=10)).opened(1)
    start = pair.now_ms
    assert pair.server.tick(start + 19_999) == []
    pair.server.receive_data(HEARTBEAT, start + 19_999)
    assert pair.server.tick(start + 39_998) == []
    assert pair.server.tick(start + 39_999) == [
        ConnectionClosed("missed heartbeats from client, timeout: 10s")
    ]
    assert pair.server.closing


def test_silence_is_not_held_against_a_client_that_is_not_read() -> None:
    pair = Pair(client=AmqpClient(heartbeat_s=10)).opened(1)
    pair.server.reading_paused = True
    assert pair.server.tick(pair.now_ms + 100_000) == []
    pair.server.reading_paused = False
    assert pair.server.tick(pair.now_ms + 119_999) == []
    assert pair.server.tick(pair.now_ms + 120_000) != []


def test_client_says_goodbye() -> None:
    pair = Pair().opened(1)
    channel = pair.channel(1)
    pair.client.close()
    assert pair.to_server() == [ConnectionClosing(None, "closed by the client: 200 Goodbye")]
    assert pair.to_client() == [ConnectionGone(0, "")]
    assert pair.server.closing and not channel.is_open
    assert pair.server.receive_data(b"more", 1) == []


def test_closing_waits_for_close_ok_but_not_for_ever() -> None:
    pair = Pair().opened(1)
    pair.server.fail(ConnectionForced("broker forced connection closure with reason 'shutdown'"))
    assert pair.server.failed and not pair.server.closing
    pair.client.publish(1, "", "q", b"ignored")
    assert pair.to_server() == []
    pair.server.tick(pair.now_ms + 29_999)
    assert not pair.server.closing
    pair.server.tick(pair.now_ms + 30_000)
    assert pair.server.closing


def test_fail_before_the_header_says_nothing() -> None:
    server = Connection(Options())
    server.fail(ConnectionForced("shutdown"))
    assert server.closing
    assert server.data_to_send() == []


def test_update_secret_and_blocked() -> None:
    pair = Pair().opened()
    pair.client.send(0, ConnectionUpdateSecret(b"new", "rotation"))
    pair.server.send(0, ConnectionBlocked("low on memory"))
    assert pair.exchange()[1] == [
        Replied(0, ConnectionBlocked("low on memory")),
        Replied(0, ConnectionUpdateSecretOk()),
    ]


@pytest.mark.parametrize("seed", range(5))
def test_any_cut_of_the_bytes_makes_the_same_events(seed: int) -> None:
    """Runs may be cut where the data was, nothing else may differ."""
    rng = random.Random(seed)
    pair = Pair().opened(1, 2)
    client = pair.client
    pair.channel(1).record_delivery(7, 1, 50, no_ack=False)
    for at in range(50):
        client.publish(1 + at % 7 // 6, "e", f"k{at % 2}", bytes(rng.choice((0, 5, 3000, 70_000, 140_000))))
        if at % 5 == 0:
            client.ack(1, at + 1)
            client.nack(1, at + 2)
    data = client.data_to_send()
    at = 0
    events: list[Event] = []
    while at < len(data):
        size = rng.choice((1, 7, 100, 5000, 100_000))
        events += pair.server.receive_data(data[at : at + size], pair.now_ms)
        at += size
    whole = Pair().opened(1, 2)
    whole.channel(1).record_delivery(7, 1, 50, no_ack=False)
    expected = whole.server.receive_data(data, whole.now_ms)
    assert _messages(expected) == _messages(events)
    assert _settled(expected) == _settled(events)


def _messages(events: list[Event]) -> list[tuple[int, bytes, bytes]]:
    """(channel, arguments, record) of each published message."""
    messages = []
    for event in events:
        if isinstance(event, Publish):
            for args, count, packed in event.runs:
                offset = 0
                for _ in range(count):
                    end = skip(packed, offset, 1)
                    messages.append((event.channel.number, args, packed[offset:end]))
                    offset = end
                assert offset == len(packed)
    return messages


def _settled(events: list[Event]) -> list[tuple[Outcome, int]]:
    return [
        (event.outcome, at)
        for event in events
        if isinstance(event, Settle)
        for _, first_id, last_id in event.deliveries
        for at in range(first_id, last_id + 1)
    ]
