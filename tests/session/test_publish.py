"""Publishing: routes, returns, confirms, order and back-pressure."""

from node.broker.queue import QueueMachine
from node.wire import methods as m
from tests.session.client import Client, Received, content
from tests.session.loopback import NODE, Loopback

_WRONG_SECOND = (("", b"1"), ("in", b"2"), ("", b"3"))


def _ready(broker: Loopback, *, confirms: bool = True) -> Client:
    client = broker.connect().login().open()
    client.call(m.QueueDeclare(queue="q", durable=True), m.QueueDeclareOk)
    if confirms:
        client.call(m.ConfirmSelect(), m.ConfirmSelectOk)
    return client


def test_publish_is_confirmed_when_its_group_has_it_and_not_before() -> None:
    broker = Loopback()
    client = _ready(broker)
    group = broker.place("/", "q")
    broker.held[group] = None
    client.publish("q", b"a", b"b", b"c")
    assert client.take() == []
    del broker.held[group]
    broker.run()
    assert [m.BasicAck(3, multiple=True)] == client.take_methods()
    assert client.call(m.QueueDeclare(queue="q", passive=True), m.QueueDeclareOk).message_count == 3


def test_publish_run_is_one_command() -> None:
    broker = Loopback()
    client = _ready(broker)
    client.publish("q", b"the first also creates the queue in its shard")
    client.take()
    before = broker.submitted
    client.publish("q", *[b"x"] * 200)
    assert before + 1 == broker.submitted
    assert [m.BasicAck(201, multiple=True)] == client.take_methods()


def test_messages_of_a_burst_to_the_same_queues_are_one_command_whatever_their_keys() -> None:
    broker = Loopback()
    client = _ready(broker)
    client.call(m.ExchangeDeclare(exchange="t", type="topic"), m.ExchangeDeclareOk)
    client.call(m.QueueDeclare(queue="p", durable=True), m.QueueDeclareOk)
    client.call(m.QueueBind(queue="q", exchange="t", routing_key="*.even"), m.QueueBindOk)
    client.call(m.QueueBind(queue="p", exchange="t", routing_key="*.odd"), m.QueueBindOk)
    keys = [f"{at}.{'odd' if at % 2 else 'even'}" for at in range(10)]
    for key in keys[:2]:  # the first message to a queue has its group create it
        client.publish(key, b"", exchange="t")
    assert [_get(client, queue).body for queue in ("q", "p")] == [b"", b""]
    client.take()
    before = broker.submitted
    client.write(b"".join(content(1, key, key.encode(), exchange="t") for key in keys))
    assert before + 2 == broker.submitted
    assert [m.BasicAck(12, multiple=True)] == client.take_methods()
    for queue, expected in (("q", keys[::2]), ("p", keys[1::2])):
        got = [_get(client, queue) for _ in expected]
        assert [(received.method.routing_key, received.body) for received in got] == [
            (key, key.encode()) for key in expected
        ]


def test_queue_gets_a_burst_in_order_though_its_messages_go_different_ways() -> None:
    """AMQP 4.7: what comes before the run of both queues and after it must not be joined."""
    broker = Loopback()
    client = _ready(broker)
    client.call(m.ExchangeDeclare(exchange="d", type="direct"), m.ExchangeDeclareOk)
    client.call(m.QueueDeclare(queue="p", durable=True), m.QueueDeclareOk)
    for queue, key in (("q", "one"), ("q", "both"), ("p", "both")):
        client.call(m.QueueBind(queue=queue, exchange="d", routing_key=key), m.QueueBindOk)
    keys = ["one", "both", "one", "one", "both", "both", "one"]
    client.write(b"".join(content(1, key, bytes([at]), exchange="d") for at, key in enumerate(keys)))
    assert [m.BasicAck(7, multiple=True)] == client.take_methods()
    assert [_got(client) for _ in keys] == [bytes([at]) for at in range(7)]


def test_burst_is_cut_where_a_run_would_be_too_large() -> None:
    """A live message keeps its entry: runs are bounded however many are joined."""
    broker = Loopback()
    client = _ready(broker)
    client.publish("q", b"")
    assert _got(client) == b""
    before = broker.submitted
    bodies = [bytes([at]) * 100_000 for at in range(5)]
    client.publish("q", *bodies)
    assert before + 3 == broker.submitted
    assert [m.BasicAck(6, multiple=True)] == client.take_methods()
    assert [_got(client) for _ in bodies] == bodies


