"""Every feature across a change of leader: declare and publish, SIGKILL the leader of each shard, look.

A test is a generator. What stands before its `yield` is done for all tests first, through the node that is killed next,
or by consumers on a node that stays; then the leaders of all shards are killed, one after the other; then each test
looks, through another node. So all features share the kills, and one that is hurt by another is seen as well.
"""

import calendar
import time
from collections.abc import Iterator

import pika
import pika.exceptions
import pytest

from integration.harness import Cluster, temporary_directory, wait_for
from integration.scene import (
    ANSWER_S_MAX,
    SHARDS,
    Consumer,
    Scene,
    Steps,
    across_leaders,
    declare,
    drain,
    send,
    take_when_there,
    wait_until,
)

WAIT_MS = 8000
"""Times to live, delays and timeouts: they begin before the kills and end after the first of them."""


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with (
        temporary_directory() as directory,
        Cluster(directory, settings={"shards": SHARDS}) as cluster,
    ):
        found = Scene(cluster)
        try:
            found.run()
            yield found
        finally:
            found.close()


# --- publishing ---


@across_leaders
def test_confirmed_messages_are_there_in_order(scene: Scene) -> Steps:
    """What was confirmed is in the queue, once, in the order in which it was published."""
    declare(scene.first, "confirmed")
    send(scene.first, "confirmed", *[str(i) for i in range(100)])
    yield
    assert drain(scene.look(), "confirmed") == [str(i) for i in range(100)]


@across_leaders
def test_copies_are_there(scene: Scene) -> Steps:
    """CC and BCC are further routing keys; nobody is told of BCC."""
    for name in ("copy.to", "copy.cc", "copy.bcc"):
        declare(scene.first, name)
    send(scene.first, "copy.to", "x", headers={"CC": ["copy.cc"], "BCC": ["copy.bcc"]})
    yield
    channel = scene.look()
    for name in ("copy.to", "copy.cc", "copy.bcc"):
        _, _, properties, body = take_when_there(channel, name)
        assert (body, properties.headers) == ("x", {"CC": ["copy.cc"]})


@across_leaders
def test_duplicate_is_known(scene: Scene) -> Steps:
    """A publisher that sends again through another node has its message stored once."""
    declare(scene.first, "dedup")
    send(scene.first, "dedup", "a", headers={"x-dedup-id": "order-1"})
    yield
    channel = scene.look()
    send(channel, "dedup", "a", headers={"x-dedup-id": "order-1"})
    send(channel, "dedup", "b", headers={"x-dedup-id": "order-2"})
    assert drain(channel, "dedup") == ["a", "b"]


@across_leaders
def test_transaction_is_done_or_not(scene: Scene) -> Steps:
    """A commit that was answered stays; what was not committed on a node that died is not there."""
    declare(scene.first, "tx")
    channel = scene.first.connection.channel()
    channel.tx_select()
    send(channel, "tx", "committed")
    channel.tx_commit()
    send(channel, "tx", "lost with its node")
    open_still = scene.kept.channel()
    open_still.tx_select()
    send(open_still, "tx", "committed later")
    yield
    assert scene.ready("tx") == 1
    open_still.tx_commit()
    assert drain(scene.look(), "tx") == ["committed", "committed later"]


@across_leaders
def test_mandatory_message_comes_back(scene: Scene) -> Steps:
    """Where the binding is deleted on one node, publishes through another go nowhere."""
    channel = scene.first
    channel.exchange_declare("mandatory", durable=True)
    declare(channel, "mandatory")
    channel.queue_bind("mandatory", "mandatory", "key")
    channel.queue_unbind("mandatory", "mandatory", "key")
    yield
    with pytest.raises(pika.exceptions.UnroutableError):
        scene.look().basic_publish("mandatory", "key", b"x", mandatory=True)


@across_leaders
def test_user_id_is_checked(scene: Scene) -> Steps:
    """A true one is delivered, a false one refused."""
    declare(scene.first, "user")
    send(scene.first, "user", "mine", user_id="guest")
    yield
    channel = scene.look()
    assert take_when_there(channel, "user")[2].user_id == "guest"
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as raised:
        send(channel, "user", "false", user_id="somebody")
    assert raised.value.reply_code == 406


