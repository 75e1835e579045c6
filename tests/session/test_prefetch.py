"""basic.qos: a limit for each consumer and one for the channel, and what they mean together."""

import pytest

from node.wire import methods as m
from tests.session.client import Client
from tests.session.loopback import Loopback


def _opened(broker: Loopback, *queues: str) -> Client:
    client = broker.connect().login().open()
    for queue in queues:
        client.call(m.QueueDeclare(queue=queue, durable=True), m.QueueDeclareOk)
    return client


def _bodies(client: Client) -> list[bytes | None]:
    return [item.body for item in client.take() if isinstance(item.method, m.BasicDeliver)]


def _numbers(count: int, prefix: str = "") -> list[bytes]:
    return [f"{prefix}{number}".encode() for number in range(count)]


def _qos(client: Client, count: int, *, is_global: bool) -> None:
    client.send(1, m.BasicQos(prefetch_count=count, global_=is_global))


def test_what_a_raised_limit_lets_go_comes_after_qos_ok() -> None:
    """As on RabbitMQ. Celery raises the limit from where it takes deliveries, and would miss these."""
    broker = Loopback()
    client = _opened(broker, "q")
    _qos(client, 1, is_global=True)
    client.send(1, m.BasicConsume(queue="q"))
    _opened(broker).publish("q", *_numbers(3))
    assert _bodies(client) == [b"0"]
    _qos(client, 2, is_global=True)
    assert [type(item.method) for item in client.take()] == [m.BasicQosOk, m.BasicDeliver]


def test_channel_limit_is_shared_by_its_consumers() -> None:
    """RabbitMQ, consumer prefetch: `global=true` is shared across all consumers on the channel."""
    broker = Loopback()
    client = _opened(broker, "a", "b")
    _qos(client, 3, is_global=True)
    client.send(1, m.BasicConsume(queue="a"), m.BasicConsume(queue="b"))
    client.take()
    publisher = _opened(broker)
    publisher.publish("a", *_numbers(2, "a"))
    publisher.publish("b", *_numbers(2, "b"))
    assert _bodies(client) == [b"a0", b"a1", b"b0"]
    client.send(1, m.BasicAck(1))
    assert _bodies(client) == [b"b1"]


def test_both_limits_count() -> None:
    """RabbitMQ, consumer prefetch: two limits that are enforced independently of each other."""
    broker = Loopback()
    client = _opened(broker, "a", "b")
    _qos(client, 2, is_global=False)
    _qos(client, 3, is_global=True)
    client.send(1, m.BasicConsume(queue="a"), m.BasicConsume(queue="b"))
    publisher = _opened(broker)
    publisher.publish("a", *_numbers(5, "a"))
    publisher.publish("b", *_numbers(5, "b"))
    assert _bodies(client) == [b"a0", b"a1", b"b0"]
    client.send(1, m.BasicAck(3))
    assert _bodies(client) == [b"b1"]
    client.send(1, m.BasicAck(0, multiple=True))
    assert sorted(body or b"" for body in _bodies(client)) == [b"a2", b"a3", b"b2"]


def test_limit_per_consumer_lifts_that_of_the_channel() -> None:
    """As in RabbitMQ."""
    broker = Loopback()
    client = _opened(broker, "a")
    _qos(client, 1, is_global=True)
    client.send(1, m.BasicConsume(queue="a"))
    _opened(broker).publish("a", *_numbers(3))
    assert _bodies(client) == [b"0"]
    _qos(client, 1, is_global=False)
    assert _bodies(client) == [b"1", b"2"]


@pytest.mark.parametrize(("count", "more"), [(3, [b"1", b"2"]), (0, [b"1", b"2", b"3", b"4"])])
def test_higher_channel_limit_counts_at_once(count: int, more: list[bytes]) -> None:
    """Celery raises it while it keeps tasks that are not due."""
    broker = Loopback()
    client = _opened(broker, "a")
    _qos(client, 1, is_global=True)
    client.send(1, m.BasicConsume(queue="a"))
    _opened(broker).publish("a", *_numbers(5))
    assert _bodies(client) == [b"0"]
    _qos(client, count, is_global=True)
    assert _bodies(client) == more


def test_lower_channel_limit_gives_back_what_was_not_sent() -> None:
    """Other consumers get it at once, though the client still holds more than it may."""
    broker = Loopback()
    client = _opened(broker, "a")
    _qos(client, 4, is_global=False)
    client.send(1, m.BasicConsume(queue="a"))
    client.take()
    broker.writable(client, is_writable=False)
    _opened(broker).publish("a", *_numbers(6))
    _qos(client, 1, is_global=True)
    other = _opened(broker)
    other.send(1, m.BasicConsume(queue="a"))
    assert _bodies(other) == _numbers(6)[1:]
    broker.writable(client, is_writable=True)
    assert _bodies(client) == [b"0"]
    client.send(1, m.BasicAck(1))
    assert _bodies(client) == []


def test_channel_limit_that_comes_late_counts_what_is_held() -> None:
    broker = Loopback()
    client = _opened(broker, "a")
    client.send(1, m.BasicConsume(queue="a"))
    publisher = _opened(broker)
    publisher.publish("a", *_numbers(4))
    assert len(_bodies(client)) == 4
    _qos(client, 3, is_global=True)
    publisher.publish("a", b"new")
    client.send(1, m.BasicAck(1))
    assert _bodies(client) == []
    client.send(1, m.BasicAck(2))
    assert _bodies(client) == [b"new"]


