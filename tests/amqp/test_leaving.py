"""What came before an end is answered first: closes of the client, and faults that are found here."""

import sys
from types import FrameType

import pytest

from node.amqp.events import (
    ChannelClosed,
    ChannelClosing,
    ChannelOpened,
    ConnectionClosed,
    ConnectionClosing,
    Request,
)
from node.amqp.states import ConnectionState
from node.errors import ConnectionForced, NotFound
from node.wire.methods import (
    BasicAck,
    ChannelClose,
    ChannelCloseOk,
    ChannelOpen,
    ChannelOpenOk,
    ConnectionClose,
    Method,
    QueueDeclare,
    QueueDeclareOk,
    frame,
    method_frame,
)
from tests.amqp_client import ChannelGone, ConnectionGone, Replied
from tests.pair import Pair

DECLARED = QueueDeclareOk("q", 0, 0)
UNKNOWN_TAG = ChannelGone(1, 406, "PRECONDITION_FAILED - unknown delivery tag 7")
UNKNOWN_METHOD = ConnectionGone(503, "COMMAND_INVALID - unimplemented method")
BAD_FRAME = frame(1, 1, b"abcdef")[:-1] + b"x"


def _asked(*methods: Method) -> Pair:
    """A client that has sent queue.declare and these on channel 1, and a session that has answered nothing."""
    pair = Pair().opened(1)
    pair.accept = False
    for method in (QueueDeclare(queue="q"), *methods):
        pair.client.send(1, method)
    return pair


def test_answers_go_before_channel_close_ok() -> None:
    pair = _asked(ChannelClose(200))
    channel = pair.channel(1)
    assert pair.to_server() == [Request(channel, QueueDeclare(queue="q")), ChannelClosing(channel, None)]
    assert pair.to_client() == []
    channel.send(DECLARED)
    channel.finish()
    channel.send(DECLARED)
    channel.finish()
    assert pair.to_client() == [Replied(1, DECLARED), Replied(1, ChannelCloseOk())]
    assert pair.server.channels == {}


def test_answers_go_before_the_error_of_a_fault() -> None:
    """What the client sends after its fault is ignored all the while."""
    pair = _asked(BasicAck(7), QueueDeclare(queue="ignored"))
    channel = pair.channel(1)
    request, closing = pair.to_server()
    assert isinstance(request, Request) and isinstance(closing, ChannelClosing)
    pair.client.send(1, ChannelOpen())
    pair.client.send(1, ChannelCloseOk())
    assert pair.to_server() == []
    channel.send(DECLARED)
    channel.finish()
    assert pair.to_client() == [Replied(1, DECLARED), UNKNOWN_TAG]
    assert pair.channel(1) is channel
    pair.to_server()
    assert pair.server.channels == {}


def test_client_may_close_a_channel_whose_fault_it_was_not_told() -> None:
    pair = _asked(BasicAck(7), ChannelClose(200))
    pair.to_server()
    pair.channel(1).finish()
    assert pair.to_client() == [UNKNOWN_TAG, Replied(1, ChannelCloseOk())]
    pair.to_server()
    assert pair.server.channels == {}


def test_failure_of_an_earlier_method_is_told_to_a_client_that_closes() -> None:
    """Both have closed; the number is free when the client has answered."""
    pair = _asked(ChannelClose(200))
    channel = pair.channel(1)
    pair.to_server()
    channel.fail(NotFound("no queue 'q' in vhost '/'"))
    channel.finish()
    assert pair.to_client() == [
        ChannelGone(1, 404, "NOT_FOUND - no queue 'q' in vhost '/'"),
        Replied(1, ChannelCloseOk()),
    ]
    assert pair.channel(1) is channel
    pair.to_server()
    assert pair.server.channels == {}


def test_number_may_be_used_again_before_close_is_answered() -> None:
    pair = _asked(ChannelClose(200), ChannelOpen(), QueueDeclare(queue="other"))
    old = pair.channel(1)
    *_, opened, request = pair.to_server()
    new = pair.channel(1)
    assert opened == ChannelOpened(new, old)
    assert request == Request(new, QueueDeclare(queue="other"))
    old.fail(NotFound("no queue 'q' in vhost '/'"))
    new.send(ChannelOpenOk())
    assert [type(event) for event in pair.to_client()] == [ChannelGone, Replied, Replied]
    assert pair.to_server() == [], "close-ok of the old one"
    assert pair.channel(1) is new and new.is_open


def test_channel_follows_the_last_of_its_number_that_has_not_ended() -> None:
    again = (ChannelClose(200), ChannelOpen())
    pair = _asked(*again, *again)
    first = pair.channel(1)
    second, third = (event for event in pair.to_server() if isinstance(event, ChannelOpened))
    assert (second.before, third.before) == (first, second.channel)
    first.finish()
    second.channel.finish()
    pair.client.send(2, ChannelOpen())
    assert pair.to_server() == [ChannelOpened(pair.channel(2), None)]
    for method in again:
        pair.client.send(1, method)
    closing, fourth = pair.to_server()
    assert closing == ChannelClosing(third.channel, None)
    assert fourth == ChannelOpened(pair.channel(1), third.channel)
    third.channel.finish()
    pair.channel(1).fail(NotFound("no queue 'q' in vhost '/'"))
    pair.client.send(1, ChannelCloseOk())
    pair.client.send(1, ChannelOpen())
    assert pair.to_server() == [ChannelOpened(pair.channel(1), None)], "none of those that left is there"


