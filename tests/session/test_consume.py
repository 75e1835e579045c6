"""Consuming: deliveries, acknowledgements, windows, slow sockets and the end of consumers."""

from node.broker import commands, topology_commands
from node.wire import methods as m
from tests.session.client import Client
from tests.session.loopback import Loopback


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
    assert [b"1", b"2", b"3"] == [item.body for item in deliveries]
    assert m.BasicDeliver("t", 3, redelivered=False, exchange="", routing_key="q") == deliveries[-1].method


def test_prefetch_bounds_what_is_unacknowledged() -> None:
    client = _ready(Loopback())
    client.call(m.BasicQos(prefetch_count=2), m.BasicQosOk)
    client.call(m.BasicConsume(queue="q"), m.BasicConsumeOk)
    client.publish("q", *[b"%d" % number for number in range(5)])
    assert [(1, b"0", False), (2, b"1", False)] == _tags_and_bodies(client)
    client.send(1, m.BasicAck(1))
    assert [(3, b"2", False)] == _tags_and_bodies(client)
    client.send(1, m.BasicAck(3, multiple=True))
    assert [(4, b"3", False), (5, b"4", False)] == _tags_and_bodies(client)


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
    assert [(2, b"1", True)] == _tags_and_bodies(client)
    client.send(1, m.BasicReject(2, requeue=False))
    assert [(3, b"2", False)] == _tags_and_bodies(client)


def test_recover_returns_everything_unacknowledged() -> None:
    client = _ready(Loopback())
    client.publish("q", b"1")
    client.send(1, m.BasicGet(queue="q"))
    client.take()
    client.call(m.BasicRecover(requeue=True), m.BasicRecoverOk)
    client.send(1, m.BasicGet(queue="q"))
    assert [(2, b"1", True)] == _tags_and_bodies(client)


def test_no_ack_deliveries_are_settled_when_written() -> None:
    broker = Loopback()
    client = _ready(broker)
    client.call(m.BasicConsume(queue="q", no_ack=True), m.BasicConsumeOk)
    client.publish("q", *[b"x"] * 5000)
    assert 5000 == len(client.take())
    assert {} == dict(broker.machines[broker.place("/", "q")].live())


def test_slow_socket_keeps_slices_and_writes_them_later() -> None:
    broker = Loopback()
    client = _ready(broker)
    client.call(m.BasicConsume(queue="q"), m.BasicConsumeOk)
    broker.writable(client, is_writable=False)
    client.publish("q", b"1", b"2")
    assert [] == client.take()
    broker.writable(client, is_writable=True)
    assert [(1, b"1", False), (2, b"2", False)] == _tags_and_bodies(client)


def test_output_of_a_turn_is_bounded_and_the_rest_follows() -> None:
    broker = Loopback(output_bytes_max=2000)
    client = _ready(broker)
    for number in range(10):
        client.publish("q", b"%d" % number * 1000)
    client.send(1, m.BasicConsume(queue="q"))
    assert 11 == len(client.take())
    assert not broker.frontend.has_work


def test_cancel_returns_what_was_assigned_and_not_written() -> None:
    broker = Loopback()
    client = _ready(broker)
    client.call(m.BasicConsume(queue="q", consumer_tag="t"), m.BasicConsumeOk)
    broker.writable(client, is_writable=False)
    client.publish("q", b"1", b"2")
    client.call(m.BasicCancel("t"), m.BasicCancelOk)
    broker.writable(client, is_writable=True)
    assert [] == client.take()
    assert 2 == _ready_count(_watch(broker))


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
    assert {} == dict(broker.machines[broker.place("/", "q")].live())


def test_closed_channel_returns_its_messages() -> None:
    broker = Loopback()
    client = _ready(broker)
    client.publish("q", b"1", b"2", b"3")
    client.send(1, m.BasicConsume(queue="q"))
    client.send(1, m.BasicAck(1))
    client.send(1, m.ChannelClose())
    assert 2 == _ready_count(_watch(broker))


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
    assert (530, "NOT_ALLOWED - attempt to reuse consumer tag 't'") == (close.reply_code, close.reply_text)
    client.send(0, m.ConnectionCloseOk())
    assert client.is_closed


def test_exclusive_consumer_keeps_others_away() -> None:
    broker = Loopback()
    one, two = _ready(broker), _ready(broker)
    one.call(m.BasicConsume(queue="q", exclusive=True), m.BasicConsumeOk)
    close = two.call(m.BasicConsume(queue="q"), m.ChannelClose)
    assert "ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use" == close.reply_text
    assert (60, 20) == (close.failed_class_id, close.failed_method_id)


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
    assert [] == untold.take()


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
    assert {} == dict(broker.machines[broker.place("/", "q")].live())


def test_qos_with_a_size_is_not_implemented() -> None:
    close = _ready(Loopback()).call(m.BasicQos(prefetch_size=5), m.ConnectionClose)
    assert (540, "NOT_IMPLEMENTED - prefetch_size!=0 (5)") == (close.reply_code, close.reply_text)


def test_recover_without_requeue_is_not_implemented() -> None:
    close = _ready(Loopback()).call(m.BasicRecover(requeue=False), m.ConnectionClose)
    assert "NOT_IMPLEMENTED - requeue=false" == close.reply_text


def test_reset_group_closes_the_connections_with_state_there() -> None:
    broker = Loopback()
    client, idle = _ready(broker), _watch(broker)
    client.call(m.BasicConsume(queue="q"), m.BasicConsumeOk)
    broker.frontend.on_group_reset(broker.place("/", "q"))
    broker.run()
    (close,) = client.take_methods()
    assert 320 == close.reply_code
    assert [] == idle.take()


def test_reset_group_gives_up_publishes_that_wait_for_it() -> None:
    broker = Loopback(connection_bytes_max=1000)
    client = _ready(broker)
    group = broker.place("/", "q")
    broker.held[group] = None
    client.publish("q", b"x" * 600)
    broker.frontend.on_group_reset(group)
    broker.run()
    assert [320] == [close.reply_code for close in client.take_methods()]
    assert 0 == broker.frontend.pending_bytes


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
    assert "CONNECTION_FORCED - vhost 'v' is deleted" == close.reply_text


def test_unknown_consumer_effects_are_dropped() -> None:
    """A delivery may cross with the end of its channel."""
    broker = Loopback()
    _ready(broker)
    broker.submit(1, commands.detach(0, 77))
    broker.run()
