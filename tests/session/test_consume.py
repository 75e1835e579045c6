"""Consuming: deliveries, acknowledgements, windows, slow sockets and the end of consumers."""

from typing import Any

import pytest

from node.broker import commands, topology_commands
from node.wire import methods as m
from tests.session.client import Client
from tests.session.loopback import SHARDS, Loopback


def _ready(broker: Loopback, *capabilities: str) -> Client:
    client = broker.connect().login(capabilities=capabilities).open()
    client.call(m.QueueDeclare(queue="q", durable=True), m.QueueDeclareOk)
    return client


def _ready_count(client: Client) -> int:
    return client.call(m.QueueDeclare(queue="q", passive=True), m.QueueDeclareOk, channel=9).message_count


def _watch(broker: Loopback) -> Client:
    return broker.connect().login().open(9)


def _tags_and_bodies(client: Client) -> list[tuple[int, bytes | None, bool]]:
    return [(item.method.delivery_tag, item.body, item.method.redelivered) for item in client.take()]


def test_consumer_gets_what_is_there_and_what_comes_in_order() -> None:
    client = _ready(Loopback())
    client.publish("q", b"1", b"2")
    client.send(1, m.BasicConsume(queue="q", consumer_tag="t"))
    client.publish("q", b"3")
    ok, *deliveries = client.take()
    assert m.BasicConsumeOk("t") == ok.method
    assert [item.body for item in deliveries] == [b"1", b"2", b"3"]
    assert m.BasicDeliver("t", 3, redelivered=False, exchange="", routing_key="q") == deliveries[-1].method


def test_prefetch_bounds_what_is_unacknowledged() -> None:
    client = _ready(Loopback())
    client.call(m.BasicQos(prefetch_count=2), m.BasicQosOk)
    client.call(m.BasicConsume(queue="q"), m.BasicConsumeOk)
    client.publish("q", *[b"%d" % number for number in range(5)])
    assert _tags_and_bodies(client) == [(1, b"0", False), (2, b"1", False)]
    client.send(1, m.BasicAck(1))
    assert _tags_and_bodies(client) == [(3, b"2", False)]
    client.send(1, m.BasicAck(3, multiple=True))
    assert _tags_and_bodies(client) == [(4, b"3", False), (5, b"4", False)]


def test_two_consumers_share_a_run_and_read_their_own_records() -> None:
    broker = Loopback()
    one, two = _ready(broker), _ready(broker)
    for client in (one, two):
        client.call(m.BasicConsume(queue="q"), m.BasicConsumeOk)
    one.publish("q", *[b"%d" % number for number in range(10)])
    bodies = [[item.body for item in client.take()] for client in (one, two)]
    assert sorted(b"%d" % number for number in range(10)) == sorted(bodies[0] + bodies[1])  # type: ignore[type-var]
    assert all(bodies)


def test_requeued_messages_come_again_marked_redelivered_and_rejected_ones_do_not() -> None:
    client = _ready(Loopback())
    client.publish("q", b"1", b"2")
    client.call(m.BasicQos(prefetch_count=1), m.BasicQosOk)
    client.send(1, m.BasicConsume(queue="q"))
    client.take()
    client.send(1, m.BasicReject(1, requeue=True))
    assert _tags_and_bodies(client) == [(2, b"1", True)]
    client.send(1, m.BasicReject(2, requeue=False))
    assert _tags_and_bodies(client) == [(3, b"2", False)]


def test_recover_returns_everything_unacknowledged() -> None:
    client = _ready(Loopback())
    client.publish("q", b"1")
    client.send(1, m.BasicGet(queue="q"))
    client.take()
    client.call(m.BasicRecover(requeue=True), m.BasicRecoverOk)
    client.send(1, m.BasicGet(queue="q"))
    assert _tags_and_bodies(client) == [(2, b"1", True)]


def test_no_ack_deliveries_are_settled_when_written() -> None:
    broker = Loopback()
    client = _ready(broker)
    client.call(m.BasicConsume(queue="q", no_ack=True), m.BasicConsumeOk)
    client.publish("q", *[b"x"] * 5000)
    assert len(client.take()) == 5000
    assert dict(broker.machines[broker.place("/", "q")].live()) == {}


