"""What frames on a channel mean, and what the session says on it."""

import struct

import pytest

from node.amqp import Options
from node.amqp.content import parse_publish
from node.amqp.events import (
    ChannelClosing,
    ChannelOpened,
    ConnectionClosing,
    Event,
    Outcome,
    Publish,
    Request,
    Settle,
)
from node.amqp.states import ConnectionState
from node.errors import NotAllowed, NotFound, PreconditionFailed
from node.wire.items import PublishedRun
from node.wire.methods import (
    AccessRequest,
    BasicAck,
    BasicPublish,
    ChannelFlow,
    ConfirmSelect,
    ConfirmSelectOk,
    Method,
    QueueDeclare,
    QueueDeclareOk,
    TxCommit,
    TxRollback,
    TxSelect,
    frame,
    method_frame,
)
from tests.amqp_client import ChannelGone, Confirmed, ConnectionGone, Replied
from tests.pair import Pair


def header(body_bytes: int, properties: bytes = b"\0\0", class_id: int = 60) -> bytes:
    return frame(2, 1, struct.pack(">HHQ", class_id, 0, body_bytes) + properties)


def publish(exchange: str = "", routing_key: str = "q") -> bytes:
    return method_frame(1, BasicPublish(exchange=exchange, routing_key=routing_key))


def test_publishes_that_come_together_are_one_event() -> None:
    pair = Pair().opened(1)
    for body in (b"a", b"bb", b"ccc"):
        pair.client.publish(1, "logs", "key", body, b"\0\0", mandatory=True)
    pair.client.publish(1, "", "key", b"", b"\0\0")
    (event,) = pair.to_server()
    assert isinstance(event, Publish)
    assert event.first_seq == 0
    (first_args, first_count, packed), (second_args, second_count, _) = event.runs
    assert first_args == b"\x04logs\x03key\1"
    assert parse_publish(first_args) == ("logs", "key", True)
    assert parse_publish(second_args) == ("", "key", False)
    assert (first_count, second_count) == (3, 1)
    record = struct.pack(">II", 9 + 14, 1) + b"\x04logs\x03key" + struct.pack(">HHQ", 60, 0, 1) + b"\0\0a"
    assert packed.startswith(record)


def test_publishes_before_a_wrong_one_are_an_event_of_their_own() -> None:
    """What came before a fault was done."""
    pair = Pair().opened(1)
    right = publish() + header(0)
    wrong = method_frame(1, BasicPublish(routing_key="q", immediate=True)) + header(0)
    published, closed = pair.receive(right + wrong + right)
    assert isinstance(published, Publish)
    assert [count for _, count, _ in published.runs] == [1]
    assert isinstance(closed, ConnectionClosing)


def test_content_frame_by_frame_makes_the_same_record() -> None:
    """AMQP 4.2.6: however the body is split, also into empty frames."""
    pair = Pair().opened(1)
    body = bytes(range(256)) * 1000
    data = publish() + header(len(body))
    whole = pair.receive(data + frame(3, 1, body[:130_000]))
    assert whole == []
    pair.receive(frame(3, 1, b""))
    (event,) = pair.receive(frame(3, 1, body[130_000:]))
    assert isinstance(event, Publish)
    head = b"\0\1q" + struct.pack(">HHQ", 60, 0, len(body)) + b"\0\0"
    assert event.runs == [(b"\0\1q\0", 1, struct.pack(">II", len(head), len(body)) + head + body)]


def test_content_frame_by_frame_is_as_special_as_a_whole_one() -> None:
    """Whether properties ask something must not depend on how the frames arrive."""
    pair = Pair().opened(1)
    for properties, flag in ((b"\x01\0\x0260", 0x80), (b"\x08\0\x05", 0x80), (b"\x08\0\0", 0), (b"\0\0", 0)):
        whole = publish() + header(1, properties) + frame(3, 1, b"x")
        ((args, _, _),) = _runs(pair.receive(whole))
        pair.receive(publish() + header(1, properties) + frame(8, 0, b""))
        ((piecemeal, _, _),) = _runs(pair.receive(frame(3, 1, b"x")))
        assert args == piecemeal == b"\0\1q" + bytes((flag,))


