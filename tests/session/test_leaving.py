"""Ends in the client's order: what it sent before is done and answered when it is told that it may go."""

import pytest

from node.wire import methods as m
from tests.session.client import Client, content
from tests.session.loopback import Loopback
from tests.session.ready import ready, ready_count, watched

METADATA = 0
DECLARES = [m.QueueDeclare(queue=f"q{number}", durable=True) for number in range(3)]
DECLARED = [m.QueueDeclareOk(f"q{number}", 0, 0) for number in range(3)]
CLOSE, CLOSE_OK = m.ChannelClose(200), m.ChannelCloseOk()
GOODBYE, GOODBYE_OK = m.ConnectionClose(200), m.ConnectionCloseOk()
DEADLINE_MS = 10_000


def _frames(channel: int, *methods: m.Method) -> bytes:
    return b"".join(m.method_frame(channel, method) for method in methods)


def _held(broker: Loopback, client: Client, data: bytes, *groups: int) -> list[m.Method]:
    """What the client hears of this once the groups go on, before which it hears nothing."""
    broker.held = dict.fromkeys(groups)
    client.write(data)
    assert client.take_methods() == []
    broker.held.clear()
    broker.run()
    return client.take_methods()


def _is_forgotten(broker: Loopback) -> bool:
    return not broker.frontend.open_tickets and not broker.frontend.pending_bytes


def test_methods_are_answered_before_close_ok() -> None:
    broker = Loopback()
    client = broker.connect().login().open()
    assert _held(broker, client, _frames(1, *DECLARES, CLOSE), METADATA) == [*DECLARED, CLOSE_OK]
    assert _is_forgotten(broker)


def test_methods_of_all_channels_are_answered_before_the_connection_may_go() -> None:
    broker = Loopback()
    client = broker.connect().login().open(2).open(1)
    data = _frames(1, *DECLARES) + _frames(2, *DECLARES, CLOSE) + _frames(0, GOODBYE)
    client.write(data)
    received = client.take()
    assert [item.method for item in received if item.channel == 1] == DECLARED
    assert [item.method for item in received if item.channel == 2] == [*DECLARED, CLOSE_OK]
    assert received[-1].method == GOODBYE_OK
    assert client.is_closed and _is_forgotten(broker)


@pytest.mark.parametrize(
    ("wrong", "code"),
    [(m.BasicAck(7), 406), (m.TxCommit(), 406), (m.QueueDeclareOk(), 503), (m.ChannelOpen(), 504)],
)
def test_methods_are_answered_before_the_error(wrong: m.Method, code: int) -> None:
    broker = Loopback()
    client = broker.connect().login().open()
    *answers, close = _held(broker, client, _frames(1, *DECLARES, wrong, *DECLARES), METADATA)
    assert answers == DECLARED
    assert isinstance(close, m.ChannelClose | m.ConnectionClose) and close.reply_code == code
    assert _is_forgotten(broker)


def test_methods_of_other_channels_are_answered_before_the_error_that_ends_the_connection() -> None:
    broker = Loopback()
    client = broker.connect().login().open(2).open(1)
    data = _frames(2, *DECLARES) + _frames(1, m.QueueDeclareOk())
    *answers, close = _held(broker, client, data, METADATA)
    assert answers == DECLARED
    assert isinstance(close, m.ConnectionClose)


def test_earlier_failure_is_told_before_close_ok() -> None:
    broker = Loopback()
    client = broker.connect().login().open()
    data = _frames(1, DECLARES[0], m.QueueDeclare(queue="none", passive=True), DECLARES[1], CLOSE)
    answer, close, close_ok = _held(broker, client, data, METADATA)
    assert (answer, close_ok) == (DECLARED[0], CLOSE_OK)
    assert isinstance(close, m.ChannelClose) and close.reply_code == 404
    client.send(1, m.ChannelCloseOk(), m.ChannelOpen())
    assert client.take_methods() == [m.ChannelOpenOk()]


@pytest.mark.parametrize(("channel", "close", "close_ok"), [(1, CLOSE, CLOSE_OK), (0, GOODBYE, GOODBYE_OK)])
def test_published_messages_are_in_their_queues_at_close_ok(
    channel: int, close: m.Method, close_ok: m.Method
) -> None:
    broker = Loopback()
    client = ready(broker)
    data = content(1, "q", b"a") + content(1, "q", b"b") + _frames(channel, close)
    assert _held(broker, client, data, broker.place("/", "q")) == [close_ok]
    assert ready_count(watched(broker)) == 2
    assert _is_forgotten(broker)


def test_confirms_go_before_close_ok() -> None:
    broker = Loopback()
    client = ready(broker)
    client.call(m.ConfirmSelect(), m.ConfirmSelectOk)
    data = content(1, "q", b"a") + _frames(0, GOODBYE)
    assert _held(broker, client, data, broker.place("/", "q")) == [m.BasicAck(1, multiple=False), GOODBYE_OK]


@pytest.mark.parametrize(("channel", "close", "close_ok"), [(1, CLOSE, CLOSE_OK), (0, GOODBYE, GOODBYE_OK)])
def test_held_messages_are_ready_again_at_close_ok(channel: int, close: m.Method, close_ok: m.Method) -> None:
    """Its consumer has gone, too, and gets none that comes meanwhile."""
    broker = Loopback()
    client = ready(broker)
    group = broker.place("/", "q")
    client.publish("q", b"a", b"b")
    client.call(m.BasicGet(queue="q"), m.BasicGetOk)
    client.send(1, m.BasicConsume(queue="q", exclusive=True))
    client.take()
    assert _held(broker, client, content(1, "q", b"c") + _frames(channel, close), group) == [close_ok]
    watcher = watched(broker)
    assert ready_count(watcher) == 3
    watcher.call(m.BasicConsume(queue="q", consumer_tag="t"), m.BasicDeliver, channel=9)
    assert _is_forgotten(broker)