def test_slow_socket_keeps_slices_and_writes_them_later() -> None:
    broker = Loopback()
    client = _ready(broker)
    client.call(m.BasicConsume(queue="q"), m.BasicConsumeOk)
    broker.writable(client, is_writable=False)
    client.publish("q", b"1", b"2")
    assert client.take() == []
    broker.writable(client, is_writable=True)
    assert _tags_and_bodies(client) == [(1, b"1", False), (2, b"2", False)]


def test_client_that_asks_and_does_not_read_is_not_read() -> None:
    broker = Loopback(connection_bytes_max=10_000)
    client = _ready(broker)
    for _ in range(4):
        client.publish("q", b"x" * 4000)
    broker.writable(client, is_writable=False)
    for _ in range(3):
        client.send(1, m.BasicGet(queue="q"))
    assert client.is_paused()
    broker.writable(client, is_writable=True)
    assert not client.is_paused()
    assert broker.frontend.pending_bytes == 0


def test_output_of_a_turn_is_bounded_and_the_rest_follows() -> None:
    broker = Loopback(output_bytes_max=2000)
    client = _ready(broker)
    for number in range(10):
        client.publish("q", b"%d" % number * 1000)
    client.send(1, m.BasicConsume(queue="q"))
    assert len(client.take()) == 11
    assert not broker.frontend.has_work


def test_cancel_returns_what_was_assigned_and_not_written() -> None:
    broker = Loopback()
    client = _ready(broker)
    client.call(m.BasicConsume(queue="q", consumer_tag="t"), m.BasicConsumeOk)
    broker.writable(client, is_writable=False)
    client.publish("q", b"1", b"2")
    client.call(m.BasicCancel("t"), m.BasicCancelOk)
    broker.writable(client, is_writable=True)
    assert client.take() == []
    assert _ready_count(_watch(broker)) == 2


def test_cancel_of_unknown_tag_is_answered() -> None:
    client = _ready(Loopback())
    assert m.BasicCancelOk("none") == client.call(m.BasicCancel("none"), m.BasicCancelOk)


def test_acks_after_cancel_still_count() -> None:
    broker = Loopback()
    client = _ready(broker)
    client.call(m.BasicConsume(queue="q", consumer_tag="t"), m.BasicConsumeOk)
    client.publish("q", b"1")
    client.take()
    client.call(m.BasicCancel("t"), m.BasicCancelOk)
    client.send(1, m.BasicAck(1))
    assert dict(broker.machines[broker.place("/", "q")].live()) == {}


def test_acks_sent_while_a_cancel_waits_still_count() -> None:
    broker = Loopback()
    client = _ready(broker)
    client.call(m.BasicConsume(queue="q", consumer_tag="t"), m.BasicConsumeOk)
    client.publish("q", b"1")
    client.take()
    client.send(1, m.BasicCancel("t"), m.BasicAck(1))
    assert dict(broker.machines[broker.place("/", "q")].live()) == {}


def test_closed_channel_returns_its_messages() -> None:
    broker = Loopback()
    client = _ready(broker)
    client.publish("q", b"1", b"2", b"3")
    client.send(1, m.BasicConsume(queue="q"))
    client.send(1, m.BasicAck(1))
    client.send(1, m.ChannelClose())
    assert _ready_count(_watch(broker)) == 2


def test_lost_connection_returns_its_messages_and_consumers() -> None:
    broker = Loopback()
    client = _ready(broker)
    client.publish("q", b"1", b"2")
    client.send(1, m.BasicConsume(queue="q"))
    broker.lose(client)
    watcher = _watch(broker)
    found = watcher.call(m.QueueDeclare(queue="q", passive=True), m.QueueDeclareOk, channel=9)
    assert m.QueueDeclareOk("q", 2, 0) == found


