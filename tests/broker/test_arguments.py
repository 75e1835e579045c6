"""The x-* arguments: the texts of RabbitMQ's 406, word for word."""

from typing import Any

import pytest

from node.broker.records import Owner
from node.wire.primitives import Byte, Long
from tests.broker.topology_driver import Topology, exchange, queue

Q = "queue 'q' in vhost '/'"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"x-message-ttl": -1}, f"invalid arg 'x-message-ttl' for {Q}: {{value_negative,-1}}"),
        (
            {"x-message-ttl": 315360000001},
            f"invalid arg 'x-message-ttl' for {Q}: {{value_too_large,315360000001}}",
        ),
        ({"x-message-ttl": "1"}, f"invalid arg 'x-message-ttl' for {Q}: \"expected integer, got longstr\""),
        ({"x-expires": 0}, f"invalid arg 'x-expires' for {Q}: {{value_zero,0}}"),
        ({"x-max-length": True}, f"invalid arg 'x-max-length' for {Q}: \"expected integer, got bool\""),
        ({"x-max-length-bytes": -5}, f"invalid arg 'x-max-length-bytes' for {Q}: {{value_negative,-5}}"),
        ({"x-max-priority": 256}, f"invalid arg 'x-max-priority' for {Q}: {{max_value_exceeded,256}}"),
        ({"x-overflow": "drop"}, f"invalid arg 'x-overflow' for {Q}: invalid_overflow"),
        ({"x-overflow": 1}, f"invalid arg 'x-overflow' for {Q}: {{unacceptable_type,signedint}}"),
        (
            {"x-dead-letter-routing-key": "k"},
            f"invalid arg 'x-dead-letter-routing-key' for {Q}: routing_key_but_no_dlx_defined",
        ),
        (
            {"x-dead-letter-strategy": "twice"},
            f"invalid arg 'x-dead-letter-strategy' for {Q}: invalid_dlx_strategy",
        ),
        ({"x-dead-letter-exchange": 1}, f"invalid type 'signedint' for arg 'x-dead-letter-exchange' in {Q}"),
        (
            {"x-single-active-consumer": "yes"},
            f"invalid arg 'x-single-active-consumer' for {Q}: {{unacceptable_type,longstr}}",
        ),
        ({"x-queue-type": "foo"}, f"invalid arg 'x-queue-type' for {Q}: \"unsupported queue type 'foo'\""),
        (
            {"x-queue-type": "stream"},
            f"invalid arg 'x-queue-type' for {Q}: \"unsupported queue type 'stream'\"",
        ),
        ({"x-queue-version": 1}, f"invalid arg 'x-queue-version' for {Q}: \"unsupported queue version '1'\""),
        ({"x-max-age": "7W"}, f"invalid arg 'x-max-age' for {Q}: invalid_max_age"),
        ({"x-max-age": "7D"}, f"invalid arg 'x-max-age' for {Q} of queue type rabbit_classic_queue"),
        (
            {"x-queue-type": "quorum", "x-stream-filter-size-bytes": 16},
            f"invalid arg 'x-stream-filter-size-bytes' for {Q} of queue type rabbit_quorum_queue",
        ),
        (
            {"x-queue-leader-locator": "far"},
            f"invalid arg 'x-queue-leader-locator' for {Q}: invalid_queue_locator_arg",
        ),
    ],
)
def test_declare_is_refused_for_an_invalid_argument(arguments: dict[str, Any], text: str) -> None:
    """406 names the argument and what is wrong, as an Erlang term."""
    topology = Topology()
    assert topology.refusal(queue("q", arguments=arguments)) == f"406 {text}"
    assert topology.machine.queue("/", "q") is None


def test_declare_takes_valid_and_unknown_arguments() -> None:
    """What is valid or unknown is kept as it came, e.g. for the management interface."""
    arguments: dict[str, Any] = {
        "x-message-ttl": 0,
        "x-expires": 1,
        "x-max-length": 0,
        "x-max-priority": 255,
        "x-overflow": "reject-publish-dlx",
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": "k",
        "x-single-active-consumer": True,
        "x-queue-type": "quorum",
        "x-delivery-limit": -1,
        "x-of-mine": [1, {"deep": None}],
    }
    assert Topology().queue("q", arguments=arguments).arguments == arguments


def test_quorum_queue_is_refused_when_not_durable_or_exclusive() -> None:
    """Who asks for a quorum queue asks for a replicated one."""
    topology = Topology()
    quorum = {"x-queue-type": "quorum"}
    expected = f"406 invalid property 'non-durable' for {Q}"
    assert topology.refusal(queue("q", arguments=quorum, durable=False)) == expected
    expected = f"406 invalid property 'exclusive-owner' for {Q}"
    assert topology.refusal(queue("q", arguments=quorum, exclusive=True)) == expected


