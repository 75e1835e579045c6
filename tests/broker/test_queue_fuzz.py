"""No bytes in the log make the queue machine raise, unless they are of a kind from a newer version."""

import struct

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from node.broker import commands, commands_read
from node.broker.commands import Kind, MalformedCommand
from node.broker.errors import UnknownCommand
from tests.broker.queue_driver import (
    HEADER_BYTES,
    NODES,
    TICKET,
    Driver,
    config,
    enqueue,
    enqueue_with,
    packed,
)

VALID = [
    commands.create_queue(TICKET, 8, b"\1\4args"),
    commands.delete_queue(TICKET, 8, if_unused=True, if_empty=True),
    commands.purge(TICKET, 8),
    commands.attach(TICKET, 1, 2, 7, prefetch=3, no_ack=True, exclusive=True, priority=-5),
    commands.detach(TICKET, 1),
    commands.settle(1, [(1, 2), (4, 9)]),
    commands.give_back(1, [(1, 2)], failed=True),
    commands.discard(1, [(3, 3)]),
    commands.get(TICKET, 1, 9, 7),
    commands.close_session(TICKET, 1),
    commands.tick(),
    enqueue([7, 8], 3, packed(3, 2)),
    enqueue_with(
        [7, 8], 2, packed(2, 2), priority=3, ttl_ms=5, delay_ms=9, source_uid=4, source_low=1, source_seq=3
    ),
    commands.fence(TICKET),
    commands.letters_done(7, 2),
    commands.forget_source(4),
    commands.resize(1, 4),
    commands.probe(TICKET, 7),
    commands.answer(TICKET, 1),
]
INTEGERS = [0, 1, 2, 7, 8, 9, 0xFFFF, 1 << 31, (1 << 32) - 1, 1 << 63, (1 << 64) - 1]


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """A command of a known kind with a body of random bytes, of telling integers, or of a damaged command."""
    kind = draw(st.sampled_from(Kind))
    shape = draw(st.sampled_from(["bytes", "integers", "damaged"]))
    if shape == "bytes":
        body = draw(st.binary(max_size=80))
    elif shape == "integers":
        numbers = draw(st.lists(st.sampled_from(INTEGERS), max_size=6))
        body = b"".join(struct.pack(">Q", number) for number in numbers) + draw(st.binary(max_size=9))
    else:
        damaged = bytearray(b"".join(VALID[list(Kind).index(kind)])[5:])
        for _ in range(draw(st.integers(0, 3)) if damaged else 0):
            damaged[draw(st.integers(0, len(damaged) - 1))] = draw(st.sampled_from([0, 1, 7, 127, 255]))
        body = bytes(damaged[: draw(st.integers(0, len(damaged)))] if draw(st.booleans()) else damaged)
    return struct.pack(">BI", kind, len(body)) + body


def busy_driver() -> Driver:
    """A driver whose queue has ready, returned and held messages."""
    driver = Driver()
    driver.queue(
        config=config(
            x_max_priority=9,
            x_message_ttl=1000,
            x_max_length=20,
            x_max_length_bytes=90,
            x_dead_letter_exchange="dead",
            x_delivery_limit=1,
            x_delayed_retry_type="all",
            x_delayed_retry_min=1 << 62,
        )
    )
    driver.publish(9)
    driver.run(commands.discard(1, [(1, 1)]))
    driver.attach(1, prefetch=5)
    driver.run(commands.settle(1, [(2, 3)]))
    driver.run(commands.get(0, 1, 9, 7))
    return driver


@settings(max_examples=250, deadline=None)
@given(st.lists(bodies(), max_size=6), st.binary(max_size=8), st.sampled_from(NODES))
def test_apply_is_total_for_known_kinds(batch: list[bytes], rest: bytes, origin: int) -> None:
    """raft.md: apply is a total function; replicas stay equal and can be saved, whatever they were told."""
    driver = busy_driver()
    tail = bytes([Kind.SETTLE]) + rest  # a command that is cut off
    driver.run_everywhere(bytes(HEADER_BYTES) + b"".join(batch) + tail, origin)
    driver.checkpoint()
    assert driver.restored().state_bytes() == driver.machines[2].state_bytes()
    assert driver.restored().live() == driver.machines[2].live()


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_apply_of_any_bytes_raises_nothing_but_unknown_command(data: bytes) -> None:
    """An unknown kind stops the group with the state as it was."""
    driver = busy_driver()
    state = driver.machine.state_bytes()
    try:
        driver.run_everywhere(bytes(HEADER_BYTES) + data)
    except UnknownCommand:
        assert driver.machine.state_bytes() == state


@given(st.binary(max_size=60), st.integers(0, 70))
def test_enqueue_layout_of_other_bytes_raises_malformed_command(data: bytes, offset: int) -> None:
    """The reader of an entry never gets a layout that does not add up."""
    try:
        records, count = commands_read.enqueue_layout(data, offset)
    except MalformedCommand:
        return
    assert records + 8 * count <= offset + 5 + int.from_bytes(data[offset + 1 : offset + 5], "big")
    assert offset + 19 <= records


WITH_BODY = [(kind, parts) for kind, parts in zip(Kind, VALID, strict=True) if kind is not Kind.TICK]


@pytest.mark.parametrize(
    "parts", [parts for _, parts in WITH_BODY], ids=[kind.name.lower() for kind, _ in WITH_BODY]
)
def test_malformed_command_is_ignored(parts: commands.Parts) -> None:
    """A body that is cut short changes nothing and answers nothing."""
    command = b"".join(parts)
    driver = busy_driver()
    state = driver.machine.state_bytes()
    assert driver.run((struct.pack(">BI", command[0], 3) + command[5:8],)) == []
    assert driver.machine.state_bytes() == state
