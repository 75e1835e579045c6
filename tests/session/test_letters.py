"""Dead letters find their queues, by RabbitMQ's rules (docs/dlx), whichever shards the queues are in."""

from typing import Any

from cluster.types import METADATA_GROUP
from node.broker.topology_commands import bind_queue
from node.wire import methods as m
from node.wire.properties import BasicProperties
from tests.session.client import Client, Received
from tests.session.loopback import Loopback

SOURCE = "source"
TARGET = "grave"  # its length is odd where that of SOURCE is even: see Loopback.place


def _open(broker: Loopback, source: dict[str, Any], *targets: str) -> Client:
    """A client with the queue SOURCE and these queues bound to the exchange `dead` by their names."""
    client = broker.connect().login().open()
    client.call(m.ExchangeDeclare(exchange="dead", type="direct"), m.ExchangeDeclareOk)
    for target in targets:
        client.call(m.QueueDeclare(queue=target, durable=True), m.QueueDeclareOk)
        client.call(m.QueueBind(queue=target, exchange="dead", routing_key=target), m.QueueBindOk)
    client.call(m.QueueDeclare(queue=SOURCE, durable=True, arguments=source), m.QueueDeclareOk)
    return client


def _get(client: Client, queue: str) -> Received | None:
    client.send(1, m.BasicGet(queue=queue, no_ack=True))
    (got,) = client.take()
    return got if isinstance(got.method, m.BasicGetOk) else None


def _got(client: Client, queue: str) -> Received:
    got = _get(client, queue)
    assert got is not None, f"nothing in {queue}"
    return got


def _reject(client: Client, queue: str = SOURCE) -> None:
    client.send(1, m.BasicGet(queue=queue))
    (got,) = client.take()
    client.send(1, m.BasicReject(delivery_tag=got.method.delivery_tag, requeue=False))