# --- routing ---


@across_leaders
def test_exchanges_and_bindings_stay(scene: Scene) -> Steps:
    """Topic and headers exchanges, and a binding between exchanges, route after it as before."""
    channel = scene.first
    channel.exchange_declare("routes.topic", "topic", durable=True)
    channel.exchange_declare("routes.headers", "headers", durable=True)
    channel.exchange_bind("routes.headers", "routes.topic", "to.headers.#")
    declare(channel, "routes.a")
    declare(channel, "routes.b")
    channel.queue_bind("routes.a", "routes.topic", "*.a")
    channel.queue_bind("routes.b", "routes.headers", arguments={"x-match": "all", "colour": "red"})
    yield
    after = scene.look()
    after.basic_publish("routes.topic", "any.a", b"1")
    red = pika.BasicProperties(headers={"colour": "red"})
    after.basic_publish("routes.topic", "to.headers", b"2", red)
    after.basic_publish("routes.topic", "to.headers", b"3")
    assert (drain(after, "routes.a"), drain(after, "routes.b")) == (["1"], ["2"])


@across_leaders
def test_alternate_exchange_takes_what_goes_nowhere(scene: Scene) -> Steps:
    """Before and after."""
    channel = scene.first
    channel.exchange_declare("alternate.to", "fanout", durable=True)
    channel.exchange_declare("alternate", durable=True, arguments={"alternate-exchange": "alternate.to"})
    declare(channel, "alternate.rest")
    channel.queue_bind("alternate.rest", "alternate.to")
    channel.basic_publish("alternate", "nowhere", b"before")
    yield
    after = scene.look()
    after.basic_publish("alternate", "nowhere", b"after")
    assert drain(after, "alternate.rest") == ["before", "after"]


# --- what becomes of messages ---


@across_leaders
def test_message_ttl_runs_on(scene: Scene) -> Steps:
    """Messages expire at their time, neither earlier nor later, and each is dead-lettered once."""
    declare(
        scene.first, "ttl", message_ttl=WAIT_MS, dead_letter_exchange="", dead_letter_routing_key="ttl.dead"
    )
    declare(scene.first, "ttl.dead")
    published = time.time()
    send(scene.first, "ttl", "a", "b")
    yield
    channel = scene.look()
    expires = published + WAIT_MS / 1000
    for body in ("a", "b"):
        _, _, properties, found = take_when_there(channel, "ttl.dead")
        (death,) = properties.headers["x-death"]
        assert (found, death["reason"], death["count"]) == (body, "expired", 1)
        assert calendar.timegm(death["time"].timetuple()) >= int(expires)
    assert (drain(channel, "ttl"), drain(channel, "ttl.dead")) == ([], [])


@across_leaders
def test_expiration_runs_on(scene: Scene) -> Steps:
    """A message's own time to live."""
    declare(scene.first, "expiration")
    published = time.time()
    send(scene.first, "expiration", "short", expiration=str(WAIT_MS))
    send(scene.first, "expiration", "long", expiration="3600000")
    yield
    assert wait_for(lambda: scene.ready("expiration") == 1, ANSWER_S_MAX)
    assert time.time() >= published + WAIT_MS / 1000
    assert drain(scene.look(), "expiration") == ["long"]


@across_leaders
def test_unused_queue_expires(scene: Scene) -> Steps:
    """At its time and not before."""
    declare(scene.first, "expires", expires=WAIT_MS)
    declared = time.time()
    yield
    assert wait_for(lambda: scene.ready("expires") is None, ANSWER_S_MAX)
    assert time.time() >= declared + WAIT_MS / 1000 - 0.1


