"""How the state of the queue machine is saved: few rows for a long queue, and the same bytes everywhere."""

import os
import random
import subprocess
import sys

import pytest

from node.broker import commands
from node.broker.queue import QueueMachine
from tests.broker.queue_driver import TICKET, Driver, config, enqueue, enqueue_with, packed

CONFIGS = (
    config(x_max_priority=3, x_message_ttl=60, x_dead_letter_exchange="dead"),
    config(x_max_length=30, x_max_length_bytes=40, x_dead_letter_exchange="dead", x_expires=900),
    config(x_max_length_bytes=20, x_overflow="reject-publish-dlx", x_dead_letter_exchange="dead"),
    config(
        x_single_active_consumer=True,
        x_delivery_limit=1,
        x_delayed_retry_type="all",
        x_delayed_retry_min=20,
        x_consumer_timeout=300,
    ),
)
"""Queues that together have every rule."""


def random_log(driver: Driver, seed: int, steps: int = 400) -> None:
    """Apply a log of all kinds of commands."""
    draw = random.Random(seed)
    for uid in range(1, 5):
        driver.queue(uid, CONFIGS[uid - 1])
    for step in range(steps):
        origin, uid, number = draw.randint(1, 2), draw.randint(1, 4), draw.randint(1, 9)
        first = draw.randint(1, 40)
        ranges = [(first, first + draw.randint(0, 30))]
        count = draw.randint(1, 20)
        sizes = [draw.randint(0, 2) for _ in range(count)]
        driver.ts += draw.choice((0, 0, 1, 30))
        batch = [
            enqueue([uid, uid % 4 + 1], count, ticket=step),
            commands.attach(
                *(step, number, number, uid),
                prefetch=20,
                no_ack=False,
                exclusive=False,
                priority=number % 2,
                timeout_ms=200 * (number % 3),
            ),
            enqueue_with(
                [uid, uid % 4 + 1],
                count,
                b"".join(packed(1, size) for size in sizes),
                priority=draw.randint(0, 4),
                ttl_ms=draw.choice((-1, 0, 40)),
                delay_ms=draw.choice((0, 0, 25)),
                dedup_ids=tuple(bytes((draw.randint(0, 200),)) for _ in range(count)) if step % 3 else (),
            ),
            enqueue_with([uid], count, source_uid=9, source_low=max(step - 9, 1), source_seq=step + 1),
            commands.letters_done(uid, draw.randint(1, 3 * step + 1)),
            commands.create_queue(0, uid, CONFIGS[uid - 1]),
            commands.settle(number, ranges),
            commands.give_back(number, ranges, failed=step % 2 == 0),
            commands.get(step, number, number + 20, uid),
            commands.discard(number + 20, [(1, 1)]),
            commands.detach(step, number),
            commands.close_session(step, number),
            commands.purge(step, uid),
        ]
        driver.run(*draw.choices(batch, [15, 9, 3, 2, 2, 9, 20, 6, 4, 3, 1, 1, 1], k=3), origin=origin)
        if step % 97 == 96:
            driver.origin_gone(origin)


def test_moving_queue_rewrites_only_its_ends() -> None:
    """A checkpoint costs what has changed, not what is queued."""
    driver = Driver()
    driver.queue()
    for _ in range(2000):
        driver.publish(1)
    assert len(driver.machine.checkpoint(full=False)) == 2 + 8  # 2000 runs of 256 a chunk
    driver.publish(1)
    driver.run(commands.get(0, 1, 1, 7))
    rows = driver.machine.checkpoint(full=False)
    # The header, the chunks at head and tail, the holder and what it holds.
    assert len(rows) == 5
    assert sum(len(value or b"") for _, value in rows) < 18_000


def test_checkpoint_of_nothing_new_is_empty() -> None:
    """Also after a full one, and after a restore."""
    driver = Driver()
    random_log(driver, seed=1, steps=60)
    driver.checkpoint()
    assert driver.machine.checkpoint(full=False) == []
    driver.machine.checkpoint(full=True)
    assert driver.machine.checkpoint(full=False) == []
    assert driver.restored().checkpoint(full=False) == []


def test_deleted_queue_leaves_no_rows() -> None:
    """Every row that was saved for it is deleted."""
    driver = Driver()
    driver.queue()
    driver.checkpoint()
    before = dict(driver.store)
    driver.queue(8)
    driver.publish(600, 8)
    for _ in range(600):
        driver.publish(1, 8)
    driver.attach(1, 8, prefetch=900)
    driver.run(commands.give_back(1, [(1, 500)], failed=False))
    driver.checkpoint()
    assert len(driver.store) > len(before) + 4
    driver.run(commands.delete_queue(TICKET, 8, if_unused=False, if_empty=False))
    driver.checkpoint()
    assert driver.store == before


def test_replay_from_a_checkpoint_equals_replay_from_the_start() -> None:
    """Both replicas see the same second half of the log, one of them from saved rows."""
    driver = Driver()
    random_log(driver, seed=2)
    driver.checkpoint()
    driver.machines[1] = driver.restored()
    random_log(driver, seed=3)
    assert driver.machines[1].state_bytes() == driver.machines[2].state_bytes()
    assert driver.machines[1].live() == driver.machines[2].live()


def test_restore_refuses_rows_of_another_version() -> None:
    """A newer layout must not be read as ours."""
    machine = QueueMachine(1)
    with pytest.raises(ValueError, match="version"):
        machine.restore([(b"0", b"\1")])
    with pytest.raises(ValueError, match="not of a queue machine"):
        machine.restore([(b"0", b"\2"), (b"other", b"")])


def test_restore_of_no_rows_is_the_empty_machine() -> None:
    """The first start of a group."""
    driver = Driver()
    random_log(driver, seed=4, steps=20)
    driver.machine.restore([])
    assert driver.machine.state_bytes() == QueueMachine(2).state_bytes()


def test_same_log_gives_same_bytes_under_other_hash_seeds() -> None:
    """rabbit_fifo two_nodes_same_otp_version: raft.md 2.3 rule 3."""
    code = (
        "import hashlib; from tests.broker.queue_driver import Driver;"
        "from tests.broker.test_queue_rows import random_log;"
        "driver = Driver(); random_log(driver, seed=5);"
        "print(hashlib.sha256(driver.machine.state_bytes()).hexdigest())"
    )
    digests = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert digests[0] == digests[1] != ""