def test_rejected_message_is_told_why_where_and_how_it_came() -> None:
    """x-death and its neighbours; the rest of the message is as it was."""
    broker = Loopback()
    client = _open(broker, {"x-dead-letter-exchange": "dead", "x-dead-letter-routing-key": TARGET}, TARGET)
    given = BasicProperties(content_type="text/plain", headers={"a": 1}, priority=3, correlation_id="c")
    client.publish(SOURCE, b"body", properties=given)
    _reject(client)
    got = _got(client, TARGET)
    assert (got.method.exchange, got.method.routing_key, got.body) == ("dead", TARGET, b"body")
    headers: Any = got.properties.headers
    (death,) = headers.pop("x-death")
    assert abs(death.pop("time") - broker.now_ms() // 1000) <= 1
    assert death == {
        "count": 1,
        "reason": "rejected",
        "queue": SOURCE,
        "exchange": "",
        "routing-keys": [SOURCE],
    }
    assert headers == {
        "a": 1,
        **{f"x-{which}-death-reason": "rejected" for which in ("first", "last")},
        **{f"x-{which}-death-queue": SOURCE for which in ("first", "last")},
        **{f"x-{which}-death-exchange": "" for which in ("first", "last")},
    }
    got.properties.headers = None
    assert (got.properties.content_type, got.properties.priority) == ("text/plain", 3)
    assert _get(client, SOURCE) is None


def test_expired_message_loses_its_expiration_and_says_what_it_was() -> None:
    """Lest it expire again in the next queue."""
    broker = Loopback()
    client = _open(broker, {"x-dead-letter-exchange": "dead", "x-dead-letter-routing-key": TARGET}, TARGET)
    client.publish(SOURCE, b"body", properties=BasicProperties(expiration="100"))
    broker.tick(99)
    assert _get(client, TARGET) is None
    broker.tick(1)
    got = _got(client, TARGET)
    assert got.properties.expiration is None
    headers: Any = got.properties.headers
    assert (headers["x-death"][0]["reason"], headers["x-death"][0]["original-expiration"]) == (
        "expired",
        "100",
    )


def test_without_a_key_of_its_own_the_message_keeps_its_keys() -> None:
    """Those in CC too; they route the letter as they routed the message."""
    broker = Loopback()
    client = _open(broker, {"x-dead-letter-exchange": "dead"}, "one", "two")
    client.call(m.ExchangeDeclare(exchange="in", type="fanout"), m.ExchangeDeclareOk)
    client.call(m.QueueBind(queue=SOURCE, exchange="in", routing_key=""), m.QueueBindOk)
    client.publish("one", b"x", exchange="in", properties=BasicProperties(headers={"CC": ["two"]}))
    _reject(client)
    for queue in ("one", "two"):
        got = _got(client, queue)
        headers: Any = got.properties.headers
        assert got.method.routing_key == "one"
        assert headers["CC"] == ["two"]
        assert headers["x-death"][0]["routing-keys"] == ["one", "two"]


def test_further_deaths_are_counted_by_queue_and_reason() -> None:
    """The newest first, one table for each queue and reason."""
    broker = Loopback()
    client = _open(broker, {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "other"})
    client.call(
        m.QueueDeclare(
            queue="other",
            durable=True,
            arguments={
                "x-dead-letter-exchange": "",
                "x-dead-letter-routing-key": SOURCE,
                "x-message-ttl": 50,
            },
        ),
        m.QueueDeclareOk,
    )
    client.publish(SOURCE, b"again")
    for _ in range(2):
        _reject(client)
        broker.tick(50)
    headers: Any = _got(client, SOURCE).properties.headers
    assert [(death["queue"], death["reason"], death["count"]) for death in headers["x-death"]] == [
        ("other", "expired", 2),
        (SOURCE, "rejected", 2),
    ]
    assert (headers["x-first-death-queue"], headers["x-last-death-queue"]) == (SOURCE, "other")


def test_cycle_without_a_rejection_ends() -> None:
    """A message that only expires its way around is dropped where it would go round again."""
    broker = Loopback()
    client = _open(
        broker, {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": SOURCE, "x-message-ttl": 50}
    )
    client.publish(SOURCE, b"round")
    broker.tick(50)
    assert _get(client, SOURCE) is None
    assert not any(machine.live() for machine in broker.machines.values())


def test_x_death_of_a_client_is_not_believed() -> None:
    """RabbitMQ 4: a republished message with the header of its earlier life is no cycle, and starts anew."""
    broker = Loopback()
    client = _open(broker, {"x-dead-letter-exchange": "dead", "x-dead-letter-routing-key": TARGET}, TARGET)
    forged = [{"queue": TARGET, "reason": "expired", "count": 7}, "nonsense"]
    client.publish(SOURCE, b"x", headers={"x-death": forged})
    _reject(client)
    headers: Any = _got(client, TARGET).properties.headers
    assert [(death["queue"], death["count"]) for death in headers["x-death"]] == [(SOURCE, 1)]


def test_letter_without_a_queue_is_dropped_or_waits_as_the_strategy_says() -> None:
    """At-least-once keeps it until somebody binds a queue."""
    broker = Loopback()
    arguments = {"x-dead-letter-exchange": "dead", "x-dead-letter-routing-key": TARGET}
    client = _open(broker, arguments)
    client.publish(SOURCE, b"lost")
    _reject(client)
    assert not any(machine.live() for machine in broker.machines.values())
    client.call(m.QueueDelete(queue=SOURCE), m.QueueDeleteOk)
    arguments["x-dead-letter-strategy"] = "at-least-once"
    client = _open(broker, arguments)
    client.publish(SOURCE, b"kept")
    _reject(client)
    client = _open(broker, arguments, TARGET)
    assert _get(client, TARGET) is None
    broker.tick(1000)
    assert _got(client, TARGET).body == b"kept"


def test_a_binding_made_elsewhere_a_moment_ago_is_not_missed() -> None:
    """Before a letter is dropped this node makes sure that it knows all bindings."""
    broker = Loopback()
    client = _open(broker, {"x-dead-letter-exchange": "dead", "x-dead-letter-routing-key": "new"}, TARGET)
    client.publish(SOURCE, b"x")
    broker.held[METADATA_GROUP] = None
    broker.submit_elsewhere(METADATA_GROUP, bind_queue(0, "/", TARGET, "dead", "new", {}, 1))
    _reject(client)
    assert _get(client, TARGET) is None
    del broker.held[METADATA_GROUP]
    broker.run()
    assert _got(client, TARGET).body == b"x"


def test_letters_refused_by_a_full_queue_come_when_there_is_room_and_once() -> None:
    """At-least-once: those that were taken do not come again with those that were not."""
    broker = Loopback()
    client = _open(
        broker,
        {
            "x-dead-letter-exchange": "dead",
            "x-dead-letter-routing-key": TARGET,
            "x-dead-letter-strategy": "at-least-once",
            "x-message-ttl": 10,
        },
    )
    full = {"x-max-length": 2, "x-overflow": "reject-publish"}
    client.call(m.QueueDeclare(queue=TARGET, durable=True, arguments=full), m.QueueDeclareOk)
    client.call(m.QueueBind(queue=TARGET, exchange="dead", routing_key=TARGET), m.QueueBindOk)
    client.publish(SOURCE, b"1", b"2", b"3", b"4", b"5")
    broker.tick(10)
    found = []
    for _ in range(8):
        broker.tick(1000)
        while (got := _get(client, TARGET)) is not None:
            found.append(got.body)
    assert found == [b"1", b"2", b"3", b"4", b"5"]


def test_new_leader_sends_again_and_nothing_comes_twice() -> None:
    """What was under way when the leader went is sent once more, under the same numbers."""
    broker = Loopback()
    client = _open(broker, {"x-dead-letter-exchange": "dead", "x-dead-letter-routing-key": TARGET}, TARGET)
    client.publish(SOURCE, *[b"%d" % number for number in range(20)])
    (source, target) = (broker.place("/", SOURCE), broker.place("/", TARGET))
    assert source != target
    broker.held[source] = None
    client.send(1, m.BasicConsume(queue=SOURCE))
    del broker.held[source]
    broker.run()
    client.take()
    broker.held[target] = None
    client.send(1, m.BasicNack(delivery_tag=20, multiple=True, requeue=False))
    broker.frontend.letters.leave(source)
    broker.run()
    del broker.held[target]
    broker.run()
    assert [_got(client, TARGET).body for _ in range(20)] == [b"%d" % number for number in range(20)]
    assert _get(client, TARGET) is None
    assert not any(machine.live() for machine in broker.machines.values())


def test_deleted_queue_takes_its_letters_along() -> None:
    """They wait for a binding that nobody makes."""
    broker = Loopback()
    client = _open(
        broker,
        {"x-dead-letter-exchange": "dead", "x-dead-letter-strategy": "at-least-once", "x-message-ttl": 1},
    )
    client.publish(SOURCE, b"x")
    broker.tick(10)
    assert any(machine.live() for machine in broker.machines.values())
    client.call(m.QueueDelete(queue=SOURCE), m.QueueDeleteOk)
    broker.tick(1000)
    assert not any(machine.live() for machine in broker.machines.values())


def test_redelivery_says_how_often_it_failed() -> None:
    """x-delivery-count on quorum queues, as RabbitMQ has it; the client's own headers stay."""
    broker = Loopback()
    client = _open(broker, {"x-queue-type": "quorum"})
    client.publish(SOURCE, b"body", headers={"mine": "yes"})
    client.send(1, m.BasicConsume(queue=SOURCE))
    for attempts in range(3):
        got = client.take()[-1]
        assert got.properties.headers == {
            "mine": "yes",
            **({"x-delivery-count": attempts} if attempts else {}),
        }
        assert (got.method.redelivered, got.body) == (attempts > 0, b"body")
        client.send(1, m.BasicNack(delivery_tag=got.method.delivery_tag))


def test_recover_counts_as_a_failed_delivery() -> None:
    """As basic.nack does, on a quorum queue of RabbitMQ: who recovers for ever meets the delivery limit."""
    broker = Loopback()
    client = _open(broker, {"x-queue-type": "quorum", "x-delivery-limit": 1})
    client.publish(SOURCE, b"body")
    client.send(1, m.BasicConsume(queue=SOURCE))
    assert client.take()[-1].properties.headers is None
    client.send(1, m.BasicRecover(requeue=True))
    assert client.take()[-1].properties.headers == {"x-delivery-count": 1}
    client.send(1, m.BasicRecover(requeue=True))
    assert client.take_methods() == [m.BasicRecoverOk()], "dead"