@across_leaders
def test_length_limits_drop_the_oldest(scene: Scene) -> Steps:
    """Limits of messages and of bytes are exact with what was there before."""
    declare(scene.first, "length", max_length=3)
    declare(scene.first, "bytes", max_length_bytes=10)
    send(scene.first, "length", "1", "2", "3", "4")
    send(scene.first, "bytes", "11111", "22222")
    yield
    channel = scene.look()
    assert scene.ready("length") == 3
    send(channel, "length", "5")
    send(channel, "bytes", "33333")
    assert drain(channel, "length") == ["3", "4", "5"]
    assert drain(channel, "bytes") == ["22222", "33333"]


@across_leaders
def test_full_queue_refuses(scene: Scene) -> Steps:
    """With reject-publish a publish is nacked; with reject-publish-dlx it is dead-lettered too."""
    declare(scene.first, "refuse", max_length=2, overflow="reject-publish")
    dead = {"dead_letter_exchange": "", "dead_letter_routing_key": "refuse.dead"}
    declare(scene.first, "refuse.dlx", max_length=1, overflow="reject-publish-dlx", **dead)
    declare(scene.first, "refuse.dead")
    send(scene.first, "refuse", "1", "2")
    send(scene.first, "refuse.dlx", "1")
    with pytest.raises(pika.exceptions.NackError):
        send(scene.first, "refuse", "before")
    yield
    channel = scene.look()
    for queue in ("refuse", "refuse.dlx"):
        with pytest.raises(pika.exceptions.NackError):
            send(channel, queue, "after")
    assert drain(channel, "refuse") == ["1", "2"]
    assert drain(channel, "refuse.dlx") == ["1"]
    assert take_when_there(channel, "refuse.dead")[3] == "after"


@across_leaders
def test_dead_letter_that_no_queue_takes_waits(scene: Scene) -> Steps:
    """At-least-once: it comes as soon as there is a queue for it."""
    dead = {"dead_letter_exchange": "", "dead_letter_routing_key": "waits.dead"}
    declare(scene.first, "waits", dead_letter_strategy="at-least-once", overflow="reject-publish", **dead)
    send(scene.first, "waits", "x")
    method, _, _ = scene.first.basic_get("waits")
    scene.first.basic_reject(method.delivery_tag, requeue=False)
    yield
    channel = scene.look()
    declare(channel, "waits.dead")
    assert take_when_there(channel, "waits.dead")[3] == "x"
    assert drain(channel, "waits.dead") == []


@across_leaders
def test_cycle_of_dead_letters_ends(scene: Scene) -> Steps:
    """A message that expires in both queues of a circle is dropped when it has been round."""
    for here, there in (("cycle.a", "cycle.b"), ("cycle.b", "cycle.a")):
        dead = {"dead_letter_exchange": "", "dead_letter_routing_key": there}
        declare(scene.first, here, message_ttl=WAIT_MS if here == "cycle.a" else 100, **dead)
    published = time.time()
    send(scene.first, "cycle.a", "x")
    yield
    assert wait_for(lambda: scene.ready("cycle.a") == 0, ANSWER_S_MAX)
    assert time.time() >= published + WAIT_MS / 1000
    assert wait_for(lambda: scene.ready("cycle.b") == 0, ANSWER_S_MAX)
    assert scene.ready("cycle.a") == 0


@across_leaders
def test_priorities_stay(scene: Scene) -> Steps:
    """Higher ones first, in order within each, whether published before or after."""
    declare(scene.first, "priority", max_priority=9)
    for priority in (1, 5, 9, 5):
        send(scene.first, "priority", f"{priority} before", priority=priority)
    yield
    channel = scene.look()
    send(channel, "priority", "5 after", priority=5)
    expected = ["9 before", "5 before", "5 before", "5 after", "1 before"]
    assert drain(channel, "priority") == expected


