"""tx.*: what a channel publishes and settles takes effect together, or not at all."""

import pytest

from node.broker import commands
from node.broker.effects import Refused, Reply
from node.session.transaction import SETTLEMENT_BYTES
from node.wire import methods as m
from tests.session.client import Client
from tests.session.loopback import SHARDS, Loopback


def _opened(broker: Loopback, *queues: str) -> Client:
    client = broker.connect().login().open()
    for queue in queues:
        client.call(m.QueueDeclare(queue=queue, durable=True), m.QueueDeclareOk)
    return client


def _selected(broker: Loopback, *queues: str) -> Client:
    client = _opened(broker, *queues)
    client.call(m.TxSelect(), m.TxSelectOk)
    return client


def _count(broker: Loopback, queue: str) -> tuple[int, int]:
    """Ready and unacked messages."""
    record = broker.topology.find_queue("/", queue, None)
    assert not isinstance(record, Exception)
    machine = broker.machine(record.group)
    assert machine is not None
    return machine.counts(record.uid)[:2]


def _group(broker: Loopback, queue: str) -> int:
    return broker.place("/", queue)


def test_published_messages_are_in_no_queue_before_the_commit() -> None:
    """AMQP 1.9.2.3: a commit performs all work since the last one."""
    broker = Loopback()
    client = _selected(broker, "q")
    client.publish("q", b"1", b"2")
    assert _count(broker, "q") == (0, 0)
    client.call(m.TxCommit(), m.TxCommitOk)
    assert _count(broker, "q") == (2, 0)
    assert broker.frontend.pending_bytes == 0


def test_rollback_drops_what_was_published() -> None:
    """AMQP 1.9.2.5: a rollback abandons all publications."""
    broker = Loopback()
    client = _selected(broker, "q")
    client.publish("q", b"1")
    client.call(m.TxRollback(), m.TxRollbackOk)
    client.call(m.TxCommit(), m.TxCommitOk)
    assert _count(broker, "q") == (0, 0)


def test_settlements_take_effect_with_the_commit() -> None:
    broker = Loopback()
    client = _selected(broker, "q")
    _opened(broker).publish("q", b"1", b"2", b"3")
    client.send(1, m.BasicConsume(queue="q", consumer_tag="t"))
    client.take()
    client.send(1, m.BasicAck(1), m.BasicReject(2, requeue=False), m.BasicNack(3, requeue=True))
    assert _count(broker, "q") == (0, 3)
    assert client.take() == []
    client.send(1, m.TxCommit())
    assert [type(item.method) for item in client.take()] == [m.BasicDeliver, m.TxCommitOk]
    assert _count(broker, "q") == (0, 1)


def test_rollback_lets_deliveries_be_settled_again() -> None:
    """As in RabbitMQ: they are not delivered again, the client still has them."""
    broker = Loopback()
    client = _selected(broker, "q")
    _opened(broker).publish("q", b"1", b"2", b"3")
    client.send(1, m.BasicConsume(queue="q"))
    client.take()
    client.send(1, m.BasicAck(2, multiple=True), m.BasicNack(3), m.TxRollback())
    assert client.take_methods() == [m.TxRollbackOk()]
    client.send(1, m.BasicAck(1), m.BasicAck(3, multiple=True), m.TxCommit())
    assert client.take_methods() == [m.TxCommitOk()]
    assert _count(broker, "q") == (0, 0)


def test_ack_of_a_consumer_that_was_cancelled_is_committed() -> None:
    broker = Loopback()
    client = _selected(broker, "q")
    _opened(broker).publish("q", b"1")
    client.send(1, m.BasicConsume(queue="q", consumer_tag="t"))
    client.send(1, m.BasicAck(1), m.BasicCancel("t"), m.TxCommit())
    assert client.take_methods()[-1] == m.TxCommitOk()
    assert _count(broker, "q") == (0, 0)


def test_prefetch_is_not_freed_before_the_commit() -> None:
    broker = Loopback()
    client = _opened(broker, "q")
    client.publish("q", b"1", b"2")
    client.send(1, m.TxSelect(), m.BasicQos(prefetch_count=1), m.BasicConsume(queue="q"))
    client.take()
    client.send(1, m.BasicAck(1))
    assert client.take() == []
    client.send(1, m.TxCommit())
    assert sorted(type(item.method).__name__ for item in client.take()) == ["BasicDeliver", "TxCommitOk"]


def test_commit_is_one_piece_in_each_group() -> None:
    """All or nothing in each shard: what is one submission becomes part of one entry."""
    broker = Loopback()
    one, two = "q", "qq"
    assert _group(broker, one) != _group(broker, two)
    client = _selected(broker, one, two)
    _opened(broker).publish(one, b"1")
    client.send(1, m.BasicGet(queue=one))
    client.publish(one, b"2")
    client.publish(two, b"3")
    client.publish(one, b"4")
    client.send(1, m.BasicAck(1))
    before = broker.submitted
    client.call(m.TxCommit(), m.TxCommitOk)
    assert broker.submitted - before == 2
    assert (_count(broker, one), _count(broker, two)) == ((2, 0), (1, 0))


@pytest.mark.parametrize("held", range(1, SHARDS + 1))
def test_commit_is_answered_when_every_group_has_answered(held: int) -> None:
    broker = Loopback()
    client = _selected(broker, "q", "qq")
    _opened(broker).publish("qq", b"old")
    client.send(1, m.BasicGet(queue="qq"))
    client.take()
    client.publish("q", b"1")
    client.send(1, m.BasicAck(1))
    broker.held[held] = None
    client.send(1, m.TxCommit())
    assert client.take() == []
    broker.tick(11_000)
    assert client.take_methods() == []
    del broker.held[held]
    broker.run()
    assert client.take_methods() == [m.TxCommitOk()]


