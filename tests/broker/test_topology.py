"""Declaring, binding and deleting: answers, texts and what follows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.machine import Meta
from cluster.types import MEMORY_GROUP
from node.broker import topology_commands as commands
from node.broker.effects import Reply
from node.broker.errors import UnknownCommand
from node.broker.topology import TopologyMachine
from node.broker.topology_effects import QueueDeleted, Reason, VhostDeleted
from tests.broker.topology_driver import NODE, SESSION, Topology, exchange, message, names, owner, queue

ON_DEFAULT = "403 operation not permitted on the default exchange"


def test_formation_has_vhost_guest_and_predeclared_exchanges() -> None:
    """AMQP 3.1.3: the default exchange and one amq.* exchange for each type are there from the start."""
    machine = Topology().machine
    assert machine.vhosts() == ["/"]
    kinds = {record.name: record.type for record in machine.exchanges("/")}
    assert kinds == {
        "": "direct",
        "amq.direct": "direct",
        "amq.fanout": "fanout",
        "amq.headers": "headers",
        "amq.match": "headers",
        "amq.topic": "topic",
    }
    assert machine.check_vhost_access("guest", "/") is None
    assert machine.check_access("guest", "/", "write", "exchange", "") is None


def test_declare_queue_makes_it_once() -> None:
    """The uid is the entry's index and an ordinal; the second declaration finds the first."""
    topology = Topology()
    first, second = topology.run(queue("q"), queue("q"))
    assert (first.created, second.created, second.record) == (True, False, first.record)
    assert first.record.uid == topology.index << 16
    assert [type(effect) for effect in topology.effects] == [Reply, Reply]
    assert topology.machine.queue_by_uid(first.record.uid) is first.record


def test_reply_goes_only_to_the_node_that_asked() -> None:
    """Other nodes apply the same and tell nobody; but each knows of the queue."""
    topology = Topology()
    topology.run(queue("q"), origin=2)
    assert topology.effects == []
    assert topology.machine.queue("/", "q") is not None


def test_names_lose_cr_and_lf() -> None:
    """As RabbitMQ strips them."""
    topology = Topology()
    topology.run(queue("q\r\n1"), exchange("x\n"))
    topology.bind("\rx", "q1\n", "k")
    assert topology.route("x", "k") == ["q1"]


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (queue("amq.q"), "403 queue name 'amq.q' contains reserved prefix 'amq.*'"),
        (exchange("amq.x"), "403 exchange name 'amq.x' contains reserved prefix 'amq.*'"),
        (
            exchange("amq.direct", "fanout"),
            (
                "406 inequivalent arg 'type' for exchange 'amq.direct' in vhost '/': "
                "received 'fanout' but current is 'direct'"
            ),
        ),
        (exchange(""), ON_DEFAULT),
        (exchange("x", "no-such"), "406 unknown exchange type 'no-such'"),
        (commands.delete_exchange(1, "/", "", if_unused=False), ON_DEFAULT),
        (
            commands.delete_exchange(1, "/", "amq.topic", if_unused=False),
            "403 deletion of system exchange 'amq.topic' in vhost '/' not allowed",
        ),
        (commands.bind_queue(1, "/", "q", "", "k", {}, SESSION), ON_DEFAULT),
        (commands.bind_queue(1, "/", "q", "no", "k", {}, SESSION), "404 no exchange 'no' in vhost '/'"),
        (commands.bind_queue(1, "/", "no", "amq.topic", "k", {}, SESSION), "404 no queue 'no' in vhost '/'"),
        (commands.bind_exchange(1, "/", "no", "amq.topic", "k", {}), "404 no exchange 'no' in vhost '/'"),
        (commands.bind_exchange(1, "/", "", "amq.topic", "k", {}), ON_DEFAULT),
        (
            commands.bind_queue(1, "/", "q", "amq.match", "", {"x-match": 1}, SESSION),
            "406 Invalid x-match field type signedint (value 1); expected longstr",
        ),
        (queue("q", vhost="no"), "404 no vhost 'no'"),
        (commands.delete_vhost(1, "no"), "404 no vhost 'no'"),
        (commands.delete_user(1, "no"), "404 no user 'no'"),
        (commands.add_vhost(1, ""), "406 vhost name must have 1 to 255 characters"),
    ],
)
def test_command_is_refused(made: tuple[bytes, ...], text: str) -> None:
    """The reply is the spec's exception with RabbitMQ's text; nothing has changed."""
    topology = Topology()
    topology.queue("q")
    version = topology.machine.routes_version
    assert topology.refusal(made) == text
    assert topology.machine.routes_version == version


def test_error_names_the_method() -> None:
    """AMQP 1.5.2.5: the close method carries class and method of the failing method."""
    error = Topology().one(exchange("amq.x"))
    assert (error.class_id, error.method_id) == (40, 10)


def test_predeclared_exchange_may_be_declared_again() -> None:
    """The reserved prefix only matters for a new exchange."""
    assert Topology().one(exchange("amq.topic", "topic")).created is False


