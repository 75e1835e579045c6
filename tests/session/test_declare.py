"""Exchanges, queues, bindings: replies, refusals, deadlines, exclusive queues, logins."""

import pytest

from cluster.types import MEMORY_GROUP
from node.broker import commands, topology_commands
from node.wire import methods as m
from tests.session.client import Client
from tests.session.loopback import NODE, OTHER_NODE, Loopback


def _open(broker: Loopback) -> Client:
    return broker.connect().login().open()


def test_declare_again_tells_the_counts() -> None:
    broker = Loopback()
    client = _open(broker)
    assert m.QueueDeclareOk("q", 0, 0) == client.call(m.QueueDeclare(queue="q"), m.QueueDeclareOk)
    client.publish("q", b"1", b"2")
    assert m.QueueDeclareOk("q", 2, 0) == _open(broker).call(m.QueueDeclare(queue="q"), m.QueueDeclareOk)


def test_server_names_a_queue_and_remembers_it() -> None:
    client = _open(Loopback())
    name = client.call(m.QueueDeclare(), m.QueueDeclareOk).queue
    assert name.startswith("amq.gen-")
    assert len("amq.gen-") + 22 == len(name)
    client.publish(name, b"x")
    assert m.QueuePurgeOk(1) == client.call(m.QueuePurge(), m.QueuePurgeOk)


@pytest.mark.parametrize(
    "method",
    [m.QueueBind(exchange="amq.topic"), m.QueueDelete(), m.BasicConsume(), m.BasicGet(), m.QueuePurge()],
)
def test_empty_name_without_declared_queue_is_404(method: m.Method) -> None:
    close = _open(Loopback()).call(method, m.ChannelClose)
    assert (close.reply_code, close.reply_text) == (404, "NOT_FOUND - no previously declared queue")
    assert (method.class_id, method.method_id) == (close.failed_class_id, close.failed_method_id)


@pytest.mark.parametrize(
    "method", [m.QueueDeclare(queue="q", passive=True), m.BasicConsume(queue="q"), m.BasicGet(queue="q")]
)
def test_missing_queue_is_404(method: m.Method) -> None:
    close = _open(Loopback()).call(method, m.ChannelClose)
    assert close.reply_text == "NOT_FOUND - no queue 'q' in vhost '/'"


def test_delete_of_missing_queue_is_fine() -> None:
    assert m.QueueDeleteOk(0) == _open(Loopback()).call(m.QueueDelete(queue="q"), m.QueueDeleteOk)


def test_delete_tells_the_count_and_makes_room_for_another() -> None:
    client = _open(Loopback())
    client.call(m.QueueDeclare(queue="q"), m.QueueDeclareOk)
    client.publish("q", b"1", b"2")
    assert m.QueueDeleteOk(2) == client.call(m.QueueDelete(queue="q"), m.QueueDeleteOk)
    found = client.call(m.QueueDeclare(queue="q", durable=True), m.QueueDeclareOk)
    assert m.QueueDeclareOk("q", 0, 0) == found


def test_delete_refuses_a_queue_in_use_or_not_empty() -> None:
    broker = Loopback()
    client = _open(broker)
    client.call(m.QueueDeclare(queue="q"), m.QueueDeclareOk)
    client.publish("q", b"1")
    close = client.call(m.QueueDelete(queue="q", if_empty=True), m.ChannelClose)
    assert close.reply_text == "PRECONDITION_FAILED - queue 'q' in vhost '/' not empty"
    other = _open(broker)
    other.send(1, m.BasicConsume(queue="q"))
    close = other.call(m.QueueDelete(queue="q", if_unused=True), m.ChannelClose)
    assert close.reply_text == "PRECONDITION_FAILED - queue 'q' in vhost '/' in use"


def test_different_declaration_is_406() -> None:
    client = _open(Loopback())
    client.call(m.QueueDeclare(queue="q", durable=True), m.QueueDeclareOk)
    close = client.call(m.QueueDeclare(queue="q"), m.ChannelClose)
    assert (close.reply_code, close.failed_class_id, close.failed_method_id) == (406, 50, 10)
    assert "inequivalent arg 'durable' for queue 'q' in vhost '/'" in close.reply_text


