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