def _runs(events: list[Event]) -> list[PublishedRun]:
    (event,) = events
    assert isinstance(event, Publish)
    return event.runs


def test_confirm_numbers_go_up_by_the_message() -> None:
    pair = Pair().opened(1)
    pair.client.confirm_select(1)
    (request,) = pair.to_server()
    assert request == Request(pair.channel(1), ConfirmSelect())
    pair.server.send(1, ConfirmSelectOk())
    assert pair.to_client() == [Replied(1, ConfirmSelectOk())]
    for _ in range(3):
        pair.client.publish(1, "", "q", b"x")
    pair.client.publish(1, "", "other", b"x")
    (first,) = pair.to_server()
    pair.client.publish(1, "", "q", b"x")
    (second,) = pair.to_server()
    assert isinstance(first, Publish) and isinstance(second, Publish)
    assert (first.first_seq, second.first_seq) == (1, 5)
    channel = pair.channel(1)
    assert channel.unconfirmed_count == 5
    channel.confirm([(4, 4)], ok=False)
    channel.confirm([(1, 3), (5, 5)])
    assert pair.to_client() == [
        Confirmed(1, [1, 2, 3], True),
        Confirmed(1, [4], False),
        Confirmed(1, [5], True),
    ]
    assert channel.unconfirmed_count == 0


def test_gathered_confirms_go_before_the_goodbye() -> None:
    """A confirm that is due is told even where the client closes the channel in the same turn."""
    pair = Pair().opened(1)
    pair.client.confirm_select(1)
    pair.client.publish(1, "", "q", b"x")
    pair.to_server()
    pair.to_client()
    channel = pair.channel(1)
    channel.confirm([(1, 1)])
    pair.client.close_channel(1)
    assert pair.to_server() == [ChannelClosing(channel, None)]
    assert [type(event) for event in pair.to_client()] == [Confirmed, Replied]
    channel.confirm([(2, 2)])
    channel.send(QueueDeclareOk("q", 0, 0))
    assert pair.to_client() == []


def test_acks_settle_runs() -> None:
    """Single acks that follow each other, and then one for the rest, are ranges of the session's ids."""
    pair = Pair().opened(1)
    channel = pair.channel(1)
    assert channel.record_delivery(70, 501, 10, no_ack=False) == 1
    assert channel.record_delivery(80, 1, 5, no_ack=True) == 11
    assert channel.record_delivery(90, 1, 2, no_ack=False) == 16
    for tag in (1, 2, 3, 5):
        pair.client.ack(1, tag)
    assert pair.to_server() == [Settle(channel, Outcome.ACK, [(70, 501, 503), (70, 505, 505)])]
    pair.client.ack(1, 16, multiple=True)
    assert pair.to_server() == [Settle(channel, Outcome.ACK, [(70, 504, 504), (70, 506, 510), (90, 1, 1)])]
    pair.client.nack(1, 0, multiple=True)
    assert pair.to_server() == [Settle(channel, Outcome.REQUEUE, [(90, 2, 2)])]
    assert channel.unacked_count == 0


def test_reject_and_nack_say_what_becomes_of_the_message() -> None:
    pair = Pair().opened(1)
    channel = pair.channel(1)
    channel.record_delivery(7, 1, 4, no_ack=False)
    pair.client.reject(1, 1)
    pair.client.reject(1, 2, requeue=False)
    pair.client.nack(1, 3, requeue=False)
    pair.client.nack(1, 4, requeue=True)
    assert pair.to_server() == [
        Settle(channel, Outcome.REQUEUE, [(7, 1, 1)]),
        Settle(channel, Outcome.REJECT, [(7, 2, 2), (7, 3, 3)]),
        Settle(channel, Outcome.REQUEUE, [(7, 4, 4)]),
    ]


