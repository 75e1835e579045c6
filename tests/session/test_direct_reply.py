"""Direct reply-to: requests and replies without a declared queue, from node to node."""

import pytest

from cluster.types import MEMORY_GROUP
from node.broker import commands
from node.broker.records import OUTSIDE_METADATA
from node.session import direct_reply
from node.wire import methods as m
from node.wire.properties import BasicProperties
from tests.session.client import Client
from tests.session.loopback import NODE, OTHER_NODE, Loopback

QUEUE = "amq.rabbitmq.reply-to"


def _requester(broker: Loopback, tag: str = "replies") -> Client:
    client = broker.connect().login().open()
    client.call(m.BasicConsume(queue=QUEUE, consumer_tag=tag, no_ack=True), m.BasicConsumeOk)
    return client


def _address(broker: Loopback, client: Client) -> str:
    """What `reply-to` of a request becomes on its way to a server."""
    server = broker.connect().login().open()
    queue = server.call(m.QueueDeclare(exclusive=False, auto_delete=True), m.QueueDeclareOk).queue
    server.send(1, m.BasicConsume(queue=queue, no_ack=True))
    server.take()
    client.publish(queue, b"request", properties=BasicProperties(reply_to=QUEUE, correlation_id="7"))
    (request,) = server.take()
    assert request.body == b"request"
    assert request.properties.correlation_id == "7"
    address: str = request.properties.reply_to
    broker.lose(server)
    return address


def _declare(client: Client, name: str) -> m.Method:
    client.send(1, m.QueueDeclare(queue=name, passive=True))
    method: m.Method = client.take_methods()[-1]
    return method


def _elsewhere(broker: Loopback, uid: int) -> str:
    """The address of a requester on the other node."""
    group = MEMORY_GROUP + OTHER_NODE
    config = commands.QueueConfig(durable=False, exclusive=True, auto_delete=True).encode()
    broker.submit_elsewhere(group, commands.create_queue(0, uid, config))
    broker.run()
    return direct_reply.address(OTHER_NODE, uid)


def test_reply_comes_to_the_requester() -> None:
    broker = Loopback()
    client = _requester(broker)
    address = _address(broker, client)
    assert address.startswith(f"{QUEUE}.")
    broker.connect().login().open().publish(address, b"reply")
    (reply,) = client.take()
    assert reply.method == m.BasicDeliver("replies", 1, redelivered=False, exchange="", routing_key=address)
    assert reply.body == b"reply"


def test_addresses_differ_and_cannot_be_guessed() -> None:
    """Of the 80 bits all but those of the node and one are drawn."""
    broker = Loopback()
    addresses = {_address(broker, _requester(broker)) for _ in range(50)}
    assert len(addresses) == 50
    for address in addresses:
        found = direct_reply.target(broker, address)
        assert found is not None
        group, uid = found
        assert group == MEMORY_GROUP + NODE
        assert uid & OUTSIDE_METADATA


@pytest.mark.parametrize(
    "key",
    [QUEUE, f"{QUEUE}.", f"{QUEUE}.x", f"{QUEUE}.{'A' * 14}", f"{QUEUE}.{'_' * 14}", f"{QUEUE}.{'é' * 14}"],
)
def test_address_that_was_made_up_leads_nowhere(key: str) -> None:
    broker = Loopback()
    client = broker.connect().login().open()
    client.publish(key, b"x", mandatory=True)
    assert [item.method.reply_code for item in client.take()] == [312]
    assert direct_reply.target(broker, key) is None
    closed = _declare(client, f"{QUEUE}.x")
    assert isinstance(closed, m.ChannelClose)
    assert closed.reply_text == f"NOT_FOUND - no queue '{QUEUE}.x' in vhost '/'"


def test_consumer_may_not_acknowledge() -> None:
    client = Loopback().connect().login().open()
    client.send(1, m.BasicConsume(queue=QUEUE))
    (closed,) = client.take_methods()
    assert closed.reply_text == "PRECONDITION_FAILED - reply consumer cannot acknowledge"


def test_channel_has_one_reply_consumer() -> None:
    client = _requester(Loopback())
    client.send(1, m.BasicConsume(queue=QUEUE, consumer_tag="more", no_ack=True))
    (closed,) = client.take_methods()
    assert closed.reply_text == "PRECONDITION_FAILED - reply consumer already set"


def test_request_needs_a_reply_consumer() -> None:
    client = Loopback().connect().login().open()
    client.publish("q", b"request", properties=BasicProperties(reply_to=QUEUE))
    (closed,) = client.take_methods()
    assert closed.reply_text == "PRECONDITION_FAILED - fast reply consumer does not exist"
    assert (closed.failed_class_id, closed.failed_method_id) == (60, 40)


def test_other_reply_queues_stay_as_they_are() -> None:
    """Also an address, which a server may pass on."""
    broker = Loopback()
    client = _requester(broker)
    address = _address(broker, client)
    for name in ("mine", address):
        client.publish(address, b"x", properties=BasicProperties(reply_to=name, priority=1))
        (delivery,) = client.take()
        assert delivery.properties.reply_to == name


