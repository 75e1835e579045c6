"""Fences, and windows that change while their consumer is attached."""

import pytest

from node.broker import commands
from node.broker.effects import Reply
from tests.broker.queue_driver import TICKET, Driver, records_of


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


@pytest.mark.parametrize(("prefetch", "more"), [(5, 3), (0, 7)])
def test_wider_window_is_filled_at_once(prefetch: int, more: int) -> None:
    driver = _attached(2)
    effects = driver.run(commands.resize(1, prefetch))
    assert len(records_of(effects, 1)) == more
    assert driver.machine.consumers(7)[0].prefetch == prefetch


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