def test_no_wait_is_not_answered_and_order_is_kept() -> None:
    client = _open(Loopback())
    client.send(
        1,
        m.ExchangeDeclare(exchange="x", type="direct", no_wait=True),
        m.QueueDeclare(queue="q", no_wait=True),
        m.QueueBind(queue="q", exchange="x", routing_key="k", no_wait=True),
        m.BasicConsume(queue="q", consumer_tag="t", no_wait=True),
    )
    client.publish("k", b"1", exchange="x")
    (delivery,) = client.take()
    assert (m.BasicDeliver("t", 1, False, "x", "k"), b"1") == (delivery.method, delivery.body)
    client.send(
        1,
        m.BasicCancel("t", no_wait=True),
        m.QueuePurge(queue="q", no_wait=True),
        m.QueueDelete(queue="q", no_wait=True),
        m.ExchangeDelete(exchange="x", no_wait=True),
    )
    assert client.take() == []


def test_exchanges_are_bound_and_unbound() -> None:
    client = _open(Loopback())
    client.call(m.QueueDeclare(queue="q"), m.QueueDeclareOk)
    for name in ("a", "b"):
        client.call(m.ExchangeDeclare(exchange=name, type="fanout"), m.ExchangeDeclareOk)
    client.call(m.ExchangeBind(source="a", destination="b"), m.ExchangeBindOk)
    client.call(m.QueueBind(queue="q", exchange="b"), m.QueueBindOk)
    client.publish("", b"1", exchange="a")
    assert client.call(m.QueueDeclare(queue="q", passive=True), m.QueueDeclareOk).message_count == 1
    client.call(m.QueueUnbind(queue="q", exchange="b"), m.QueueUnbindOk)
    client.call(m.ExchangeUnbind(source="a", destination="b"), m.ExchangeUnbindOk)
    client.publish("", b"2", exchange="a", mandatory=True)
    assert [m.BasicReturn] == [type(method) for method in client.take_methods()]


def test_passive_exchange_declare_asks_whether_it_is_there() -> None:
    client = _open(Loopback())
    client.call(m.ExchangeDeclare(exchange="amq.topic", passive=True), m.ExchangeDeclareOk)
    close = client.call(m.ExchangeDeclare(exchange="none", passive=True), m.ChannelClose)
    assert close.reply_text == "NOT_FOUND - no exchange 'none' in vhost '/'"


def test_passive_declare_of_the_empty_name_is_not_of_the_last_queue() -> None:
    client = _open(Loopback())
    client.call(m.QueueDeclare(queue="q"), m.QueueDeclareOk)
    close = client.call(m.QueueDeclare(passive=True), m.ChannelClose)
    assert close.reply_text == "NOT_FOUND - no queue '' in vhost '/'"


@pytest.mark.parametrize("passive", [True, False])
def test_default_exchange_is_not_declared(passive: bool) -> None:
    close = _open(Loopback()).call(m.ExchangeDeclare(exchange="", passive=passive), m.ChannelClose)
    assert close.reply_text == "ACCESS_REFUSED - operation not permitted on the default exchange"


def test_type_of_an_exchange_is_checked_before_its_name() -> None:
    close = _open(Loopback()).call(m.ExchangeDeclare(exchange="", type="odd"), m.ChannelClose)
    assert close.reply_text == "PRECONDITION_FAILED - unknown exchange type 'odd'"


def test_user_without_rights_is_refused_by_name() -> None:
    broker = Loopback()
    for command in (
        topology_commands.add_user(0, "eve", b"", b""),
        topology_commands.set_permissions(0, "eve", "/", "", "", "^mine$"),
    ):
        broker.submit_elsewhere(0, command)
    broker.run()
    for method, text in (
        (m.QueueDeclare(queue="q"), "configure access to queue 'q' in vhost '/'"),
        (m.QueueDeclare(queue="q", passive=True), "configure access to queue 'q' in vhost '/'"),
        (m.BasicGet(queue="q"), "read access to queue 'q' in vhost '/'"),
        (m.QueueBind(queue="q", exchange="amq.topic"), "write access to queue 'q' in vhost '/'"),
    ):
        close = broker.connect().login(user="eve").open().call(method, m.ChannelClose)
        assert f"ACCESS_REFUSED - {text} refused for user 'eve'" == close.reply_text
    passive = m.QueueDeclare(queue="mine", passive=True)
    close = broker.connect().login(user="eve").open().call(passive, m.ChannelClose)
    assert close.reply_code == 404  # one that it may read, it may ask for