def test_duplicate_tag_closes_the_connection_with_530() -> None:
    client = _ready(Loopback())
    client.call(m.BasicConsume(queue="q", consumer_tag="t"), m.BasicConsumeOk)
    close = client.call(m.BasicConsume(queue="q", consumer_tag="t"), m.ConnectionClose)
    assert (close.reply_code, close.reply_text) == (530, "NOT_ALLOWED - attempt to reuse consumer tag 't'")
    client.send(0, m.ConnectionCloseOk())
    assert client.is_closed


@pytest.mark.parametrize(
    ("argument", "value", "reason"),
    [
        ("x-priority", "high", '"expected integer, got longstr"'),
        ("x-priority", True, '"expected integer, got bool"'),
        ("x-consumer-timeout", "long", '"expected integer, got longstr"'),
        ("x-consumer-timeout", -1, "{value_negative,-1}"),
    ],
)
def test_wrong_argument_of_a_consumer_closes_the_channel(argument: str, value: Any, reason: str) -> None:
    client = _ready(Loopback())
    client.send(1, m.BasicConsume(queue="q", arguments={argument: value}))
    (close,) = client.take_methods()
    text = f"PRECONDITION_FAILED - invalid arg '{argument}' for queue 'q' in vhost '/': {reason}"
    assert (close.reply_code, close.reply_text) == (406, text)


def test_missing_queue_counts_before_a_wrong_argument() -> None:
    """As in RabbitMQ, which looks at the arguments once it has the queue."""
    client = _ready(Loopback())
    client.send(1, m.BasicConsume(queue="none", arguments={"x-priority": "high"}))
    assert [method.reply_code for method in client.take_methods()] == [404]


def test_no_local_is_accepted_and_ignored() -> None:
    """As in RabbitMQ."""
    client = _ready(Loopback())
    consume = m.BasicConsume(
        queue="q", no_local=True, arguments={"x-priority": -5, "x-consumer-timeout": 1000}
    )
    client.call(consume, m.BasicConsumeOk)
    client.publish("q", b"mine")
    assert [item.body for item in client.take()] == [b"mine"]


def test_exclusive_consumer_keeps_others_away() -> None:
    broker = Loopback()
    one, two = _ready(broker), _ready(broker)
    one.call(m.BasicConsume(queue="q", exclusive=True), m.BasicConsumeOk)
    close = two.call(m.BasicConsume(queue="q"), m.ChannelClose)
    assert close.reply_text == "ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use"
    assert (close.failed_class_id, close.failed_method_id) == (60, 20)


def test_server_makes_a_consumer_tag() -> None:
    client = _ready(Loopback())
    tags = [client.call(m.BasicConsume(queue="q"), m.BasicConsumeOk).consumer_tag for _ in range(2)]
    assert all(tag.startswith("amq.ctag-") and len(tag) == 31 for tag in tags)
    assert tags[0] != tags[1]


def test_deleted_queue_cancels_consumers_that_can_be_told() -> None:
    broker = Loopback()
    told, untold = _ready(broker, "consumer_cancel_notify"), _ready(broker)
    for client in (told, untold):
        client.call(m.BasicConsume(queue="q", consumer_tag="t"), m.BasicConsumeOk)
    _watch(broker).call(m.QueueDelete(queue="q"), m.QueueDeleteOk, channel=9)
    assert [m.BasicCancel("t", no_wait=True)] == told.take_methods()
    assert untold.take() == []


def test_who_deletes_a_queue_hears_of_it_before_its_consumers_are_cancelled() -> None:
    """As on RabbitMQ: a client that leaves when its consumer is cancelled has had its answer."""
    client = _ready(Loopback(), "consumer_cancel_notify")
    client.call(m.BasicConsume(queue="q", consumer_tag="t"), m.BasicConsumeOk)
    client.take()
    client.send(1, m.QueueDelete(queue="q"))
    assert client.take_methods() == [m.QueueDeleteOk(0), m.BasicCancel("t", no_wait=True)]


