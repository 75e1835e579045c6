"""Client sessions on a node whose replica of the metadata is old."""

from node.broker import topology_commands
from node.wire import methods as m
from tests.session.loopback import SHARDS, Loopback


def bound_elsewhere(broker: Loopback) -> None:
    """Another node's client declares a queue and binds it to amq.fanout, which already has one here."""
    declare = topology_commands.declare_queue(
        0,
        "/",
        "late",
        durable=True,
        exclusive=False,
        auto_delete=False,
        arguments={},
        group=SHARDS,
        session=0,
    )
    broker.submit_elsewhere(0, declare)
    broker.submit_elsewhere(0, topology_commands.bind_queue(0, "/", "late", "amq.fanout", "", {}, 0))


def test_a_client_of_a_restarted_node_publishes_by_the_routes_of_today() -> None:
    """What was bound while the node was away is bound: its replica catches up before it takes clients."""
    broker = Loopback()
    broker.held[0] = None
    bound_elsewhere(broker)  # committed; not applied here yet
    client = broker.connect().login()
    assert m.ConnectionOpenOk() not in client.take_methods()
    client.send(1, m.ChannelOpen())
    client.publish("any", b"message", exchange="amq.fanout")
    del broker.held[0]
    broker.run()
    assert m.ConnectionOpenOk() in client.take_methods()
    late = broker.topology.queue("/", "late")
    assert late is not None
    assert broker.machines[late.group].counts(late.uid)[0] == 1


def test_a_node_that_lost_its_place_catches_up_again() -> None:
    """The end of the node's epoch in the metadata means that it was cut off for long."""
    broker = Loopback()
    broker.connect().login().open()
    broker.held[0] = None
    broker.frontend.on_group_reset(0)
    client = broker.connect().login()
    assert m.ConnectionOpenOk() not in client.take_methods()
    del broker.held[0]
    broker.run()
    assert m.ConnectionOpenOk() in client.take_methods()


def test_a_client_that_leaves_while_it_waits_leaves_nothing() -> None:
    """No answer comes to a socket that is gone."""
    broker = Loopback()
    broker.held[0] = None
    client = broker.connect().login()
    broker.lose(client)
    del broker.held[0]
    broker.run()
    assert broker.frontend.open_tickets == 0
    assert broker.frontend.connection_count == 0


def test_clients_that_come_again_and_again_cost_a_minority_nothing() -> None:
    """A node without a majority asks for its metadata once, however many clients wait for it."""
    broker = Loopback()
    broker.held[0] = None
    for _ in range(20):
        broker.lose(broker.connect().login())
    client = broker.connect().login()
    assert broker.barriers_waiting == 1
    broker.drop_barriers()
    broker.frontend.on_group_reset(0)
    assert broker.barriers_waiting == 1
    del broker.held[0]
    broker.run()
    assert m.ConnectionOpenOk() in client.take_methods()


def test_a_creation_that_ended_with_the_epoch_is_submitted_again() -> None:
    """What was under way to a shard when the node's epoch ended never comes: messages would meet no queue."""
    broker = Loopback()
    bound_elsewhere(broker)
    broker.run()
    late = broker.topology.queue("/", "late")
    assert late is not None
    broker.held[late.group] = None
    client = broker.connect().login().open()
    client.publish("any", b"one", exchange="amq.fanout")
    broker.drop_held(late.group)
    broker.frontend.on_group_reset(late.group)
    client = broker.connect().login().open()
    client.call(m.ConfirmSelect(), m.ConfirmSelectOk)
    client.publish("any", b"two", exchange="amq.fanout")
    assert client.take_methods() == [m.BasicAck(1)]
    assert broker.machines[late.group].counts(late.uid)[0] == 1


def test_a_client_that_does_not_read_its_answers_is_not_read() -> None:
    """Answers to small requests pile up as well as messages do."""
    broker = Loopback(connection_bytes_max=10_000)
    client = broker.connect().login().open()
    broker.writable(client, is_writable=False)
    for _ in range(2000):
        if client.is_paused():
            break
        client.send(1, m.BasicQos(0, 1))
    assert client.is_paused()
    broker.writable(client, is_writable=True)
    assert not client.is_paused()
    assert broker.frontend.pending_bytes == 0


def test_every_loopback_user_is_kept_to_this_host() -> None:
    """The setting is a list: all of its users, not guest alone."""
    broker = Loopback(loopback_users=("admin",))
    add = topology_commands.add_user(0, "admin", b"s" * 16, b"h" * 32, ())
    broker.submit(0, add)
    broker.submit(0, topology_commands.set_permissions(0, "admin", "/", ".*", ".*", ".*"))
    broker.run()
    far = broker.connect(loopback=False).login(user="admin")
    assert m.ConnectionOpenOk() not in far.take_methods()
    near = broker.connect().login(user="admin")
    assert m.ConnectionOpenOk() in near.take_methods()
    guest = broker.connect(loopback=False).login()
    assert m.ConnectionOpenOk() in guest.take_methods()