def test_unknown_tag_closes_the_channel_after_what_was_right() -> None:
    pair = Pair().opened(1)
    channel = pair.channel(1)
    channel.record_delivery(7, 1, 2, no_ack=False)
    pair.client.ack(1, 2)
    pair.client.ack(1, 2)
    settle, closed = pair.to_server()
    assert settle == Settle(channel, Outcome.ACK, [(7, 2, 2)])
    assert isinstance(closed, ChannelClosing) and isinstance(closed.error, PreconditionFailed)
    assert (closed.error.class_id, closed.error.method_id) == (60, 80)
    assert channel.take_all() == [(7, 1, 1)]
    assert pair.to_client() == [ChannelGone(1, 406, "PRECONDITION_FAILED - unknown delivery tag 2")]


def test_closing_channel_ignores_all_until_close_ok() -> None:
    """AMQP 1.5.2.5: after channel.close every method but close and close-ok is discarded."""
    pair = Pair().opened(1)
    first = pair.channel(1)
    first.fail(NotFound("no queue 'q' in vhost '/'"))
    assert first.failed and not first.is_open
    pair.client.publish(1, "", "q", b"x")
    pair.client.declare(1, "q")
    pair.client.ack(1, 99)
    pair.client.open_channel(1)
    assert pair.to_server() == []
    assert pair.channel(1) is first
    assert pair.to_client() == [ChannelGone(1, 404, "NOT_FOUND - no queue 'q' in vhost '/'")]
    pair.client.open_channel(1)
    (event,) = pair.to_server()
    assert isinstance(event, ChannelOpened)
    assert event.channel is pair.channel(1) is not first


def test_both_sides_may_close_at_once() -> None:
    pair = Pair().opened(1)
    pair.channel(1).fail(NotFound("no queue 'q' in vhost '/'"))
    pair.client.close_channel(1)
    assert pair.to_server() == []
    gone, _ = pair.to_client()
    assert isinstance(gone, ChannelGone)
    pair.to_server()
    assert pair.server.channels == {}


def test_one_piece_of_data_may_close_and_reopen_a_channel() -> None:
    """Events carry the channel, so the old one's publish is not taken for the new one's."""
    pair = Pair().opened(1)
    old = pair.channel(1)
    pair.client.publish(1, "", "q", b"x")
    pair.client.close_channel(1)
    pair.client.open_channel(1)
    published, closed, opened = pair.to_server()
    assert isinstance(published, Publish) and published.channel is old
    assert closed == ChannelClosing(old, None)
    assert isinstance(opened, ChannelOpened) and opened.channel is not old


def test_requests_go_to_the_session_and_answers_come_back() -> None:
    pair = Pair().opened(1)
    pair.client.declare(1, "q", durable=True)
    (event,) = pair.to_server()
    assert event == Request(pair.channel(1), QueueDeclare(queue="q", durable=True))
    pair.server.send(1, QueueDeclareOk("q", 0, 0))
    pair.server.send(2, QueueDeclareOk("nobody", 0, 0))
    assert pair.to_client() == [Replied(1, QueueDeclareOk("q", 0, 0))]


@pytest.mark.parametrize("method", [AccessRequest(), ChannelFlow(active=True), ConfirmSelect(), TxSelect()])
def test_answers_that_must_not_overtake_others_are_left_to_the_session(method: Method) -> None:
    """AMQP 4.7: a channel's methods are answered in the order in which they came."""
    pair = Pair().opened(1)
    pair.client.send(1, method)
    assert pair.exchange() == ([Request(pair.channel(1), method)], [])