def test_exclusive_queue_is_its_connections_own_and_goes_with_it() -> None:
    broker = Loopback()
    owner, other = _open(broker), _open(broker)
    owner.call(m.QueueDeclare(queue="mine", exclusive=True), m.QueueDeclareOk)
    other.publish("mine", b"1")
    owner.send(1, m.BasicConsume(queue="mine"))
    assert owner.take()[-1].body == b"1"
    close = other.call(m.BasicConsume(queue="mine"), m.ChannelClose)
    assert close.reply_code == 405
    broker.lose(owner)
    assert broker.topology.queue("/", "mine") is None
    assert list(broker.machines[MEMORY_GROUP + NODE].queue_uids()) == []


def test_publish_to_a_queue_in_the_memory_of_a_lost_node_is_done_with() -> None:
    broker = Loopback()
    broker.submit_elsewhere(
        0,
        topology_commands.declare_queue(
            7, "/", "far", durable=False, exclusive=True, auto_delete=False, arguments={}, group=1, session=3
        ),
    )
    broker.run()
    far = MEMORY_GROUP + OTHER_NODE
    broker.held[far] = None
    client = _open(broker)
    client.call(m.ConfirmSelect(), m.ConfirmSelectOk)
    client.publish("far", b"1")
    assert client.take() == []
    broker.frontend.on_group_lost(far)
    broker.run()
    assert [m.BasicAck(1)] == client.take_methods()


def test_request_without_quorum_ends_with_404_and_a_late_reply_is_dropped() -> None:
    broker = Loopback()
    client = _open(broker)
    broker.held[0] = None
    client.send(1, m.QueueDeclare(queue="q"))
    broker.tick(9_000)
    assert client.take() == []
    broker.tick(1_000)
    (close,) = client.take_methods()
    text = "NOT_FOUND - failed to perform operation on queue 'q' in vhost '/' due to timeout"
    assert (404, text) == (close.reply_code, close.reply_text)
    del broker.held[0]
    broker.run()
    assert client.take() == []


def test_waiting_channel_does_not_hold_up_another() -> None:
    broker = Loopback()
    client = _open(broker)
    client.send(2, m.ChannelOpen())
    client.call(m.QueueDeclare(queue="q"), m.QueueDeclareOk)
    broker.held[0] = None
    client.send(1, m.ExchangeDelete(exchange="x"))
    client.send(1, m.BasicQos())
    client.take()
    client.call(m.QueuePurge(queue="q"), m.QueuePurgeOk, channel=2)
    del broker.held[0]
    broker.run()
    assert [m.ExchangeDeleteOk(), m.BasicQosOk()] == client.take_methods()


def test_queue_whose_shard_lacks_it_is_created_before_use() -> None:
    """The one who declared it may have died in between."""
    broker = Loopback()
    broker.submit_elsewhere(
        0,
        topology_commands.declare_queue(
            7, "/", "q", durable=True, exclusive=False, auto_delete=False, arguments={}, group=1, session=3
        ),
    )
    broker.run()
    client = _open(broker)
    client.publish("q", b"1")
    assert client.call(m.QueueDeclare(queue="q", passive=True), m.QueueDeclareOk).message_count == 1


def test_declaration_asks_nothing_of_the_shard() -> None:
    """A queue that its shard does not have is empty there, which is what was declared (ADR 8)."""
    broker = Loopback()
    client = _open(broker)
    client.call(m.QueueDeclare(queue="q", durable=True), m.QueueDeclareOk)
    record = broker.topology.queue("/", "q")
    assert record is not None
    assert not broker.machines[record.group].has_queue(record.uid)


