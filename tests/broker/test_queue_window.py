"""Fences, and windows that change while their consumer is attached."""

import pytest

from node.broker import commands
from node.broker.effects import Reply
from node.broker.values import encode_table
from tests.broker.queue_driver import TICKET, Driver, records_of, slices_of


def _attached(prefetch: int) -> Driver:
    driver = Driver()
    driver.queue()
    driver.attach(1, prefetch=prefetch)
    driver.publish(9)
    return driver


def test_fence_is_answered_after_what_came_before_it() -> None:
    driver = _attached(9)
    effects = driver.run(commands.settle(1, [(1, 9)]), commands.fence(TICKET))
    assert effects == [Reply(TICKET, None)]
    assert driver.machine.counts(7) == (0, 0, 1)


@pytest.mark.parametrize(
    ("window", "more", "prefetch"), [(5, 3, 5), (commands.UNLIMITED_WINDOW, 7, 0), ((1 << 64) - 1, 7, 0)]
)
def test_wider_window_is_filled_at_once(window: int, more: int, prefetch: int) -> None:
    driver = _attached(2)
    effects = driver.run(commands.resize(1, window))
    assert len(records_of(effects, 1)) == more
    assert driver.machine.consumers(7)[0].prefetch == prefetch


def test_window_of_nothing_assigns_nothing() -> None:
    driver = _attached(2)
    driver.run(commands.resize(1, 0))
    assert driver.run(commands.settle(1, [(1, 2)])) == []
    assert driver.machine.counts(7) == (7, 0, 1)


def test_what_was_never_sent_is_ready_at_once_and_has_not_failed() -> None:
    """Whatever the queue does with what is returned or has failed; marked redelivered, since it may be out of order."""
    table = {"x-delivery-limit": 0, "x-delayed-retry-type": "all", "x-delayed-retry-min": 1000}
    driver = Driver()
    driver.queue(config=commands.QueueConfig(arguments=encode_table(table)).encode())
    driver.publish(5)
    driver.attach(1, prefetch=5)
    driver.run(commands.detach(0, 1), commands.unsent(1, [(2, 5)]))
    assert driver.machine.counts(7) == (4, 1, 0)
    slices = slices_of(driver.attach(2, prefetch=9), 2)
    found = [(piece.first_record + at, piece.redelivered) for piece in slices for at in range(piece.count)]
    assert found == [(record, True) for record in range(1, 5)]


def test_narrower_window_leaves_what_is_held_and_assigns_nothing() -> None:
    driver = _attached(5)
    assert driver.run(commands.resize(1, 2)) == []
    assert driver.run(commands.settle(1, [(1, 3)])) == []
    assert driver.machine.counts(7) == (4, 2, 1)
    assert len(records_of(driver.run(commands.settle(1, [(4, 4)])), 1)) == 1


def test_consumer_that_stood_in_line_leaves_it_when_its_window_is_full() -> None:
    driver = Driver()
    driver.queue()
    driver.publish(2)
    driver.attach(1, prefetch=5)
    driver.run(commands.resize(1, 2))
    driver.publish(1)
    assert driver.machine.counts(7) == (1, 2, 1)


def test_nobody_to_resize_changes_nothing() -> None:
    driver = _attached(2)
    driver.run(commands.detach(0, 1))
    state = driver.machine.state_bytes()
    assert driver.run(commands.resize(1, 5)) == []
    assert driver.run(commands.resize(77, 5)) == []
    assert driver.run(commands.resize(1, 5), origin=2) == []
    assert driver.machine.state_bytes() == state