def test_requester_is_declared_as_a_queue_with_a_consumer() -> None:
    """RabbitMQ, direct reply-to: a server that wants to know whether it is worth the work may ask."""
    broker = Loopback()
    client = _requester(broker)
    address = _address(broker, client)
    other = broker.connect().login().open()
    assert _declare(other, address) == m.QueueDeclareOk(address, 0, 1)
    assert _declare(other, QUEUE) == m.QueueDeclareOk(QUEUE, 0, 1)
    client.call(m.BasicCancel("replies"), m.BasicCancelOk)
    closed = _declare(other, address)
    assert isinstance(closed, m.ChannelClose)
    assert closed.reply_text == f"NOT_FOUND - no queue '{address}' in vhost '/'"


@pytest.mark.parametrize("end", ["cancel", "close", "lose"])
def test_nothing_is_left_of_a_requester_that_has_gone(end: str) -> None:
    broker = Loopback()
    client = _requester(broker)
    address = _address(broker, client)
    if end == "cancel":
        client.call(m.BasicCancel("replies"), m.BasicCancelOk)
        client.call(m.BasicConsume(queue=QUEUE, no_ack=True), m.BasicConsumeOk)
        assert _address(broker, client) != address
        client.send(1, m.ChannelClose(200))
    elif end == "close":
        client.send(1, m.ChannelClose(200))
    else:
        broker.lose(client)
    other = broker.connect().login().open()
    other.publish(address, b"late", mandatory=True)
    assert other.take() == []
    memory = broker.machine(MEMORY_GROUP + NODE)
    assert memory is not None
    assert list(memory.queue_uids()) == []
    assert dict(memory.live()) == {}
    assert broker.frontend.pending_bytes == 0


def test_reply_goes_to_another_node() -> None:
    broker = Loopback()
    address = _elsewhere(broker, OUTSIDE_METADATA | 7)
    client = broker.connect().login().open()
    client.call(m.ConfirmSelect(), m.ConfirmSelectOk)
    client.publish(address, b"reply")
    assert client.take_methods() == [m.BasicAck(1)]
    assert broker.other_memory.counts(OUTSIDE_METADATA | 7) == (1, 0, 0)


def test_requester_on_another_node_is_asked_for() -> None:
    broker = Loopback()
    address = _elsewhere(broker, OUTSIDE_METADATA | 7)
    client = broker.connect().login().open()
    assert _declare(client, address) == m.QueueDeclareOk(address, 0, 1)
    gone = direct_reply.address(OTHER_NODE, OUTSIDE_METADATA | 8)
    assert isinstance(_declare(client, gone), m.ChannelClose)


def test_other_node_that_ends_has_no_requester() -> None:
    broker = Loopback()
    address = _elsewhere(broker, OUTSIDE_METADATA | 7)
    broker.held[MEMORY_GROUP + OTHER_NODE] = None
    client = broker.connect().login().open()
    client.send(1, m.QueueDeclare(queue=address, passive=True))
    broker.frontend.on_group_lost(MEMORY_GROUP + OTHER_NODE)
    broker.run()
    assert [method.reply_code for method in client.take_methods()] == [404]


@pytest.mark.parametrize("method", [m.QueueBind, m.QueueUnbind])
def test_nothing_can_be_bound_to_it(method: type[m.QueueBind] | type[m.QueueUnbind]) -> None:
    client = Loopback().connect().login().open()
    client.send(1, method(queue=QUEUE, exchange="amq.direct", routing_key="k"))
    (closed,) = client.take_methods()
    text = "ACCESS_REFUSED - cannot bind or unbind to a volatile (direct reply-to) queue"
    assert closed.reply_text == text


def test_it_is_no_queue_for_the_rest() -> None:
    client = Loopback().connect().login().open()
    assert client.call(m.QueueDelete(queue=QUEUE), m.QueueDeleteOk).message_count == 0
    client.send(1, m.QueuePurge(queue=QUEUE))
    assert client.take_methods()[-1].reply_text == f"NOT_FOUND - no queue '{QUEUE}' in vhost '/'"


def test_replies_in_a_transaction_go_with_the_commit() -> None:
    broker = Loopback()
    client = _requester(broker)
    server = broker.connect().login().open()
    server.call(m.TxSelect(), m.TxSelectOk)
    server.publish(_address(broker, client), b"reply")
    assert client.take() == []
    server.call(m.TxCommit(), m.TxCommitOk)
    assert [item.body for item in client.take()] == [b"reply"]


def test_ways_of_replies_are_not_kept() -> None:
    """There are as many as requesters, and they would push out those that last."""
    broker = Loopback()
    client = _requester(broker)
    address = _address(broker, client)
    client.publish(address, b"1", b"2")
    assert [item.body for item in client.take()] == [b"1", b"2"]
    plans = broker.frontend._sessions[client.conn].plans
    assert [args for args in plans.known(broker.topology.routes_version) if address.encode() in args] == []