@pytest.mark.parametrize(
    ("use", "answer"),
    [
        (m.QueueDeclare(queue="q", durable=True), m.QueueDeclareOk),
        (m.QueueDeclare(queue="q", passive=True), m.QueueDeclareOk),
        (m.BasicConsume(queue="q"), m.BasicConsumeOk),
        (m.BasicGet(queue="q"), m.BasicGetEmpty),
        (m.QueuePurge(queue="q"), m.QueuePurgeOk),
    ],
)
def test_first_use_of_a_queue_creates_it(use: m.Method, answer: type[m.Method]) -> None:
    """On the stream of whoever uses it, and before the use: the node that declared it may be gone."""
    broker = Loopback()
    _open(broker).call(m.QueueDeclare(queue="q", durable=True), m.QueueDeclareOk)
    record = broker.topology.queue("/", "q")
    assert record is not None
    _open(broker).call(use, answer)
    assert broker.machines[record.group].has_queue(record.uid)


def test_unused_queue_is_deleted_without_a_trace() -> None:
    """The shard, which may have it from elsewhere, is asked all the same."""
    broker = Loopback()
    client = _open(broker)
    client.call(m.QueueDeclare(queue="q", durable=True), m.QueueDeclareOk)
    assert m.QueueDeleteOk(0) == client.call(m.QueueDelete(queue="q", if_empty=True), m.QueueDeleteOk)
    assert all(list(machine.queue_uids()) == [] for machine in broker.machines.values())


def test_exclusive_queue_is_created_at_once() -> None:
    """Other nodes cannot see that this node's memory lacks it: their first message must find it there."""
    broker = Loopback()
    _open(broker).call(m.QueueDeclare(queue="q", exclusive=True), m.QueueDeclareOk)
    record = broker.topology.queue("/", "q")
    assert record is not None
    broker.submit_elsewhere(record.group, commands.enqueue(0, commands.targets([record.uid]), 1, [bytes(30)]))
    broker.run()
    assert broker.machines[record.group].counts(record.uid) == (1, 0, 0)


def test_expired_auto_delete_queue_can_be_declared_again_at_once() -> None:
    client = _open(Loopback())
    client.call(m.QueueDeclare(queue="q", auto_delete=True), m.QueueDeclareOk)
    client.call(m.BasicConsume(queue="q", consumer_tag="t"), m.BasicConsumeOk)
    client.publish("q", b"1")
    client.take()
    client.call(m.BasicCancel("t"), m.BasicCancelOk)
    again = client.call(m.QueueDeclare(queue="q", auto_delete=True), m.QueueDeclareOk)
    assert m.QueueDeclareOk("q", 0, 0) == again


def test_late_creation_elsewhere_does_not_bring_a_deleted_queue_back() -> None:
    broker = Loopback()
    client = _open(broker)
    client.call(m.QueueDeclare(queue="q"), m.QueueDeclareOk)
    record = broker.topology.queue("/", "q")
    assert record is not None
    client.publish("q", b"1")
    delete = commands.delete_queue(0, record.uid, if_unused=False, if_empty=False)
    broker.submit_elsewhere(record.group, delete)
    broker.run()
    client.publish("q", b"2")
    assert list(broker.machines[record.group].queue_uids()) == []


def test_guest_comes_only_from_this_host() -> None:
    broker = Loopback()
    client = broker.connect(loopback=False).login(capabilities=("authentication_failure_close",))
    close = client.take_methods()[1]
    assert "Login was refused using authentication mechanism PLAIN" in close.reply_text


def test_unknown_vhost_is_530() -> None:
    client = Loopback().connect().login(vhost="none")
    close = client.take_methods()[-1]
    assert (close.reply_code, close.reply_text) == (530, "NOT_ALLOWED - vhost none not found")
    assert (close.failed_class_id, close.failed_method_id) == (10, 40), "connection.open"


def test_stopping_node_says_goodbye() -> None:
    broker = Loopback()
    client = _open(broker)
    broker.frontend.close_all("broker forced connection closure with reason 'shutdown'")
    broker.run()
    (close,) = client.take_methods()
    assert (close.reply_code, "shutdown" in close.reply_text) == (320, True)


def test_everything_is_freed_when_all_clients_are_lost() -> None:
    broker = Loopback()
    clients = [_open(broker) for _ in range(3)]
    for client in clients:
        client.send(1, m.QueueDeclare(exclusive=True), m.BasicConsume())
        client.publish("nowhere", b"1")
    for client in clients:
        broker.lose(client)
    frontend = broker.frontend
    assert (frontend.connection_count, frontend.pending_bytes, frontend.open_tickets) == (0, 0, 0)
    assert list(broker.topology.queues()) == []