def test_group_without_quorum_holds_up_no_confirm_of_another() -> None:
    broker = Loopback()
    client = _ready(broker)
    client.call(m.QueueDeclare(queue="qq", durable=True), m.QueueDeclareOk)
    broker.held[broker.place("/", "qq")] = None
    client.write(b"".join(content(1, key, b"x") for key in ("q", "qq", "q")))
    assert [m.BasicAck(1, multiple=False), m.BasicAck(3, multiple=False)] == client.take_methods()
    broker.held.clear()
    broker.run()
    assert [m.BasicAck(2, multiple=False)] == client.take_methods()


def test_burst_waits_from_its_first_message_that_no_queue_takes() -> None:
    """One barrier serves all that came with it."""
    broker = Loopback()
    client = _ready(broker)
    broker.held[0] = None
    keys = ("q", "nowhere", "q", "nobody")
    client.write(b"".join(content(1, key, key.encode(), mandatory=True) for key in keys))
    assert [m.BasicAck(1, multiple=False)] == client.take_methods()
    assert broker.barriers_waiting == 1
    del broker.held[0]
    broker.run()
    received = client.take()
    assert [item.body for item in received if item.body is not None] == [b"nowhere", b"nobody"]
    assert received[-1].method == m.BasicAck(4, multiple=True)
    assert broker.frontend.pending_bytes == 0


def test_messages_before_a_refused_one_are_published_and_later_ones_are_not() -> None:
    broker = Loopback()
    client, watcher = _ready(broker), _ready(broker)
    client.call(m.ExchangeDeclare(exchange="in", type="fanout", internal=True), m.ExchangeDeclareOk)
    client.write(b"".join(content(1, "q", body, exchange=name) for name, body in _WRONG_SECOND))
    (close,) = client.take_methods()
    assert close.reply_code == 403
    assert _got(watcher) == b"1"
    assert _got(watcher) is None
    assert broker.frontend.pending_bytes == 0


def test_end_of_an_epoch_forgets_the_ways_of_all_clients() -> None:
    """A queue's creation may end with the epoch: whoever publishes next has to see to it again."""
    broker = Loopback()
    client = _ready(broker)
    client.publish("q", b"1")
    client.take()
    group = broker.place("/", "q")
    broker.machines[group] = QueueMachine(NODE)
    broker.frontend.on_group_reset(group)
    client.publish("q", b"2")
    assert _got(client) == b"2"


def test_mandatory_message_without_queue_is_returned_before_its_confirm() -> None:
    client = _ready(Loopback())
    client.publish("nowhere", b"lost", mandatory=True)
    returned, ack = client.take()
    assert m.BasicReturn(312, "NO_ROUTE", "", "nowhere") == returned.method
    assert returned.body == b"lost"
    assert m.BasicAck(1, multiple=False) == ack.method


def test_return_comes_before_the_answers_to_what_was_sent_after_the_message() -> None:
    broker = Loopback()
    client = _ready(broker, confirms=False)
    broker.held[0] = None
    client.publish("nowhere", b"lost", mandatory=True)
    client.send(1, m.ConfirmSelect(), m.ChannelFlow(active=True), m.AccessRequest())
    client.publish("q", b"counted")
    assert client.take() == []
    del broker.held[0]
    broker.run()
    assert client.take_methods() == [
        m.BasicReturn(312, "NO_ROUTE", "", "nowhere"),
        m.ConfirmSelectOk(),
        m.ChannelFlowOk(active=True),
        m.AccessRequestOk(1),
        m.BasicAck(1, multiple=False),
    ]


def test_unroutable_message_waits_for_the_metadata_and_so_do_later_ones() -> None:
    """A binding that was committed elsewhere must count; the order of a channel's messages stays."""
    broker = Loopback()
    client = _ready(broker)
    broker.held[0] = None
    client.publish("nowhere", b"1", mandatory=True)
    client.publish("q", b"2")
    assert client.take() == []
    del broker.held[0]
    broker.run()
    assert [m.BasicReturn, m.BasicAck] == [type(method) for method in client.take_methods()]
    assert _got(client) == b"2"


def test_publish_to_missing_exchange_closes_the_channel_with_404() -> None:
    client = _ready(Loopback())
    client.publish("k", b"x", exchange="none")
    (close,) = client.take_methods()
    assert (close.reply_code, close.reply_text) == (404, "NOT_FOUND - no exchange 'none' in vhost '/'")
    assert (close.failed_class_id, close.failed_method_id) == (60, 40)


def test_publish_to_internal_exchange_is_refused() -> None:
    client = _ready(Loopback())
    client.call(m.ExchangeDeclare(exchange="in", type="fanout", internal=True), m.ExchangeDeclareOk)
    client.publish("k", b"x", exchange="in")
    (close,) = client.take_methods()
    assert close.reply_text == "ACCESS_REFUSED - cannot publish to internal exchange 'in' in vhost '/'"