def test_exclusive_queues_are_gone_when_the_connection_may_go() -> None:
    broker = Loopback()
    client = broker.connect().login().open()
    client.call(m.QueueDeclare(queue="mine", exclusive=True), m.QueueDeclareOk)
    assert _held(broker, client, _frames(0, GOODBYE), METADATA) == [GOODBYE_OK]
    watched(broker).call(m.QueueDeclare(queue="mine"), m.QueueDeclareOk, channel=9)


def test_channel_is_open_again_when_the_old_one_is_closed() -> None:
    broker = Loopback()
    client = broker.connect().login().open()
    data = _frames(1, DECLARES[0], CLOSE, m.ChannelOpen(), DECLARES[1], CLOSE)
    heard = _held(broker, client, data, METADATA)
    assert heard == [DECLARED[0], CLOSE_OK, m.ChannelOpenOk(), DECLARED[1], CLOSE_OK]


def test_channel_may_be_closed_and_opened_any_number_of_times_ahead() -> None:
    broker = Loopback()
    client = broker.connect().login().open()
    data = _frames(1, DECLARES[0], *(CLOSE, m.ChannelOpen()) * 3000)
    assert _held(broker, client, data, METADATA) == [DECLARED[0], *(CLOSE_OK, m.ChannelOpenOk()) * 3000]
    assert broker.frontend.channel_count == 1
    assert _is_forgotten(broker)


@pytest.mark.parametrize(("channel", "close", "close_ok"), [(1, CLOSE, CLOSE_OK), (0, GOODBYE, GOODBYE_OK)])
def test_who_closes_does_not_wait_for_a_majority_for_ever(
    channel: int, close: m.Method, close_ok: m.Method
) -> None:
    """What was published is done when there is one, as it is without a close."""
    broker = Loopback()
    client = ready(broker)
    client.send(1, m.BasicConsume(queue="q"))
    client.take()
    group = broker.place("/", "q")
    broker.held[group] = None
    client.publish("q", b"a")
    client.send(channel, close)
    broker.tick(DEADLINE_MS - 1000)
    assert client.take_methods() == []
    broker.tick(1000)
    assert client.take_methods() == [close_ok]
    del broker.held[group]
    broker.run()
    assert client.take_methods() == []
    assert ready_count(watched(broker)) == 1
    assert _is_forgotten(broker)


def test_declaration_without_a_majority_fails_before_the_client_goes() -> None:
    broker = Loopback()
    client = broker.connect().login().open()
    broker.held[METADATA] = None
    client.write(_frames(1, *DECLARES) + _frames(0, GOODBYE))
    broker.tick(DEADLINE_MS)
    close, goodbye_ok = client.take_methods()
    assert isinstance(close, m.ChannelClose) and close.reply_text.endswith("due to timeout")
    assert goodbye_ok == GOODBYE_OK
    assert _is_forgotten(broker)


@pytest.mark.parametrize("channel", [1, 0])
@pytest.mark.parametrize(
    "keys", [("q",), ("q", "nowhere")], ids=["end under way", "publish before it under way"]
)
def test_client_that_is_lost_while_it_closes_leaves_nothing(channel: int, keys: tuple[str, ...]) -> None:
    broker = Loopback()
    client = ready(broker)
    client.call(m.QueueDeclare(queue="mine", exclusive=True), m.QueueDeclareOk)
    client.send(1, m.BasicConsume(queue="q", exclusive=True))
    client.take()
    broker.held = dict.fromkeys((METADATA, broker.place("/", "q")))
    data = b"".join(content(1, key, b"a") for key in keys)
    client.write(data + _frames(channel, CLOSE if channel else GOODBYE))
    broker.lose(client)
    broker.held.clear()
    broker.run()
    assert _is_forgotten(broker)
    watcher = watched(broker)
    assert ready_count(watcher) == 1
    watcher.call(m.BasicConsume(queue="q", exclusive=True, consumer_tag="t"), m.BasicDeliver, channel=9)
    watcher.call(m.QueueDeclare(queue="mine"), m.QueueDeclareOk, channel=9)


def test_group_that_starts_anew_ends_the_wait() -> None:
    broker = Loopback()
    client = ready(broker)
    group = broker.place("/", "q")
    broker.held[group] = None
    client.publish("q", b"a")
    client.send(0, GOODBYE)
    broker.drop_held(group)
    broker.frontend.on_group_reset(group)
    broker.run()
    close, goodbye_ok = client.take_methods()
    assert isinstance(close, m.ConnectionClose) and close.reply_code == 320
    assert goodbye_ok == GOODBYE_OK
    assert client.is_closed and _is_forgotten(broker)


def test_what_follows_an_error_that_ends_the_connection_is_ignored() -> None:
    """Also a channel that was opened in the same piece of data."""
    client = Loopback().connect().login().open()
    client.write(_frames(1, m.BasicQos(prefetch_size=5)) + _frames(2, m.ChannelOpen(), *DECLARES))
    (close,) = client.take_methods()
    assert isinstance(close, m.ConnectionClose) and close.reply_code == 540