def test_queue_with_single_active_consumer_refuses_an_exclusive_one() -> None:
    client = _ready(Loopback())
    single = {"x-single-active-consumer": True}
    client.call(m.QueueDeclare(queue="s", arguments=single), m.QueueDeclareOk)
    close = client.call(m.BasicConsume(queue="s", exclusive=True), m.ChannelClose)
    assert close.reply_text == "ACCESS_REFUSED - queue 's' in vhost '/' in exclusive use"


def test_get_says_how_many_remain_and_when_there_are_none() -> None:
    client = _ready(Loopback())
    client.publish("q", b"1", b"2")
    client.send(1, m.BasicGet(queue="q"))
    (got,) = client.take()
    assert (m.BasicGetOk(1, False, "", "q", 1), b"1") == (got.method, got.body)
    client.send(1, m.BasicGet(queue="q", no_ack=True))
    client.take()
    client.call(m.BasicGet(queue="q"), m.BasicGetEmpty)


def test_got_messages_are_settled_by_their_tag() -> None:
    broker = Loopback()
    client = _ready(broker)
    client.publish("q", b"1", b"2")
    client.send(1, m.BasicGet(queue="q"))
    client.send(1, m.BasicGet(queue="q"))
    client.send(1, m.BasicAck(2, multiple=True))
    assert dict(broker.machines[broker.place("/", "q")].live()) == {}


def test_qos_with_a_size_is_not_implemented() -> None:
    close = _ready(Loopback()).call(m.BasicQos(prefetch_size=5), m.ConnectionClose)
    assert (close.reply_code, close.reply_text) == (540, "NOT_IMPLEMENTED - prefetch_size!=0 (5)")


def test_recover_without_requeue_is_not_implemented() -> None:
    close = _ready(Loopback()).call(m.BasicRecover(requeue=False), m.ConnectionClose)
    assert close.reply_text == "NOT_IMPLEMENTED - requeue=false"


def test_reset_group_closes_the_connections_with_state_there() -> None:
    broker = Loopback()
    client, idle = _ready(broker), _watch(broker)
    client.call(m.BasicConsume(queue="q"), m.BasicConsumeOk)
    broker.frontend.on_group_reset(broker.place("/", "q"))
    broker.run()
    (close,) = client.take_methods()
    assert close.reply_code == 320
    assert idle.take() == []


def test_reset_group_gives_up_publishes_that_wait_for_it() -> None:
    broker = Loopback(connection_bytes_max=1000)
    client = _ready(broker)
    group = broker.place("/", "q")
    broker.held[group] = None
    client.publish("q", b"x" * 600)
    broker.frontend.on_group_reset(group)
    broker.run()
    assert [close.reply_code for close in client.take_methods()] == [320]
    assert broker.frontend.pending_bytes == 0


def test_queue_of_another_node_is_found_after_a_barrier() -> None:
    """A queue declared elsewhere a moment ago is not missing."""
    broker = Loopback()
    client = _watch(broker)
    broker.submit_elsewhere(
        0,
        topology_commands.declare_queue(
            7, "/", "far", durable=True, exclusive=False, auto_delete=False, arguments={}, group=1, session=3
        ),
    )
    client.call(m.BasicConsume(queue="far"), m.BasicConsumeOk, channel=9)


def test_vhost_that_is_deleted_takes_its_connections_with_it() -> None:
    broker = Loopback()
    for command in (
        topology_commands.add_vhost(0, "v"),
        topology_commands.set_permissions(0, "guest", "v", ".*", ".*", ".*"),
    ):
        broker.submit_elsewhere(0, command)
    broker.run()
    client = broker.connect().login(vhost="v").open()
    broker.submit_elsewhere(0, topology_commands.delete_vhost(0, "v"))
    broker.run()
    (close,) = client.take_methods()
    assert close.reply_text == "CONNECTION_FORCED - vhost 'v' is deleted"


def test_unknown_consumer_effects_are_dropped() -> None:
    """A delivery may cross with the end of its channel."""
    broker = Loopback()
    _ready(broker)
    broker.submit(1, commands.detach(0, 77))
    broker.run()