def test_fanout_goes_to_every_queue_and_is_confirmed_once() -> None:
    client = _ready(Loopback())
    client.call(m.ExchangeDeclare(exchange="all", type="fanout"), m.ExchangeDeclareOk)
    for name in ("q", "qq", "qqq"):
        client.call(m.QueueDeclare(queue=name, durable=True), m.QueueDeclareOk)
        client.call(m.QueueBind(queue=name, exchange="all"), m.QueueBindOk)
    client.publish("", b"x", b"y", exchange="all")
    assert [m.BasicAck(2, multiple=True)] == client.take_methods()
    for name in ("q", "qq", "qqq"):
        assert client.call(m.QueueDeclare(queue=name, passive=True), m.QueueDeclareOk).message_count == 2


def test_headers_exchange_splits_a_run_by_message() -> None:
    client = _ready(Loopback())
    client.call(m.ExchangeDeclare(exchange="h", type="headers"), m.ExchangeDeclareOk)
    client.call(m.QueueBind(queue="q", exchange="h", arguments={"kind": "a"}), m.QueueBindOk)
    kinds = ["a", "b", "b", "a", "a"]
    client.write(
        b"".join(
            content(1, "", bytes([65 + at]), exchange="h", mandatory=True, headers={"kind": kind})
            for at, kind in enumerate(kinds)
        )
    )
    received = client.take()
    assert [item.body for item in received if isinstance(item.method, m.BasicReturn)] == [b"B", b"C"]
    acks = [item.method for item in received if isinstance(item.method, m.BasicAck)]
    assert acks == [m.BasicAck(5, multiple=True)]
    assert [_got(client) for _ in range(3)] == [b"A", b"D", b"E"]


def test_publisher_without_confirms_is_paused_over_its_bound_and_resumed_below_half() -> None:
    broker = Loopback(connection_bytes_max=10_000)
    client = _ready(broker, confirms=False)
    other = broker.connect().login().open()
    group = broker.place("/", "q")
    broker.held[group] = None
    client.publish("q", b"x" * 5000)
    assert not client.is_paused()
    client.publish("q", b"x" * 6000)
    assert client.is_paused()
    assert not other.is_paused()
    del broker.held[group]
    broker.run()
    assert not client.is_paused()


def test_node_bound_pauses_who_goes_on_publishing() -> None:
    broker = Loopback(node_bytes_max=10_000)
    one, two = _ready(broker), _ready(broker)
    group = broker.place("/", "q")
    broker.held[group] = None
    one.publish("q", b"x" * 9000)
    two.publish("q", b"x" * 2000)
    assert (one.is_paused(), two.is_paused()) == (False, True)
    del broker.held[group]
    broker.run()
    assert not two.is_paused()


def test_publishes_before_a_close_are_done_though_they_had_to_wait() -> None:
    broker = Loopback()
    client = _ready(broker)
    watcher = _ready(broker)
    broker.held[0] = None
    client.publish("nowhere", b"1")
    client.publish("q", b"2")
    client.send(1, m.ChannelClose())
    assert client.take_methods() == []
    del broker.held[0]
    broker.run()
    assert [m.BasicAck(2, multiple=True), m.ChannelCloseOk()] == client.take_methods()
    assert _got(watcher) == b"2"


def test_route_cache_follows_the_topology() -> None:
    client = _ready(Loopback())
    client.publish("q", b"1")
    client.call(m.QueueDelete(queue="q"), m.QueueDeleteOk)
    client.take()
    client.publish("q", b"2", mandatory=True)
    assert [m.BasicReturn, m.BasicAck] == [type(method) for method in client.take_methods()]


def _got(client: Client) -> bytes | None:
    return _get(client, "q").body


def _get(client: Client, queue: str) -> Received:
    client.take()
    client.send(1, m.BasicGet(queue=queue, no_ack=True))
    (received,) = client.take()
    return received


def test_shortage_blocks_who_publishes_and_nobody_else() -> None:
    """RabbitMQ's connection.blocked: told once, with the reason; what was read is taken; acks of others go on."""
    broker = Loopback()
    consumer = _ready(broker)
    publisher = broker.connect().login(capabilities=("connection.blocked",)).open()
    publisher.call(m.ConfirmSelect(), m.ConfirmSelectOk)
    broker.frontend.set_shortage("low on disk")
    broker.run()
    assert publisher.take() == []
    publisher.publish("q", b"a")
    assert [m.ConnectionBlocked("low on disk"), m.BasicAck(1, multiple=False)] == publisher.take_methods()
    assert publisher.is_paused()
    assert not consumer.is_paused()
    assert consumer.call(m.BasicGet(queue="q"), m.BasicGetOk).message_count == 0
    broker.frontend.set_shortage(None)
    broker.run()
    assert [m.ConnectionUnblocked()] == publisher.take_methods()
    assert not publisher.is_paused()