@across_leaders
def test_delayed_messages_come_at_their_time(scene: Scene) -> Steps:
    """Each once, and none early: x-delay and x-deliver-at."""
    declare(scene.first, "delay")
    published = time.time()
    due_ms = int((published + WAIT_MS / 1000 + 0.5) * 1000)
    send(scene.first, "delay", "x-delay", headers={"x-delay": WAIT_MS})
    send(scene.first, "delay", "x-deliver-at", headers={"x-deliver-at": due_ms})
    send(scene.first, "delay", "at once")
    yield
    channel = scene.look()
    assert take_when_there(channel, "delay")[3] == "at once"
    came, _, _, body = take_when_there(channel, "delay")
    assert body == "x-delay" and came >= published + WAIT_MS / 1000
    came, _, _, body = take_when_there(channel, "delay")
    assert body == "x-deliver-at" and came >= due_ms / 1000
    assert drain(channel, "delay") == []


@across_leaders
def test_delivery_limit_counts_on(scene: Scene) -> Steps:
    """Failures before and after count together; a delivery says how many there were."""
    dead = {"dead_letter_exchange": "", "dead_letter_routing_key": "limit.dead"}
    declare(scene.first, "limit", delivery_limit=2, **dead)
    declare(scene.first, "limit.dead")
    send(scene.first, "limit", "poison")
    for _ in range(2):
        method, _, _ = scene.first.basic_get("limit")
        scene.first.basic_nack(method.delivery_tag, requeue=True)
    yield
    channel = scene.look()
    method, properties, _ = channel.basic_get("limit")
    assert (method.redelivered, properties.headers["x-delivery-count"]) == (True, 2)
    channel.basic_nack(method.delivery_tag, requeue=True)
    _, _, properties, body = take_when_there(channel, "limit.dead")
    assert (body, properties.headers["x-first-death-reason"]) == ("poison", "delivery_limit")
    assert drain(channel, "limit") == []


@across_leaders
def test_delayed_retry_waits_on(scene: Scene) -> Steps:
    """What failed comes again at its time, marked redelivered."""
    declare(scene.first, "retry", delayed_retry_type="all", delayed_retry_min=WAIT_MS)
    send(scene.first, "retry", "again")
    method, _, _ = scene.first.basic_get("retry")
    failed = time.time()
    scene.first.basic_nack(method.delivery_tag, requeue=True)
    yield
    came, method, _, body = take_when_there(scene.look(), "retry")
    assert (body, method.redelivered) == ("again", True)
    assert came >= failed + WAIT_MS / 1000


# --- consumers ---


@across_leaders
def test_unacked_messages_of_a_dead_node_come_again(scene: Scene) -> Steps:
    """In their old order, marked redelivered; those of a node that lives stay where they are."""
    declare(scene.first, "unacked")
    send(scene.first, "unacked", "dying", "kept", "next")
    scene.first.basic_get("unacked")
    kept = scene.kept.channel()
    method, _, body = kept.basic_get("unacked")
    assert body == b"kept"
    yield
    channel = scene.look()
    _, again, _, body = take_when_there(channel, "unacked")
    assert (body, again.redelivered) == ("dying", True)
    _, after, _, body = take_when_there(channel, "unacked")
    assert (body, after.redelivered) == ("next", False)
    kept.basic_ack(method.delivery_tag)
    kept.close()
    assert drain(channel, "unacked") == []


@across_leaders
def test_prefetch_counts_on(scene: Scene) -> Steps:
    """What was delivered before fills the prefetch after, of a consumer and of a channel, until it is acked."""
    readers: dict[str, Consumer] = {}
    for name, is_global in (("prefetch", False), ("prefetch.channel", True)):
        declare(scene.first, name)
        reader = Consumer(scene.kept, name, prefetch=2, global_qos=is_global)
        send(scene.first, name, "1", "2", "3")
        assert reader.wait(2) == [b"1", b"2"]
        readers[name] = reader
    yield
    for name, reader in readers.items():
        scene.kept.process_data_events(0.1)
        assert reader.bodies == [b"1", b"2"]
        reader.channel.basic_ack(1)
        assert reader.wait(3) == [b"1", b"2", b"3"]
        reader.channel.close()
        assert drain(scene.look(), name) == ["2", "3"]