def test_deletes_and_unbinds_are_idempotent() -> None:
    """What is not there is as good as deleted."""
    topology = Topology()
    made = [
        commands.delete_exchange(1, "/", "no", if_unused=True),
        commands.delete_queue(1, 99),
        commands.unbind_queue(1, "/", "no", "no", "k", {}, SESSION),
        commands.unbind_exchange(1, "/", "no", "no", "k", {}),
        commands.close_session(1, 99),
    ]
    assert topology.run(*made) == [None] * len(made)


def test_binding_of_a_locked_queue_is_undone_by_its_owner_only() -> None:
    """What is not bound is unbound, whoever asks."""
    topology = Topology()
    topology.queue("q", exclusive=True)
    topology.bind("amq.direct", "q", "k")
    other = SESSION + 1
    assert topology.one(commands.unbind_queue(1, "/", "q", "amq.direct", "no", {}, other)) is None
    assert topology.refusal(commands.unbind_queue(1, "/", "q", "amq.direct", "k", {}, other)).startswith(
        "405"
    )


def test_exchange_in_use_is_not_deleted_if_unused() -> None:
    """406 while there is a binding that leaves it; bindings that lead to it do not count."""
    topology = Topology()
    topology.exchange("x")
    topology.queue("q")
    topology.link("amq.direct", "x")
    topology.bind("x", "q")
    delete = commands.delete_exchange(1, "/", "x", if_unused=True)
    assert topology.refusal(delete) == "406 exchange 'x' in vhost '/' in use"
    topology.unbind("x", "q")
    assert topology.one(delete) is None
    assert topology.machine.exchange("/", "x") is None
    assert [b for b in topology.machine.bindings("/") if b.source] == []


def test_binding_is_identified_by_key_and_arguments() -> None:
    """Binding twice is binding once; other arguments are another binding."""
    topology = Topology()
    topology.queue("q")
    topology.bind("amq.direct", "q", "k")
    topology.bind("amq.direct", "q", "k")
    topology.bind("amq.direct", "q", "k", {"a": 1})
    assert topology.route("amq.direct", "k") == ["q"]
    topology.unbind("amq.direct", "q", "k")
    assert topology.route("amq.direct", "k") == ["q"]
    topology.unbind("amq.direct", "q", "k", {"a": 1})
    assert topology.route("amq.direct", "k") == []


def test_auto_delete_exchange_goes_with_its_last_binding() -> None:
    """And takes along the auto-delete exchange that only led to it; one that never had a binding stays."""
    topology = Topology()
    for name in ("first", "second", "fresh"):
        topology.exchange(name, "fanout", auto_delete=True)
    uid = topology.queue("q").uid
    topology.link("first", "second")
    topology.bind("second", "q")
    assert topology.route("first") == ["q"]
    topology.run(commands.delete_queue(1, uid))
    assert "fresh" in names(topology.machine.exchanges("/"))
    assert {"first", "second"}.isdisjoint(names(topology.machine.exchanges("/")))
    assert topology.route("first") is None


def test_deleted_queue_takes_its_bindings() -> None:
    """Whoever declares the name again gets a new uid and no old binding."""
    topology = Topology()
    old = topology.queue("q")
    topology.bind("amq.fanout", "q")
    topology.run(commands.delete_queue(1, old.uid))
    assert topology.effects[0] == QueueDeleted(old, Reason.DELETED)
    assert topology.queue("q").uid > old.uid
    assert topology.route("amq.fanout") == []
    assert topology.route("", "q") == ["q"]


def test_exclusive_queue_lives_with_its_session() -> None:
    """It is in the memory of its node, not durable, and only its own session binds it."""
    topology = Topology()
    record = topology.queue("q", exclusive=True)
    assert (record.group, record.durable, record.owner) == (MEMORY_GROUP + NODE, False, owner())
    foreign = commands.bind_queue(1, "/", "q", "amq.fanout", "", {}, 8)
    assert topology.refusal(foreign).startswith("405 cannot obtain exclusive access to locked queue 'q'")
    own = commands.bind_queue(1, "/", "q", "amq.fanout", "", {}, SESSION)
    assert topology.run(own, origin=2) == []
    assert topology.route("amq.fanout") == []  # the same session number on another node is another session
    assert topology.one(own) is None
    topology.run(commands.close_session(0, SESSION), origin=2)
    assert topology.route("amq.fanout") == ["q"]
    topology.run(commands.close_session(0, SESSION))
    assert topology.effects == [QueueDeleted(record, Reason.SESSION_CLOSED)]
    assert topology.route("amq.fanout") == []


def test_exclusive_queues_go_with_their_node() -> None:
    """origin_gone ends all sessions of that node, and none of the others."""
    topology = Topology()
    topology.queue("mine", exclusive=True)
    gone = [topology.queue(f"q{n}", exclusive=True, origin=2, session=n) for n in (1, 2)]
    topology.queue("kept", origin=2)
    effects = topology.machine.origin_gone(Meta(99, 0, 2))
    assert effects == [QueueDeleted(record, Reason.ORIGIN_GONE) for record in gone]
    assert names(topology.machine.queues()) == ["mine", "kept"]
    assert topology.machine.origin_gone(Meta(100, 0, 2)) == []


