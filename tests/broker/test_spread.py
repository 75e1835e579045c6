"""Exchanges that give each message to one of their bindings (RabbitMQ's plugins of these names)."""

from collections import Counter
from typing import Any

import pytest

from node.broker import topology_commands as commands
from node.broker.exchange import Binding, ExchangeNode, QueueNode
from node.broker.message import Opened
from node.broker.records import ExchangeRecord, QueueRecord
from node.broker.topology import TopologyMachine
from node.wire.properties import BasicProperties
from tests.broker.topology_driver import NODE, SESSION, Topology, exchange, message

KEYS = [f"key-{number}" for number in range(4000)]


def _exchange(kind: str, weights: list[int], arguments: dict[str, Any] | None = None) -> ExchangeNode:
    """An exchange with queues q0, q1 ... bound with these weights as keys."""
    node = ExchangeNode(ExchangeRecord(1, "/", "x", kind, arguments=arguments or {}))
    for number, weight in enumerate(weights):
        _bind(node, number, weight)
    return node


def _bind(node: ExchangeNode, number: int, weight: int) -> Binding:
    queue = QueueNode(
        QueueRecord(number, "/", f"q{number}", 1, durable=True, auto_delete=False, table=b"\0\0\0\0")
    )
    binding = Binding(100 + number, node, queue, str(weight), b"\0\0\0\0")
    node.matcher.add(binding)
    return binding


def _targets(node: ExchangeNode, keys: list[str] = KEYS) -> dict[str, str]:
    """The queue of each key."""
    found = {}
    for key in keys:
        (binding,) = node.matcher.match(key, message())
        found[key] = binding.destination.record.name
    return found


def test_consistent_hash_spreads_by_weight() -> None:
    """Each queue gets its share, within what chance allows (four standard deviations)."""
    weights = [1, 2, 5]
    counts = Counter(_targets(_exchange("x-consistent-hash", weights)).values())
    for number, weight in enumerate(weights):
        share = weight / sum(weights)
        spread = 4 * (len(KEYS) * share * (1 - share)) ** 0.5
        assert abs(counts[f"q{number}"] - len(KEYS) * share) < spread


def test_consistent_hash_moves_only_the_share_that_comes_or_goes() -> None:
    """No key moves between two queues that stay."""
    node = _exchange("x-consistent-hash", [1] * 9)
    before = _targets(node)
    added = _bind(node, 9, 1)
    after = _targets(node)
    moved = [key for key in KEYS if before[key] != after[key]]
    assert {after[key] for key in moved} == {"q9"}
    assert 0.05 < len(moved) / len(KEYS) < 0.15
    node.matcher.remove(added)
    assert _targets(node) == before


def test_consistent_hash_of_a_header_or_a_property_instead_of_the_key() -> None:
    """hash-header and hash-property; messages without it go one way."""
    by_header = _exchange("x-consistent-hash", [1] * 5, {"hash-header": "user"})
    by_property = _exchange("x-consistent-hash", [1] * 5, {"hash-property": "message_id"})
    assert not by_header.matcher.is_cacheable
    assert not by_property.matcher.is_cacheable

    def names(node: ExchangeNode, **properties: Any) -> set[str]:
        return {
            binding.destination.record.name
            for key in KEYS[:50]
            for binding in node.matcher.match(key, message(**properties))
        }

    assert len(names(by_header, headers={"user": "ann"})) == 1
    assert len(names(by_property, message_id="m1")) == 1
    assert len(names(by_header)) == len(names(by_property)) == 1
    users = {frozenset(names(by_header, headers={"user": str(number)})) for number in range(50)}
    assert len(users) == 5


def test_modulus_hash_is_even_and_steady() -> None:
    """The same key goes to the same queue while the bindings stand."""
    node = _exchange("x-modulus-hash", [0] * 4)
    assert _targets(node) == _targets(node)
    assert all(count > len(KEYS) / 5 for count in Counter(_targets(node).values()).values())


def test_random_takes_what_is_drawn() -> None:
    """Chance comes from the node, not from here."""
    node = _exchange("x-random", [0] * 3)
    assert not node.matcher.is_cacheable
    drawn = iter(range(6))
    found = []
    for _ in range(6):
        view = Opened(BasicProperties(), lambda size: next(drawn).to_bytes(size, "big"))
        (binding,) = node.matcher.match("k", view)
        found.append(binding.destination.record.name)
    assert found == ["q0", "q1", "q2"] * 2


@pytest.mark.parametrize("kind", ["x-consistent-hash", "x-modulus-hash", "x-random", "x-local-random"])
def test_without_bindings_nothing_matches(kind: str) -> None:
    """As with any exchange."""
    assert list(_exchange(kind, []).matcher.match("k", message())) == []


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("0", "The binding key must be greater than 0"),
        ("-3", "The binding key must be greater than 0"),
        ("a", "The binding key must be an integer: a"),
    ],
)
def test_binding_key_of_a_consistent_hash_is_a_weight(key: str, text: str) -> None:
    """406 with the plugin's text."""
    topology = Topology()
    topology.queue("q")
    topology.exchange("x", "x-consistent-hash")
    made = commands.bind_queue(1, "/", "q", "x", key, {}, SESSION)
    assert topology.refusal(made) == f"406 {text}"


def test_arguments_of_the_exchange_are_checked() -> None:
    """Unknown properties, two things to hash, no type for delayed messages."""
    topology = Topology()
    for arguments, text in (
        ({"hash-property": "app_id"}, "Unsupported property: app_id"),
        ({"hash-property": "timestamp", "hash-header": "h"}, "mutually exclusive"),
    ):
        assert text in topology.refusal(exchange("x", "x-consistent-hash", arguments=arguments))
    for arguments in ({}, {"x-delayed-type": "x-delayed-message"}, {"x-delayed-type": 5}):
        refusal = topology.refusal(exchange("x", "x-delayed-message", arguments=arguments))
        assert refusal == "406 Invalid argument, 'x-delayed-type' must be an existing exchange type"


def test_delayed_message_exchange_routes_as_its_type_and_survives_a_restart() -> None:
    """x-delayed-type topic; another type in a second declaration is a 406."""
    topology = Topology()
    topology.queue("q")
    topology.exchange("late", "x-delayed-message", arguments={"x-delayed-type": "topic"})
    topology.bind("late", "q", "a.*")
    assert topology.route("late", "a.b") == ["q"]
    assert topology.route("late", "b") == []
    other = exchange("late", "x-delayed-message", arguments={"x-delayed-type": "fanout"})
    assert "inequivalent arg 'x-delayed-type'" in topology.refusal(other)
    again = TopologyMachine(NODE)
    again.restore(
        [(key, value) for key, value in topology.machine.checkpoint(full=True) if value is not None]
    )
    topology.machine = again
    assert topology.route("late", "a.b") == ["q"]