def test_an_ack_is_urgent_once_half_of_the_window_is_taken() -> None:
    """Nobody waits for an ack while the group has credit left for its consumer; then deliveries would stop and go."""
    broker = Loopback()
    client = _ready(broker)
    client.call(m.BasicQos(prefetch_count=4), m.BasicQosOk)
    client.call(m.BasicConsume(queue="q"), m.BasicConsumeOk)
    client.publish("q", b"1")
    client.send(1, m.BasicAck(1))
    assert broker.patient == 1
    client.publish("q", b"2", b"3")
    client.send(1, m.BasicAck(2))
    assert broker.patient == 1


def test_every_ack_of_a_consumer_that_takes_one_message_a_time_is_urgent() -> None:
    broker = Loopback()
    client = _ready(broker)
    client.call(m.BasicQos(prefetch_count=1), m.BasicQosOk)
    client.call(m.BasicConsume(queue="q"), m.BasicConsumeOk)
    client.publish("q", b"1", b"2")
    client.send(1, m.BasicAck(1))
    client.send(1, m.BasicAck(2))
    assert broker.patient == 0


READ_AHEAD = 100


def _prefetching(broker: Loopback, published: int) -> Client:
    client = _ready(broker)
    client.call(m.BasicQos(prefetch_count=READ_AHEAD), m.BasicQosOk)
    client.call(m.BasicConsume(queue="q", consumer_tag="t"), m.BasicConsumeOk)
    client.publish("q", *[b"%d" % number for number in range(published)])
    return client


def test_read_ahead_never_passes_the_prefetch() -> None:
    """A group assigns more than the client may hold; the rest waits at the node."""
    broker = Loopback()
    client = _prefetching(broker, 3 * READ_AHEAD)
    assert [tag for tag, _, _ in _tags_and_bodies(client)] == list(range(1, READ_AHEAD + 1))


def test_an_ack_lets_what_was_read_ahead_go_at_once() -> None:
    """Without waiting for the group to commit it; in order, and each message once."""
    broker = Loopback()
    client = _prefetching(broker, 2 * READ_AHEAD)
    client.take()
    broker.held[1 + len("/q") % SHARDS] = None  # nothing is applied from here on
    client.send(1, m.BasicAck(10, multiple=True))
    assert _tags_and_bodies(client) == [
        (READ_AHEAD + number, b"%d" % (READ_AHEAD + number - 1), False) for number in range(1, 11)
    ]


def test_what_was_read_ahead_goes_back_to_its_place_after_cancel() -> None:
    """Marked redelivered, for by then another consumer may have got later ones."""
    broker = Loopback()
    client = _prefetching(broker, 2 * READ_AHEAD)
    client.take()
    client.call(m.BasicCancel("t"), m.BasicCancelOk)
    client.send(1, m.BasicConsume(queue="q", consumer_tag="u"))
    _, *deliveries = client.take()
    found = [(item.body, item.method.redelivered) for item in deliveries]
    assert found == [(b"%d" % number, True) for number in range(READ_AHEAD, 2 * READ_AHEAD)]


def test_a_consumer_that_takes_few_at_a_time_is_assigned_no_more() -> None:
    """Those who want few share messages fairly: what one is assigned no other gets."""
    broker = Loopback()
    client = _ready(broker)
    client.call(m.BasicQos(prefetch_count=READ_AHEAD - 1), m.BasicQosOk)
    client.call(m.BasicConsume(queue="q"), m.BasicConsumeOk)
    client.publish("q", *[b"x"] * (READ_AHEAD + 9))
    client.take()
    assert _ready_count(_watch(broker)) == 10


def test_what_was_read_ahead_comes_after_recover_ok() -> None:
    """A client takes what it gets before the answer for returned."""
    client = _prefetching(Loopback(), 2 * READ_AHEAD)
    client.take()
    client.send(1, m.BasicRecover(requeue=True))
    first, *deliveries = client.take()
    assert isinstance(first.method, m.BasicRecoverOk)
    assert len(deliveries) == READ_AHEAD
