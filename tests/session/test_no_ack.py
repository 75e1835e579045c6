"""Consumers without acks: what is written to their sockets is settled, in ranges and with little haste."""

import pytest

from node.broker import queue
from node.session.deliver import SETTLED_BYTES_MAX
from node.wire import methods as m
from tests.session.loopback import Loopback
from tests.session.ready import ready, ready_count, watched


def test_deliveries_without_acks_are_settled_together_at_the_next_tick() -> None:
    """Nobody waits for it: a command for each would cost as much as the delivery."""
    broker = Loopback()
    client = ready(broker)
    client.call(m.BasicConsume(queue="q", no_ack=True), m.BasicConsumeOk)
    shard = broker.place("/", "q")
    client.publish("q", b"1")
    before = broker.submitted
    client.publish("q", b"2", b"3")
    assert broker.submitted - before == 1
    assert len(broker.machines[shard].live()) == 2
    broker.tick(50)
    assert broker.submitted - before == 2
    assert dict(broker.machines[shard].live()) == {}
    broker.tick(50)
    assert broker.submitted - before == 2


def test_a_small_window_without_acks_opens_without_a_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The session and the machine mean the same window, half of which is news to the group."""
    monkeypatch.setattr(queue, "NO_ACK_WINDOW", 1)
    client = ready(Loopback())
    client.call(m.BasicConsume(queue="q", no_ack=True), m.BasicConsumeOk)
    client.publish("q", b"1", b"2", b"3")
    assert len(client.take()) == 3


def test_large_deliveries_without_acks_do_not_wait_for_a_tick_to_be_settled() -> None:
    """Until then the group keeps their bodies."""
    broker = Loopback()
    client = ready(broker)
    client.call(m.BasicConsume(queue="q", no_ack=True), m.BasicConsumeOk)
    client.publish("q", bytes(SETTLED_BYTES_MAX // 2))
    assert broker.patient == 0
    client.publish("q", bytes(SETTLED_BYTES_MAX // 2))
    assert broker.patient == 1
    assert dict(broker.machines[broker.place("/", "q")].live()) == {}


@pytest.mark.parametrize("end", ["cancel", "close the channel", "lose the connection"])
def test_what_was_sent_without_acks_does_not_come_back_when_its_consumer_ends(end: str) -> None:
    """It was settled when it was written, whether or not the group had been told."""
    broker = Loopback()
    client, watch = ready(broker), watched(broker)
    client.call(m.BasicConsume(queue="q", consumer_tag="t", no_ack=True), m.BasicConsumeOk)
    client.publish("q", b"1", b"2")
    assert len(client.take()) == 2
    if end == "cancel":
        client.call(m.BasicCancel(consumer_tag="t"), m.BasicCancelOk)
    elif end == "close the channel":
        client.call(m.ChannelClose(200, "", 0, 0), m.ChannelCloseOk)
    else:
        broker.lose(client)
    assert dict(broker.machines[broker.place("/", "q")].live()) == {}
    assert ready_count(watch) == 0


def test_what_is_sent_without_acks_while_its_consumer_is_cancelled_does_not_come_back() -> None:
    """A message that the group assigned before it knew still goes out."""
    broker = Loopback()
    client = ready(broker)
    client.call(m.BasicConsume(queue="q", consumer_tag="t", no_ack=True), m.BasicConsumeOk)
    shard = broker.place("/", "q")
    broker.held[shard] = None
    client.publish("q", b"1")
    client.send(1, m.BasicCancel(consumer_tag="t"))
    del broker.held[shard]
    broker.run()
    delivery, cancelled = client.take()
    assert (delivery.body, cancelled.method) == (b"1", m.BasicCancelOk("t"))
    assert dict(broker.machines[shard].live()) == {}
