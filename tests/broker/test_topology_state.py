"""Saved state: rows that restore to the same state, and the same bytes on every replica."""

import os
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.machine import Meta
from node.broker import topology_commands as commands
from node.broker.errors import UnknownCommand
from node.broker.topology import TopologyMachine
from node.broker.topology_commands import pack_fields
from tests.broker.topology_driver import NODE, Topology, exchange, queue

Commands = list[tuple[bytes, ...]]


def sample() -> list[Commands]:
    """Entries with some of everything."""
    table: dict[str, Any] = {"z": 1, "a": [1, {"y": None, "b": "text"}], "x-max-length": 5}
    types = ("direct", "fanout", "topic", "headers")
    bound = [(f"q{n}", kind, f"k.{n}") for n in range(5) for kind in ("topic", "headers")]
    return [
        [queue(f"q{n}", arguments=table, exclusive=n == 3, session=n) for n in range(5)],
        [exchange(kind, kind, auto_delete=kind == "fanout") for kind in types],
        [exchange("alt", arguments={"alternate-exchange": "fanout"}), commands.add_vhost(1, "v")],
        [commands.bind_queue(1, "/", name, kind, key, table, 3) for name, kind, key in bound],
        [commands.bind_exchange(1, "/", "fanout", "topic", "#", {})],
        [commands.bind_queue(1, "/", "q1", "fanout", "", {}, 1), commands.add_vhost(1, "w")],
        [commands.add_user(1, "u", b"salt", b"hash", ("b", "a"))],
        [commands.set_permissions(1, "u", "v", "a", "b", "c"), commands.delete_vhost(1, "w")],
        [commands.close_session(0, 3), commands.unbind_queue(1, "/", "q2", "topic", "k.2", table, 2)],
        [commands.delete_queue(1, 65536), queue("q0")],
        [commands.delete_exchange(1, "/", "direct", if_unused=False), queue("mine", exclusive=True)],
    ]


def as_rows(machine: TopologyMachine) -> list[tuple[bytes, bytes]]:
    return [(key, value) for key, value in machine.checkpoint(full=True) if value is not None]


def restored(rows: list[tuple[bytes, bytes]], node: int = NODE) -> TopologyMachine:
    machine = TopologyMachine(node)
    machine.restore(rows)
    return machine


def everything(machine: TopologyMachine) -> list[Any]:
    """What can be read, in the order in which it is read."""
    seen: list[Any] = [machine.vhosts(), list(machine.users()), list(machine.queues())]
    for vhost in machine.vhosts():
        seen += [
            list(machine.exchanges(vhost)),
            list(machine.bindings(vhost)),
            machine.permission("u", vhost),
        ]
    return seen


def test_restored_state_is_the_original() -> None:
    """It reads the same, saves the same, has nothing new to save, and goes on the same."""
    topology, copy = Topology(), TopologyMachine(NODE)
    for entry in sample():
        topology.run(*entry)
        copy = restored(as_rows(topology.machine), node=2)
        assert everything(copy) == everything(topology.machine)
        assert as_rows(copy) == as_rows(topology.machine)
        assert copy.checkpoint(full=False) == []
    later = b"".join(part for entry in sample() for made in entry for part in made)
    assert str(copy.apply(Meta(50, 0, 3), later, 0)) == str(topology.machine.apply(Meta(50, 0, 3), later, 0))
    assert str(copy.origin_gone(Meta(51, 0, 1))) == str(topology.machine.origin_gone(Meta(51, 0, 1)))
    assert as_rows(copy) == as_rows(topology.machine)
    assert everything(copy) == everything(topology.machine)


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(11)), st.lists(st.booleans(), min_size=11, max_size=11))
def test_changes_add_up_to_the_whole(order: list[int], saves: list[bool]) -> None:
    """A store that takes the changes of each checkpoint holds, in the end, what a full one says."""
    topology, store = Topology(), dict[bytes, bytes]()
    entries = sample()
    for number, save in zip(order, [*saves[:-1], True], strict=True):
        topology.run(*entries[number])
        topology.machine.checkpoint(full=True)  # takes nothing away from the next
        for key, value in topology.machine.checkpoint(full=False) if save else ():
            if value is None:
                store.pop(key, None)
            else:
                store[key] = value
    assert sorted(store.items()) == as_rows(topology.machine)
    assert everything(restored(sorted(store.items()))) == everything(topology.machine)


def test_formation_state_is_saved_and_is_what_no_rows_mean() -> None:
    """The first checkpoint has it; a group that has no rows yet begins with it."""
    machine = TopologyMachine(NODE)
    assert machine.checkpoint(full=False) == as_rows(TopologyMachine(2))
    assert machine.checkpoint(full=False) == []
    assert as_rows(restored([])) == as_rows(machine)


def test_rows_of_a_newer_version_are_refused() -> None:
    """An older node must not read half of a state it does not know."""
    header = (b"\x01" + bytes(8), pack_fields("QQ", (2, 0)))
    with pytest.raises(UnknownCommand):
        restored([header])


def test_machine_needs_no_entry_once_it_is_applied() -> None:
    """All that matters is in the rows, so the log of the group can go."""
    topology = Topology()
    topology.queue("q")
    assert (dict(topology.machine.live()), topology.machine.take_dead()) == ({}, [])


def test_a_uid_is_never_given_twice() -> None:
    """Not after a delete, not after a restore, and not by an entry with more than 65,536 new things."""
    topology = Topology()
    made = [commands.bind_queue(0, "/", "q", "amq.direct", f"{n}", {}, 1) for n in range(66_000)]
    topology.run(queue("q"), *made)
    copy = restored(as_rows(topology.machine))
    assert copy._last_uid == topology.machine._last_uid > (topology.index + 1) << 16
    copy.apply(Meta(topology.index + 1, 0, NODE), b"".join(queue("p")), 0)
    record = copy.queue("/", "p")
    assert record is not None and record.uid == topology.machine._last_uid + 1


PROGRAM = """
import hashlib
from tests.broker.test_topology_state import as_rows, sample
from tests.broker.topology_driver import Topology
topology, effects = Topology(), []
for entry in sample():
    topology.run(*entry)
    effects.append(str(topology.effects))
print(hashlib.sha256(repr((as_rows(topology.machine), effects)).encode()).hexdigest())
"""


def test_hash_seed_makes_no_difference() -> None:
    """The same commands give the same bytes and effects whatever Python's string hashes are."""
    digests = [
        subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert digests[0] == digests[1] != ""