@pytest.mark.parametrize(
    ("current", "received", "text"),
    [
        ({}, {"durable": False}, "'durable' for {}: received 'false' but current is 'true'"),
        ({}, {"auto_delete": True}, "'auto_delete' for {}: received 'true' but current is 'false'"),
        (
            {},
            {"arguments": {"x-max-length": 5}},
            "'x-max-length' for {}: received the value '5' of type 'signedint' but current is none",
        ),
        (
            {"arguments": {"x-overflow": "drop-head"}},
            {},
            "'x-overflow' for {}: received none but current is the value 'drop-head' of type 'longstr'",
        ),
        (
            {"arguments": {"x-max-length": Byte(5)}},
            {"arguments": {"x-max-length": Long(6)}},
            "'x-max-length' for {}: received '6' but current is '5'",
        ),
        (
            {"arguments": {"x-queue-type": "quorum"}},
            {},
            "'x-queue-type' for {}: received none but current is the value 'quorum' of type 'longstr'",
        ),
    ],
)
def test_redeclare_is_refused_when_it_differs(
    current: dict[str, Any], received: dict[str, Any], text: str
) -> None:
    """406 names the first difference: durable, auto_delete, then arguments."""
    topology = Topology()
    topology.queue("q", **current)
    assert topology.refusal(queue("q", **received)) == f"406 inequivalent arg {text.format(Q)}"


@pytest.mark.parametrize(
    ("current", "received"),
    [
        ({"x-max-length": Byte(5)}, {"x-max-length": Long(5)}),
        ({}, {"x-queue-type": "classic"}),
        ({"x-queue-type": "classic"}, {}),
        ({"x-of-mine": 1}, {"x-of-mine": 2}),
    ],
)
def test_redeclare_is_accepted_when_equivalent(current: dict[str, Any], received: dict[str, Any]) -> None:
    """Widths of integers, the default type and unknown arguments make no difference."""
    topology = Topology()
    record = topology.queue("q", arguments=current)
    answer = topology.one(queue("q", arguments=received))
    assert (answer.record, answer.created) == (record, False)


@pytest.mark.parametrize(
    ("received", "text"),
    [
        (exchange("x", "fanout"), "'type' for {}: received 'fanout' but current is 'direct'"),
        (exchange("x", durable=False), "'durable' for {}: received 'false' but current is 'true'"),
        (exchange("x", auto_delete=True), "'auto_delete' for {}: received 'true' but current is 'false'"),
        (exchange("x", internal=True), "'internal' for {}: received 'true' but current is 'false'"),
        (
            exchange("x", arguments={"alternate-exchange": "y"}),
            "'alternate-exchange' for {}: received the value 'y' of type 'longstr' but current is none",
        ),
    ],
)
def test_redeclare_of_exchange_is_refused_when_it_differs(received: tuple[bytes, ...], text: str) -> None:
    """406 for exchanges: type, durable, auto_delete, internal, alternate-exchange."""
    topology = Topology()
    topology.exchange("x")
    expected = "406 inequivalent arg " + text.format("exchange 'x' in vhost '/'")
    assert topology.refusal(received) == expected


def test_exclusive_queue_is_locked_for_others() -> None:
    """405 for every other session, and for its own where the exclusive property differs."""
    topology = Topology()
    topology.queue("q", exclusive=True)
    locked = (
        f"405 cannot obtain exclusive access to locked {Q}. It could be originally declared on another "
        "connection or the exclusive property value does not match that of the original declaration."
    )
    assert topology.refusal(queue("q", exclusive=True, session=8)) == locked
    assert topology.refusal(queue("q")) == locked
    found = topology.machine.find_queue("/", "q", Owner(1, 8))
    assert f"{found.reply_code} {found.text}" == locked  # type: ignore[union-attr]  # an error, or this fails
    assert topology.one(queue("q", exclusive=True, durable=False)).created is False


def test_alternate_exchange_must_be_a_name() -> None:
    """406 for a value of another type."""
    expected = "406 invalid type 'signedint' for arg 'alternate-exchange' in exchange 'x' in vhost '/'"
    assert Topology().refusal(exchange("x", arguments={"alternate-exchange": 1})) == expected


def test_name_prefix_is_checked_and_not_kept() -> None:
    """A server-named queue may ask for a prefix of 64 bytes at most."""
    topology = Topology()
    long = {"x-name-prefix": "p" * 65}
    expected = f"406 Queue name prefix '{'p' * 65}' exceeds the 64-byte limit"
    assert topology.refusal(queue("amq.gen-1", arguments=long, server_named=True)) == expected
    record = topology.queue("p.1", arguments={"x-name-prefix": "p."}, server_named=True)
    assert record.arguments == {}