def test_what_follows_a_commit_waits_for_it() -> None:
    broker = Loopback()
    client = _selected(broker, "q")
    broker.held[_group(broker, "q")] = None
    client.publish("q", b"1")
    client.send(1, m.TxCommit())
    client.publish("q", b"2")
    client.send(1, m.TxRollback())
    broker.held.clear()
    broker.run()
    assert client.take_methods() == [m.TxCommitOk(), m.TxRollbackOk()]
    assert _count(broker, "q") == (1, 0)


def test_mandatory_messages_come_back_before_the_commit_is_answered() -> None:
    broker = Loopback()
    client = _selected(broker)
    client.publish("nowhere", b"1", mandatory=True)
    client.publish("nowhere", b"2")
    assert client.take() == []
    client.send(1, m.TxCommit())
    returned, answer = client.take()
    assert (returned.method.reply_code, returned.body) == (312, b"1")
    assert answer.method == m.TxCommitOk()


def test_mandatory_messages_do_not_come_back_after_a_rollback() -> None:
    client = _selected(Loopback())
    client.publish("nowhere", b"1", mandatory=True)
    client.send(1, m.TxRollback(), m.TxCommit())
    assert client.take_methods() == [m.TxRollbackOk(), m.TxCommitOk()]


def test_missing_exchange_closes_the_channel_when_it_is_published_to() -> None:
    client = _selected(Loopback())
    client.publish("q", b"1", exchange="none")
    (closed,) = client.take_methods()
    assert (closed.reply_code, closed.failed_class_id, closed.failed_method_id) == (404, 60, 40)


@pytest.mark.parametrize("end", ["close", "lose", "error"])
def test_end_of_the_channel_rolls_back(end: str) -> None:
    broker = Loopback()
    client = _selected(broker, "q")
    _opened(broker).publish("q", b"old")
    client.send(1, m.BasicGet(queue="q"))
    client.publish("q", b"1")
    client.send(1, m.BasicAck(1))
    if end == "close":
        client.send(1, m.ChannelClose(200))
    elif end == "lose":
        broker.lose(client)
    else:
        client.send(1, m.BasicAck(7))
    assert _count(broker, "q") == (1, 0)
    assert broker.frontend.pending_bytes == 0


def test_refused_messages_fail_the_commit() -> None:
    """As in RabbitMQ: the channel ends with 406; what was not refused is done."""
    broker = Loopback()
    client = _selected(broker, "q")
    group = _group(broker, "q")
    broker.held[group] = None
    client.publish("q", b"1")
    client.send(1, m.TxCommit())
    ticket = commands.tickets(broker.waiting(group)[-1])[0]
    broker.frontend.on_effects(group, [Reply(ticket, Refused(((0, 0),)))])
    broker.run()
    (closed,) = client.take_methods()
    assert closed.reply_text == "PRECONDITION_FAILED - partial tx completion"
    assert (closed.failed_class_id, closed.failed_method_id) == (90, 20)
    assert broker.frontend.pending_bytes == 0


def test_confirms_and_transactions_exclude_each_other() -> None:
    broker = Loopback()
    client = _opened(broker)
    client.send(1, m.ConfirmSelect(), m.TxSelect())
    assert (
        client.take_methods()[-1].reply_text == "PRECONDITION_FAILED - cannot switch from confirm to tx mode"
    )
    client = _selected(broker)
    client.send(1, m.ConfirmSelect())
    assert (
        client.take_methods()[-1].reply_text == "PRECONDITION_FAILED - cannot switch from tx to confirm mode"
    )


def test_select_twice_keeps_what_was_published() -> None:
    broker = Loopback()
    client = _selected(broker, "q")
    client.publish("q", b"1")
    client.send(1, m.TxSelect(), m.TxCommit())
    assert client.take_methods() == [m.TxSelectOk(), m.TxCommitOk()]
    assert _count(broker, "q") == (1, 0)


def test_transaction_does_not_stop_the_reading_but_is_bounded() -> None:
    """Its commit is yet to be read; so what is too much ends the channel and not the reading."""
    broker = Loopback(connection_bytes_max=1000)
    client = _selected(broker, "q")
    client.publish("q", bytes(2000))
    assert not client.is_paused()
    client.publish("q", b"x")
    (closed,) = client.take_methods()
    assert (closed.reply_code, closed.failed_method_id) == (311, 40)
    assert broker.frontend.pending_bytes == 0
    assert _count(broker, "q") == (0, 0)


def test_settlements_count_in_the_bound() -> None:
    broker = Loopback(connection_bytes_max=SETTLEMENT_BYTES)
    client = _selected(broker, "q")
    _opened(broker).publish("q", *[b"x"] * 9)
    client.send(1, m.BasicConsume(queue="q"))
    client.take()
    for tag in (1, 3, 5):
        client.send(1, m.BasicAck(tag))
    assert [method.reply_code for method in client.take_methods()] == [311]


def test_bound_is_free_again_after_a_commit() -> None:
    broker = Loopback(connection_bytes_max=1000)
    client = _selected(broker, "q")
    for _ in range(5):
        client.publish("q", bytes(900))
        client.call(m.TxCommit(), m.TxCommitOk)
    assert _count(broker, "q") == (5, 0)