def test_settlements_on_either_side_of_a_commit_are_events_of_their_own() -> None:
    """What is committed is what came before tx.commit, also if all comes in one piece."""
    pair = Pair().opened(1)
    channel = pair.channel(1)
    channel.record_delivery(7, 1, 3, no_ack=False)
    for method in (
        TxSelect(),
        BasicAck(1),
        TxCommit(),
        BasicAck(2),
        TxRollback(),
        BasicAck(3, multiple=True),
    ):
        pair.client.send(1, method)
    assert pair.to_server() == [
        Request(channel, TxSelect()),
        Settle(channel, Outcome.ACK, [(7, 1, 1)]),
        Request(channel, TxCommit()),
        Settle(channel, Outcome.ACK, [(7, 2, 2)]),
        Request(channel, TxRollback()),
        Settle(channel, Outcome.ACK, [(7, 2, 3)]),
    ]


@pytest.mark.parametrize(
    ("first", "second", "text"),
    [
        (ConfirmSelect(), TxSelect(), "cannot switch from confirm to tx mode"),
        (TxSelect(), ConfirmSelect(), "cannot switch from tx to confirm mode"),
    ],
)
def test_confirms_and_transactions_exclude_each_other(first: Method, second: Method, text: str) -> None:
    pair = Pair().opened(1)
    pair.client.send(1, first)
    pair.client.send(1, second)
    _, closed = pair.to_server()
    assert isinstance(closed, ChannelClosing)
    assert pair.to_client() == [ChannelGone(1, 406, f"PRECONDITION_FAILED - {text}")]


@pytest.mark.parametrize("size", [11, 200_000])
def test_message_above_the_maximum_closes_the_channel_only(size: int) -> None:
    """Whole in one piece of data or frame by frame; the rest of the content is skipped."""
    pair = Pair(Options(message_size_bytes_max=10)).opened(1, 2)
    pair.client.publish(1, "", "q", b"0123456789")
    pair.client.publish(1, "", "q", b"0123456789")
    pair.client.publish(1, "", "q", bytes(size))
    pair.client.publish(2, "", "q", b"after")
    data = pair.client.data_to_send()
    events = [event for at in range(0, len(data), 50_000) for event in pair.receive(data[at : at + 50_000])]
    whole, closed, after = events
    assert isinstance(whole, Publish)
    assert [count for _, count, _ in whole.runs] == [1, 1]
    assert isinstance(closed, ChannelClosing)
    assert isinstance(after, Publish) and after.channel.number == 2
    assert pair.to_client() == [
        ChannelGone(
            1, 406, f"PRECONDITION_FAILED - message size {size} is larger than configured max size 10"
        )
    ]


def test_unfinished_contents_are_bounded() -> None:
    """Many channels with a message that never ends may not fill the memory."""
    pair = Pair(Options(message_size_bytes_max=1000)).opened(*range(1, 40))
    for number in range(1, 40):
        for piece in _frames(publish() + header(1000) + frame(3, 1, bytes(999))):
            moved = piece[:1] + struct.pack(">H", number) + piece[3:]
            # The heartbeat after it makes the codec hand out what it would else keep until the body is there.
            pair.receive(moved + b"\x08\0\0\0\0\0\0\xce")
        if pair.server.state is ConnectionState.CLOSING:
            break
    assert number < 20
    (gone,) = pair.to_client()
    assert isinstance(gone, ConnectionGone)
    assert gone.reply_code == 506


def _frames(data: bytes) -> list[bytes]:
    pieces = []
    while data:
        size = 8 + int.from_bytes(data[3:7], "big")
        pieces.append(data[:size])
        data = data[size:]
    return pieces


def test_session_may_fail_the_connection_from_a_channel() -> None:
    pair = Pair().opened(1)
    pair.channel(1).fail(NotAllowed("attempt to reuse consumer tag 't'"))
    assert pair.server.failed
    assert pair.server.channels == {}
    assert pair.to_client() == [ConnectionGone(530, "NOT_ALLOWED - attempt to reuse consumer tag 't'")]
    assert not any(isinstance(event, ConnectionClosing) for event in pair.to_server())
    assert pair.server.closing