@across_leaders
def test_one_consumer_stays_active(scene: Scene) -> Steps:
    """The one that was served is served on; the other one when it leaves."""
    declare(scene.first, "single", single_active_consumer=True)
    one = Consumer(scene.kept, "single", auto_ack=True)
    other = Consumer(scene.kept, "single", auto_ack=True)
    send(scene.first, "single", "before")
    assert one.wait(1) == [b"before"]
    yield
    channel = scene.look()
    send(channel, "single", "after")
    assert one.wait(2) == [b"before", b"after"]
    one.channel.basic_cancel(one.tag)
    send(channel, "single", "last")
    assert other.wait(1) == [b"last"]
    other.channel.close()


@across_leaders
def test_consumer_priorities_stay(scene: Scene) -> Steps:
    """The consumer of the higher priority is served while it takes more."""
    declare(scene.first, "consumers")
    low = Consumer(scene.kept, "consumers", arguments={"x-priority": 1})
    high = Consumer(scene.kept, "consumers", arguments={"x-priority": 10}, prefetch=2)
    yield
    send(scene.look(), "consumers", "1", "2", "3")
    assert (high.wait(2), low.wait(1)) == ([b"1", b"2"], [b"3"])
    high.channel.close()
    low.channel.close()


@across_leaders
def test_exclusive_consumer_stays_alone(scene: Scene) -> Steps:
    """403 for any other."""
    declare(scene.first, "alone")
    alone = Consumer(scene.kept, "alone", exclusive=True)
    yield
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as raised:
        scene.look().basic_consume("alone", lambda *_: None)
    assert raised.value.reply_code == 403
    alone.channel.close()


@across_leaders
def test_consumer_timeout_runs_on(scene: Scene) -> Steps:
    """At its time the consumer is cancelled, and another one gets its message."""
    declare(scene.first, "timeout", consumer_timeout=WAIT_MS)
    send(scene.first, "timeout", "x")
    got = time.time()
    slow = Consumer(scene.kept, "timeout")
    assert slow.wait(1) == [b"x"]
    yield
    wait_until(scene.kept, lambda: slow.cancelled_s > 0)
    assert slow.cancelled_s >= got + WAIT_MS / 1000
    _, method, _, body = take_when_there(scene.look(), "timeout")
    assert (body, method.redelivered) == ("x", True)
    assert slow.channel.is_open
    slow.channel.close()


@across_leaders
def test_direct_reply_finds_its_requester(scene: Scene) -> Steps:
    """The request is in a queue; the reply goes through another node to where the requester waits."""
    declare(scene.first, "requests")
    requester = Consumer(scene.kept, "amq.rabbitmq.reply-to", auto_ack=True)
    send(requester.channel, "requests", "2 + 2", reply_to="amq.rabbitmq.reply-to")
    wait_until(scene.kept, lambda: scene.cluster.counts("requests", scene.cluster.nodes[0])[0] == 1)
    yield
    channel = scene.look()
    _, _, properties, _ = take_when_there(channel, "requests")
    send(channel, properties.reply_to, "4")
    assert requester.wait(1) == [b"4"]
    requester.channel.close()


# Last, so that the letters are under way when the leader dies.
@across_leaders
def test_dead_letters_come_once(scene: Scene) -> Steps:
    """Rejected right before the leader dies: all are there, each once, in their order."""
    dead = {"dead_letter_exchange": "", "dead_letter_routing_key": "rejected.dead"}
    declare(scene.first, "rejected", **dead)
    declare(scene.first, "rejected.dead")
    send(scene.first, "rejected", *[str(i) for i in range(100)])
    reader = Consumer(scene.kept, "rejected")
    reader.wait(100)
    reader.channel.basic_nack(0, multiple=True, requeue=False)
    scene.kept.process_data_events(0)
    yield
    channel = scene.look()
    assert wait_for(lambda: scene.ready("rejected.dead") == 100, ANSWER_S_MAX), scene.ready("rejected.dead")
    assert drain(channel, "rejected.dead") == [str(i) for i in range(100)]
    assert drain(channel, "rejected") == []
    reader.channel.close()
