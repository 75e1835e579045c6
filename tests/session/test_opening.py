"""A node hears of changes of the metadata at once while somebody routes there, and nobody routes before it has."""

from cluster.types import METADATA_GROUP
from node.session.opening import LINGER_MS
from node.wire import methods as m
from tests.session.client import Client
from tests.session.loopback import Loopback
from tests.session.ready import ready, ready_count, watched


def _leave(client: Client) -> None:
    client.send(0, m.ConnectionClose(reply_code=200))
    assert [type(said) for said in client.take_methods()] == [m.ConnectionCloseOk]


def test_changes_are_told_at_once_until_the_last_client_has_left_for_long() -> None:
    """And the next one waits until all is told that was committed before it came."""
    broker = Loopback()
    assert not broker.topology.serves()
    client = watched(broker)
    for _ in range(30):
        broker.tick(1000)
    assert broker.topology.serves()
    _leave(client)
    broker.tick(LINGER_MS - 1000)
    broker.held[METADATA_GROUP] = None
    _leave(watched(broker))  # by then nothing is asked of the group
    broker.tick(LINGER_MS - 1000)
    assert broker.topology.serves()
    broker.tick(2000)
    assert not broker.topology.serves()
    late = broker.connect().login()
    assert [type(said) for said in late.take_methods()] == [m.ConnectionStart, m.ConnectionTune]
    assert broker.topology.serves()
    del broker.held[METADATA_GROUP]
    broker.run()
    assert [type(said) for said in late.take_methods()] == [m.ConnectionOpenOk]


def test_dead_letters_are_routed_by_current_metadata() -> None:
    """Also on a node without clients: the queue they die in may be led there."""
    broker = Loopback()
    client = ready(broker)
    source = {"x-message-ttl": 3 * LINGER_MS, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "q"}
    client.call(m.QueueDeclare(queue="source", durable=True, arguments=source), m.QueueDeclareOk)
    client.publish("source", b"dies")
    _leave(client)
    for _ in range(2):
        broker.tick(LINGER_MS)
    assert not broker.topology.serves()
    broker.held[METADATA_GROUP] = None
    before = broker.submitted
    for _ in range(2):
        broker.tick(LINGER_MS)
    assert broker.submitted == before + 1, "only the tick in which it died"
    del broker.held[METADATA_GROUP]
    broker.run()
    assert broker.submitted > before + 1
    broker.tick(0)
    assert broker.topology.serves()
    for _ in range(2):
        broker.tick(LINGER_MS)
    assert not broker.topology.serves(), "the letter has long arrived"
    assert ready_count(watched(broker)) == 1