def test_room_of_the_channel_goes_round() -> None:
    """No consumer starves because another one's messages come first."""
    broker = Loopback()
    client = _opened(broker, "a", "b", "c")
    _qos(client, 1, is_global=True)
    client.send(1, *[m.BasicConsume(queue=queue) for queue in "abc"])
    publisher = _opened(broker)
    for queue in "abc":
        publisher.publish(queue, *_numbers(3, queue))
    for tag in range(1, 9):
        client.send(1, m.BasicAck(tag))
    bodies = _bodies(client)
    assert len(bodies) == 9
    for start in (0, 3, 6):
        assert {(body or b"")[:1] for body in bodies[start : start + 3]} == {b"a", b"b", b"c"}


def test_channel_limit_does_not_count_gets_nor_consumers_without_acks() -> None:
    broker = Loopback()
    client = _opened(broker, "a", "b")
    client.publish("a", b"got")
    _qos(client, 1, is_global=True)
    client.send(1, m.BasicGet(queue="a"), m.BasicConsume(queue="b", no_ack=True), m.BasicConsume(queue="a"))
    client.publish("b", *_numbers(3, "b"))
    client.publish("a", *_numbers(2, "a"))
    assert _bodies(client) == [b"b0", b"b1", b"b2", b"a0"]
    client.send(1, m.BasicAck(1))
    assert _bodies(client) == []


@pytest.mark.parametrize("end", ["reject", "recover", "cancel"])
def test_room_of_the_channel_is_free_again(end: str) -> None:
    broker = Loopback()
    client = _opened(broker, "a", "b")
    _qos(client, 1, is_global=True)
    client.send(1, m.BasicConsume(queue="a", consumer_tag="t"), m.BasicConsume(queue="b"))
    publisher = _opened(broker)
    publisher.publish("a", b"a")
    publisher.publish("b", b"b")
    assert _bodies(client) == [b"a"]
    if end == "reject":
        client.send(1, m.BasicReject(1, requeue=False))
    elif end == "recover":
        client.send(1, m.BasicRecover(requeue=True))
    else:
        client.send(1, m.BasicCancel("t"))
        assert _bodies(client) == []
        client.send(1, m.BasicAck(1))
    assert _bodies(client)[:1] == [b"b"]


def test_what_waits_for_room_for_long_goes_to_others() -> None:
    """A client that is busy for an hour with one message keeps no other for that time."""
    broker = Loopback()
    client = _opened(broker, "a", "b")
    _qos(client, 1, is_global=True)
    client.send(1, m.BasicConsume(queue="a"), m.BasicConsume(queue="b"))
    publisher = _opened(broker)
    publisher.publish("a", b"long")
    publisher.publish("b", b"waits")
    assert _bodies(client) == [b"long"]
    other = _opened(broker)
    other.send(1, m.BasicConsume(queue="b", consumer_tag="o"))
    assert _bodies(other) == []
    broker.tick(1000)
    broker.tick(1000)
    assert _bodies(other) == [b"waits"]
    publisher.publish("b", b"next")
    assert _bodies(other) == [b"next"]
    other.send(1, m.BasicCancel("o"))
    publisher.publish("b", b"last")
    client.send(1, m.BasicAck(1))
    assert _bodies(client) == [b"last"]


def test_what_waits_for_room_stays_while_the_client_goes_on() -> None:
    broker = Loopback()
    client = _opened(broker, "a", "b")
    _qos(client, 1, is_global=True)
    client.send(1, m.BasicConsume(queue="a"), m.BasicConsume(queue="b"))
    publisher = _opened(broker)
    for queue in "ab":
        publisher.publish(queue, *_numbers(9, queue))
    before = broker.submitted
    for tag in range(1, 10):
        broker.tick(1000)
        client.send(1, m.BasicAck(tag))
    assert broker.submitted - before == 9
    assert len(_bodies(client)) == 10


@pytest.mark.parametrize("end", ["cancel", "close", "lose"])
def test_what_was_read_ahead_has_not_failed(end: str) -> None:
    """The client never saw it, so its end costs none of the attempts that a delivery limit grants."""
    broker = Loopback()
    client = _opened(broker)
    client.call(m.QueueDeclare(queue="a", durable=True, arguments={"x-delivery-limit": 0}), m.QueueDeclareOk)
    _qos(client, 100, is_global=False)
    client.send(1, m.BasicConsume(queue="a", consumer_tag="t"))
    _opened(broker).publish("a", *[b"x"] * 150)
    assert len(_bodies(client)) == 100
    if end == "cancel":
        client.send(1, m.BasicCancel("t"), m.ChannelClose(200))
    elif end == "close":
        client.send(1, m.ChannelClose(200))
    else:
        broker.lose(client)
    other = _opened(broker)
    other.send(1, m.BasicConsume(queue="a", no_ack=True))
    assert len(_bodies(other)) == 50


def test_other_channels_are_not_limited() -> None:
    broker = Loopback()
    client = _opened(broker, "a").open(2)
    _qos(client, 1, is_global=True)
    client.send(2, m.BasicConsume(queue="a"))
    client.publish("a", *_numbers(3))
    assert len(_bodies(client)) == 3


def test_rejected_messages_do_not_make_later_acks_urgent() -> None:
    """What a group was told in a command that waits for nobody is no more than what is held."""
    broker = Loopback()
    client = _opened(broker, "a")
    _qos(client, 10, is_global=False)
    client.send(1, m.BasicConsume(queue="a"))
    for tag in range(1, 21):
        client.publish("a", b"x")
        client.send(1, m.BasicReject(tag, requeue=False))
    client.publish("a", b"x")
    before = broker.patient
    client.send(1, m.BasicAck(21))
    assert broker.patient - before == 1
