"""Users and permissions: who may what, and which patterns are taken."""

import pytest

from node.broker import topology_commands as commands
from node.broker.passwords import hash_password, verify_password
from node.broker.permissions import Patterns
from node.broker.topology_effects import UserChanged
from node.errors import PreconditionFailed
from tests.broker.topology_driver import Topology


def with_user(configure: str, write: str, read: str) -> Topology:
    topology = Topology()
    topology.run(
        commands.add_user(1, "u", b"salt", b"hash", ("b", "a")),
        commands.set_permissions(1, "u", "/", configure, write, read),
    )
    return topology


def test_password_of_guest_is_guest() -> None:
    """The hash at formation is a constant, for every node must form the same; it is the hash of guest."""
    guest = Topology().machine.user("guest")
    assert verify_password(guest, "guest")
    assert not verify_password(guest, "Guest")
    assert not verify_password(None, "guest")


def test_password_changes_with_the_user() -> None:
    """add_user for one who is there changes password and tags, and keeps the permissions."""
    topology = with_user(".*", "", "")
    topology.run(commands.add_user(1, "u", b"pepper", hash_password("secret", b"pepper")))
    assert topology.effects[0] == UserChanged("u", deleted=False)
    assert verify_password(topology.machine.user("u"), "secret")
    assert topology.machine.permission("u", "/") is not None


@pytest.mark.parametrize(
    ("action", "name", "allowed"),
    [
        ("configure", "mine.1", True),
        ("configure", "not-mine.1", False),
        ("write", "something", True),
        ("read", "x", False),
        ("read", "", False),
    ],
)
def test_access_is_as_the_patterns_say(action: str, name: str, allowed: bool) -> None:
    """Patterns are searched, an empty one allows nothing; the answer is the same the second time."""
    machine = with_user(r"^mine\.", "thing", "").machine
    for _ in range(2):
        assert (machine.check_access("u", "/", action, "queue", name) is None) is allowed


def test_refusal_names_action_resource_and_user() -> None:
    """403 with RabbitMQ's text; the default exchange is called amq.default."""
    machine = with_user("", "", "").machine
    error = machine.check_access("u", "/", "read", "queue", "q")
    assert error is not None
    assert error.reply_text == "ACCESS_REFUSED - read access to queue 'q' in vhost '/' refused for user 'u'"
    error = machine.check_access("u", "/", "write", "exchange", "")
    assert error is not None
    assert error.text == "write access to exchange 'amq.default' in vhost '/' refused for user 'u'"


def test_vhost_is_closed_without_permissions() -> None:
    """530 when connection.open asks for a vhost the user has no permissions in."""
    topology = with_user("", "", "")
    assert topology.machine.check_vhost_access("u", "/") is None
    topology.run(commands.clear_permissions(1, "u", "/"))
    error = topology.machine.check_vhost_access("u", "/")
    assert error is not None
    assert error.reply_text == "NOT_ALLOWED - access to vhost '/' refused for user 'u'"


def test_decisions_are_forgotten_when_permissions_change() -> None:
    """What was allowed and cached is refused after the change, and publishers' plans are stale."""
    topology = with_user(".*", ".*", ".*")
    assert topology.machine.check_access("u", "/", "read", "queue", "q") is None
    version = topology.machine.routes_version
    topology.run(commands.set_permissions(1, "u", "/", "", "", ""))
    assert topology.machine.check_access("u", "/", "read", "queue", "q") is not None
    assert topology.machine.routes_version > version
    topology.run(commands.delete_user(1, "u"))
    assert topology.machine.user("u") is None
    assert topology.machine.check_access("u", "/", "read", "queue", "q") is not None


@pytest.mark.parametrize(
    "pattern", ["(", "a" * 256, "(a+)+$", "(a|a)*b", "((a)b*)*", r"(a)\1", "(?P<x>a)(?P=x)", "(a*){9}"]
)
def test_pattern_is_refused(pattern: str) -> None:
    """Before it is logged: what does not compile, is too long, or makes a search take for ever."""
    with pytest.raises(PreconditionFailed):
        commands.set_permissions(1, "u", "/", ".*", pattern, ".*")


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        ".*",
        "^$",
        r"^(amq\.gen.*|amq\.default)$",
        "[(a+)]+",
        r"\(a+\)+",
        "[]|]*",
        "(ab)+c?",
        "^q[0-9]{1,3}$",
    ],
)
def test_pattern_is_taken(pattern: str) -> None:
    """What people write."""
    assert commands.set_permissions(1, "u", "/", pattern, pattern, pattern)


def test_compiled_patterns_are_bounded() -> None:
    """The oldest goes first; one that is not valid allows nothing."""
    patterns = Patterns(count_max=2)
    assert [patterns.allows(pattern, "abc") for pattern in ("a", "b", "x", "a", "(")] == [
        True, True, False, True, False,
    ]  # fmt: skip
    assert len(patterns._compiled) == 2