def test_deleted_vhost_takes_everything() -> None:
    """Queues are told one by one, for their shards must drop them; permissions in it are gone."""
    topology = Topology()
    topology.run(commands.add_vhost(1, "v"), commands.set_permissions(1, "guest", "v", ".*", ".*", ".*"))
    record = topology.queue("q", vhost="v")
    flags = {"durable": True, "auto_delete": True, "internal": False}
    topology.run(
        commands.declare_exchange(1, "v", "x", "topic", arguments={}, **flags),
        commands.bind_exchange(1, "v", "x", "x", "#", {}),
        commands.bind_exchange(1, "v", "amq.topic", "x", "#", {}),
        commands.bind_queue(1, "v", "q", "amq.topic", "#", {}, SESSION),
    )
    topology.run(commands.delete_vhost(1, "v"))
    assert topology.effects[:2] == [QueueDeleted(record, Reason.VHOST_DELETED), VhostDeleted("v")]
    assert topology.machine.route("v", "amq.topic", "", message()) is None
    assert topology.machine.permission("guest", "v") is None
    error = topology.machine.check_vhost_access("guest", "v")
    assert error is not None and error.text == "vhost v not found"
    assert topology.machine.checkpoint(full=True)[1:] == Topology().machine.checkpoint(full=True)[1:]


def test_unknown_command_halts_before_anything_ran() -> None:
    """A newer version's command must not be skipped: replicas would differ."""
    topology = Topology()
    with pytest.raises(UnknownCommand):
        topology.run(queue("q"), (b"\xfa\x00\x00\x00\x00",))
    assert topology.machine.queue("/", "q") is None


@given(st.sampled_from(sorted(commands.FIELDS)), st.data())
def test_apply_is_total_for_any_octets_in_the_fields(kind: int, data: st.DataObject) -> None:
    """Also for tables that are none and text that is no UTF-8: none makes them; all can be read."""
    topology = Topology()
    topology.queue("q")
    octets = st.binary(max_size=12)
    shapes = {"Q": st.integers(0, (1 << 64) - 1), "B": st.booleans(), "x": octets}
    text = octets.map(lambda raw: raw.decode("utf-8", "surrogateescape")) | st.sampled_from(
        ["/", "q", "amq.topic"]
    )
    values = [data.draw(shapes.get(shape, text)) for shape in commands.FIELDS[kind]]
    body = commands.pack_fields(commands.FIELDS[kind], tuple(values))
    topology.run((bytes([kind]) + len(body).to_bytes(4, "big") + body,))
    assert len(list(topology.machine.bindings("/"))) <= 2
    assert topology.machine.checkpoint(full=True)


TEXT = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(
    ["", "/", "q", "amq.topic", "x-match"]
)
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 1 << 40), st.floats(), TEXT, st.binary(max_size=3)
)
ARGUMENTS = st.dictionaries(
    st.sampled_from(["x-match", "x-expires", "x-overflow", "alternate-exchange", "x-max-length", "k"]), VALUES
)


@given(TEXT, TEXT, TEXT, TEXT, ARGUMENTS, st.booleans(), st.integers(0, (1 << 64) - 1))
def test_apply_is_total(  # noqa: PLR0917 - hypothesis gives them by position
    vhost: str, one: str, other: str, key: str, arguments: dict[str, object], flag: bool, number: int
) -> None:
    """No content of any command makes apply raise."""
    topology = Topology()
    topology.queue("q")
    flags = {"durable": flag, "auto_delete": not flag}
    topology.run(
        commands.declare_exchange(1, "/", one, key, internal=flag, arguments=arguments, **flags),
        commands.declare_exchange(1, "/", other, "headers", internal=flag, arguments=arguments, **flags),
        queue(
            one, vhost=vhost, exclusive=flag, arguments=arguments, session=number, server_named=flag, **flags
        ),
        queue(one, arguments=arguments, group=number, **flags),
        commands.bind_queue(1, "/", one, other, key, arguments, number),
        commands.bind_exchange(1, "/", one, other, key, arguments),
        commands.add_vhost(1, vhost),
        commands.add_user(1, one, b"", key.encode(), (other,)),
        commands.set_permissions(1, one, vhost, "", ".*", "a"),
        commands.unbind_queue(1, "/", one, other, key, arguments, number),
        commands.unbind_exchange(1, "/", one, other, key, arguments),
        commands.delete_exchange(1, "/", other, if_unused=flag),
        commands.delete_queue(1, number),
        commands.close_session(number, number),
        commands.clear_permissions(1, one, vhost),
        commands.delete_user(1, one),
        commands.delete_vhost(1, vhost),
    )
    copy = TopologyMachine(NODE)
    copy.restore([(k, v) for k, v in topology.machine.checkpoint(full=True) if v is not None])
    assert copy.checkpoint(full=True) == topology.machine.checkpoint(full=True)