def test_opening_a_channel_costs_the_same_however_many_are_leaving() -> None:
    """A client may leave thousands behind an answer that is late."""
    pair = _asked(*(ChannelClose(200), ChannelOpen()) * 2_000)
    pair.to_server()
    for number in range(2, 500):
        pair.client.send(number, ChannelOpen())
    data = pair.client.data_to_send()
    steps = 0

    def count(frame: FrameType, event: str, _: object) -> object:
        nonlocal steps
        frame.f_trace_opcodes = True
        steps += event == "opcode"
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        opened = pair.receive(data)
    finally:
        sys.settrace(before)
    assert len(opened) == 498
    assert steps < 498 * 1_000


def test_other_methods_after_close_are_refused() -> None:
    pair = _asked(ChannelClose(200), QueueDeclare(queue="late"))
    *_, closing = pair.to_server()
    assert isinstance(closing, ConnectionClosing)
    pair.server.finish()
    assert pair.to_client() == [ConnectionGone(504, "CHANNEL_ERROR - expected 'channel.open'")]


@pytest.mark.parametrize(
    ("last", "expected"), [(ChannelClose(200), Replied(1, ChannelCloseOk())), (BasicAck(7), UNKNOWN_TAG)]
)
def test_channel_does_not_wait_for_ever(last: Method, expected: object) -> None:
    pair = _asked(last)
    channel = pair.channel(1)
    pair.to_server()
    assert pair.server.tick(pair.now_ms + 9_999) == []
    assert pair.server.tick(pair.now_ms + 10_000) == [ChannelClosed(channel)]
    channel.send(DECLARED)
    assert pair.to_client() == [expected]
    assert pair.server.tick(pair.now_ms + 20_000) == []


def test_answers_go_before_connection_close_ok() -> None:
    pair = _asked()
    channel = pair.channel(1)
    pair.client.close()
    pair.client.open_channel(2)
    *_, closing = pair.to_server()
    assert closing == ConnectionClosing(None, "closed by the client: 200 Goodbye")
    assert pair.server.state is ConnectionState.LEAVING
    assert pair.receive(b"more") == pair.server.tick(pair.now_ms + 9_999) == pair.to_client() == []
    channel.send(DECLARED)
    pair.server.finish()
    assert pair.to_client() == [Replied(1, DECLARED), ConnectionGone(0, "")]
    assert pair.server.closing


def test_answers_go_before_the_error_that_ends_the_connection() -> None:
    pair = _asked()
    channel = pair.channel(1)
    pair.receive(pair.client.data_to_send() + method_frame(1, DECLARED))
    pair.client.declare(1, "ignored")
    assert pair.to_server() == pair.to_client() == []
    channel.send(DECLARED)
    pair.server.finish()
    assert pair.to_client() == [Replied(1, DECLARED), UNKNOWN_METHOD]
    assert pair.server.state is ConnectionState.CLOSING
    pair.to_server()
    assert pair.server.closing


def test_client_may_close_a_connection_whose_fault_it_was_not_told() -> None:
    pair = _asked()
    closed = method_frame(0, ConnectionClose(200))
    pair.receive(pair.client.data_to_send() + method_frame(1, DECLARED) + closed)
    pair.server.finish()
    assert pair.to_client() == [UNKNOWN_METHOD, ConnectionGone(0, "")]
    assert pair.server.closing


@pytest.mark.parametrize("is_wished", [True, False])
def test_connection_does_not_wait_for_ever(*, is_wished: bool) -> None:
    pair = _asked()
    last = method_frame(0, ConnectionClose(200)) if is_wished else method_frame(1, DECLARED)
    pair.receive(pair.client.data_to_send() + last)
    assert pair.server.tick(pair.now_ms + 9_999) == []
    (closed,) = pair.server.tick(pair.now_ms + 10_000)
    assert isinstance(closed, ConnectionClosed)
    assert pair.to_client() == [ConnectionGone(0, "") if is_wished else UNKNOWN_METHOD]
    assert pair.server.closing is is_wished


def test_connection_that_is_about_to_end_may_be_ended_by_the_session() -> None:
    pair = _asked()
    pair.client.close()
    pair.to_server()
    pair.server.fail(ConnectionForced("shutdown"))
    assert pair.to_client() == [ConnectionGone(320, "CONNECTION_FORCED - shutdown"), ConnectionGone(0, "")]
    assert pair.server.closing


def test_nothing_is_read_after_a_broken_frame_though_its_error_waits() -> None:
    """The silence that follows begins when the client was told."""
    pair = _asked()
    pair.receive(pair.client.data_to_send() + BAD_FRAME)
    assert pair.receive(method_frame(0, ConnectionClose(200))) == pair.server.tick(pair.now_ms + 9_000) == []
    pair.server.finish()
    (gone,) = pair.to_client()
    assert isinstance(gone, ConnectionGone) and gone.reply_code == 501
    pair.server.tick(pair.now_ms + 11_999)
    assert not pair.server.closing
    pair.server.tick(pair.now_ms + 12_000)
    assert pair.server.closing


def test_end_of_the_connection_ends_channels_that_are_about_to() -> None:
    pair = _asked(ChannelClose(200))
    channel = pair.channel(1)
    pair.to_server()
    pair.server.fail(ConnectionForced("shutdown"))
    channel.send(DECLARED)
    channel.finish()
    assert pair.to_client() == [ConnectionGone(320, "CONNECTION_FORCED - shutdown")]
