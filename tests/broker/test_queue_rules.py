"""What the arguments of queues and the options of messages do in the machine: time, limits, order, dead letters."""

import pytest

from node.broker import commands
from node.broker.effects import GetResult, Refused, Reply
from node.broker.queue_state import Reason
from tests.broker.queue_driver import (
    TICKET,
    Driver,
    cancelled,
    config,
    enqueue,
    enqueue_with,
    packed,
    records_of,
    replies,
    slices_of,
)


@pytest.fixture
def driver() -> Driver:
    """Two replicas without queues."""
    return Driver()


def ready(driver: Driver, uid: int = 7) -> int:
    """Return the number of ready messages."""
    return driver.machine.counts(uid)[0]


def letters(driver: Driver, uid: int = 7) -> list[tuple[int, Reason, int, int]]:
    """Return (number, reason, log index, messages) of the dead letters that wait."""
    return [
        (first, letter.reason, letter.run[0], letter.run[3]) for first, letter in driver.machine.letters(uid)
    ]


def fetched(driver: Driver, uid: int = 7) -> int:
    """Return the log index of the message that basic.get takes, 0 for none."""
    (value,) = replies(driver.run(commands.get(TICKET, 1, 50, uid)))
    return value.slice.index if isinstance(value, GetResult) else 0


# --- time to live ---


def test_message_ttl_of_the_queue_expires_at_its_time(driver: Driver) -> None:
    """x-message-ttl: gone when it has been in the queue for so long, not a millisecond earlier."""
    driver.queue(config=config(x_message_ttl=100))
    driver.publish(3)
    driver.wait(99)
    assert ready(driver) == 3
    driver.wait(1)
    assert ready(driver) == 0
    assert not driver.machine.live()


def test_the_smaller_ttl_counts(driver: Driver) -> None:
    """RabbitMQ docs/ttl: where both are given, the lower of the two is used."""
    driver.queue(config=config(x_message_ttl=100))
    driver.run(enqueue_with([7], 1, ttl_ms=50))
    driver.run(enqueue_with([7], 1, ttl_ms=5000))
    driver.wait(60)
    assert ready(driver) == 1
    driver.wait(60)
    assert ready(driver) == 0


def test_only_heads_expire(driver: Driver) -> None:
    """A message behind one that lives longer stays until it is next; it is never delivered."""
    driver.queue(config=config(x_dead_letter_exchange="dead"))
    driver.run(enqueue_with([7], 1, ttl_ms=1000))
    driver.run(enqueue_with([7], 1, ttl_ms=10))
    driver.run(enqueue([7], 1))
    driver.wait(50)
    assert ready(driver) == 3
    assert records_of(driver.attach(1, prefetch=2), 1) == [(2, 0), (4, 0)]
    assert letters(driver) == [(1, Reason.EXPIRED, 3, 1)]


def test_get_does_not_count_what_expired_behind_its_message(driver: Driver) -> None:
    """RabbitMQ drops what has expired at the head before it tells the number that is left."""
    driver.queue()
    driver.run(enqueue([7], 1))
    driver.run(enqueue_with([7], 1, ttl_ms=10))
    driver.run(enqueue([7], 1))
    driver.wait(50)
    (reply,) = driver.run(commands.get(TICKET, 1, 50, 7))
    assert isinstance(reply, Reply)
    assert isinstance(reply.value, GetResult)
    assert reply.value.remaining == 1


def test_ttl_of_zero_reaches_only_a_consumer_that_waits(driver: Driver) -> None:
    """RabbitMQ docs/ttl: expiration 0 expires at once unless it can be delivered immediately."""
    driver.queue()
    driver.run(enqueue_with([7], 1, ttl_ms=0))
    assert ready(driver) == 0
    driver.attach(1, prefetch=1)
    assert len(records_of(driver.run(enqueue_with([7], 2, ttl_ms=0)), 1)) == 1
    assert ready(driver) == 0


def test_returned_message_keeps_its_time(driver: Driver) -> None:
    """The time runs on while a consumer holds it."""
    driver.queue(config=config(x_message_ttl=100))
    driver.attach(1, prefetch=1)
    driver.publish(1)
    driver.wait(150)
    driver.run(commands.detach(TICKET, 1))
    driver.run(commands.give_back(1, [(1, 1)], failed=False))
    assert driver.machine.counts(7)[:2] == (0, 0)


def test_due_ts_names_the_first_moment_at_which_time_matters(driver: Driver) -> None:
    """The leader proposes a tick no earlier; after a restore the same."""
    driver.queue(config=config(x_message_ttl=100))
    assert driver.machine.due_ts == 0
    driver.publish(1)
    assert driver.machine.due_ts == driver.ts + 100
    driver.checkpoint()
    assert driver.restored().due_ts == driver.ts + 100


def test_unused_queue_expires(driver: Driver) -> None:
    """x-expires: consumers, basic.get and a new declaration are use; messages are not."""
    settings = config(x_expires=100)
    driver.queue(config=settings)
    driver.wait(90)
    driver.queue(config=settings)
    driver.wait(90)
    fetched(driver)
    driver.wait(90)
    driver.attach(1)
    driver.wait(200)
    assert driver.machine.has_queue(7)
    driver.run(commands.detach(TICKET, 1))
    driver.publish(1)
    driver.wait(98)
    assert driver.machine.has_queue(7)
    driver.wait(1)
    assert not driver.machine.has_queue(7)
    assert driver.machine.duties().expired == [7]
    assert not driver.machine.live()


# --- limits ---


def test_drop_head_keeps_the_newest_and_no_more(driver: Driver) -> None:
    """x-max-length is exact."""
    driver.queue(config=config(x_max_length=5, x_dead_letter_exchange="dead"))
    driver.publish(3)
    driver.publish(4)
    assert ready(driver) == 5
    assert letters(driver) == [(1, Reason.MAXLEN, 2, 2)]
    assert fetched(driver) == 2


def test_length_counts_ready_messages_only(driver: Driver) -> None:
    """What a consumer holds is not in the way; what it gives back is."""
    driver.queue(config=config(x_max_length=2))
    driver.attach(1, prefetch=3)
    driver.publish(3)
    driver.publish(2)
    assert driver.machine.counts(7)[:2] == (2, 3)
    driver.run(commands.detach(TICKET, 1))
    driver.run(commands.give_back(1, [(1, 1)], failed=False))
    assert driver.machine.counts(7)[:2] == (2, 2)


def test_bytes_limit_drops_until_it_holds(driver: Driver) -> None:
    """x-max-length-bytes counts bodies; of one command with unequal bodies as few go as must."""
    driver.queue(config=config(x_max_length_bytes=10))
    driver.run(enqueue([7], 4, packed(1, 4) + packed(2, 3) + packed(1, 4)))
    assert [fetched(driver), ready(driver)] == [2, 2]
    driver.run(enqueue([7], 1, packed(1, 11)))
    assert ready(driver) == 0


def test_lowest_priority_is_dropped_first(driver: Driver) -> None:
    """A full priority queue keeps what matters most."""
    driver.queue(config=config(x_max_length=2, x_max_priority=5))
    for priority in (5, 0, 3):
        driver.run(enqueue_with([7], 1, priority=priority))
    assert [fetched(driver), fetched(driver), fetched(driver)] == [2, 4, 0]


def test_reject_publish_refuses_exactly_what_does_not_fit(driver: Driver) -> None:
    """The first messages of a command are taken, the rest is named to be nacked."""
    driver.queue(config=config(x_max_length=5, x_overflow="reject-publish"))
    assert replies(driver.publish(3)) == [0]
    assert replies(driver.publish(4)) == [Refused(((2, 3),))]
    assert ready(driver) == 5
    assert replies(driver.publish(1)) == [Refused(((0, 0),))]
    assert driver.machine.live() == {2: 3, 3: 2}


def test_reject_publish_counts_what_consumers_take_at_once(driver: Driver) -> None:
    """As if each message came alone: two go to the consumer, two wait, one is too many."""
    driver.queue(config=config(x_max_length=2, x_overflow="reject-publish"))
    driver.attach(1, prefetch=2)
    assert replies(driver.publish(5)) == [Refused(((4, 4),))]
    assert driver.machine.counts(7)[:2] == (2, 2)


def test_a_message_refused_by_one_queue_is_refused(driver: Driver) -> None:
    """The others keep it (RabbitMQ docs/confirms: nack if any queue could not take it)."""
    driver.queue(config=config(x_max_length=1, x_overflow="reject-publish"))
    driver.queue(8)
    assert replies(driver.run(enqueue([7, 8], 2))) == [Refused(((1, 1),))]
    assert (ready(driver, 7), ready(driver, 8)) == (1, 2)


def test_reject_publish_dlx_buries_what_it_refuses(driver: Driver) -> None:
    """The publisher is told, and the message goes to the dead letter exchange."""
    driver.queue(
        config=config(x_max_length=1, x_overflow="reject-publish-dlx", x_dead_letter_exchange="dead")
    )
    assert replies(driver.publish(3)) == [Refused(((1, 2),))]
    assert letters(driver) == [(1, Reason.MAXLEN, 2, 2)]


# --- priorities ---


def test_priorities_are_strict_and_fifo_within_each(driver: Driver) -> None:
    """Higher first; above the maximum counts as the maximum; none is 0."""
    driver.queue(config=config(x_max_priority=3))
    for priority in (0, 3, 1, 9, 3):
        driver.run(enqueue_with([7], 1, priority=priority))
    assert [fetched(driver) for _ in range(6)] == [3, 5, 6, 4, 2, 0]


def test_returned_message_keeps_its_priority_and_place(driver: Driver) -> None:
    """pains.md 36: priorities are not lost on return."""
    driver.queue(config=config(x_max_priority=3))
    driver.run(enqueue_with([7], 2, priority=2))
    driver.run(enqueue_with([7], 1, priority=3))
    driver.attach(1, prefetch=2)
    driver.run(commands.detach(TICKET, 1))
    driver.run(commands.give_back(1, [(1, 2)], failed=False))
    assert [fetched(driver) for _ in range(3)] == [3, 2, 2]


# --- single active consumer, timeouts ---


def test_single_active_consumer_hands_over_when_it_leaves(driver: Driver) -> None:
    """The next is the one of the highest priority, then the one that came first."""
    driver.queue(config=config(x_single_active_consumer=True))
    driver.attach(1, prefetch=1)
    driver.attach(2, prefetch=1)
    driver.attach(3, prefetch=1, priority=5)
    driver.attach(4, prefetch=1, priority=5)
    assert records_of(driver.publish(3), 1) == [(6, 0)]
    assert [info.is_active for info in driver.machine.consumers(7)] == [True, False, False, False]
    assert records_of(driver.run(commands.close_session(TICKET, 1)), 3) == [(6, 0)]
    driver.checkpoint()
    assert driver.restored().consumers(7) == driver.machine.consumers(7)
    assert records_of(driver.run(commands.close_session(TICKET, 3)), 4) == [(6, 0)]
    assert records_of(driver.run(commands.close_session(TICKET, 4)), 2) == [(6, 0)]


def test_consumer_timeout_cancels_that_consumer_only(driver: Driver) -> None:
    """It loses all it holds and is told; its neighbour gets the messages."""
    driver.queue(config=config(x_consumer_timeout=100))
    driver.attach(1, prefetch=2)
    driver.publish(2)
    driver.wait(60)
    driver.run(commands.settle(1, [(1, 1)]))
    driver.attach(2, prefetch=1)
    effects = driver.wait(40)
    assert cancelled(effects) == [1]
    assert [piece.redelivered for piece in slices_of(effects, 2)] == [True]
    driver.run(commands.settle(1, [(2, 2)]))
    assert driver.machine.counts(7) == (0, 1, 1)


def test_consumer_that_settles_in_time_stays(driver: Driver) -> None:
    """The time counts from the oldest delivery that it still holds."""
    driver.queue()
    driver.run(
        commands.attach(
            *(TICKET, 1, 1, 7), prefetch=2, no_ack=False, exclusive=False, priority=0, timeout_ms=100
        )
    )
    for number in range(1, 6):
        driver.publish(1)
        driver.wait(45)
        if number > 1:
            driver.run(commands.settle(1, [(number - 1, number - 1)]))
        driver.checkpoint()
        driver.machines[1] = driver.restored()
    assert driver.machine.counts(7) == (0, 1, 1)
    assert cancelled(driver.wait(60)) == [1]


# --- failures, retries, delays ---


def test_delivery_limit_discards_after_so_many_failures(driver: Driver) -> None:
    """x-delivery-limit 1: the second failed delivery is the last; returns without failure do not count."""
    driver.queue(config=config(x_delivery_limit=1, x_dead_letter_exchange="dead"))
    driver.publish(1)
    attempts = []
    for number, failed in enumerate((False, True, True), 1):
        attempts += [piece.attempts for piece in slices_of(driver.attach(number, prefetch=1), number)]
        driver.run(commands.detach(TICKET, number))
        driver.run(commands.give_back(number, [(1, 1)], failed=failed))
    assert attempts == [0, 0, 1]
    assert letters(driver) == [(1, Reason.DELIVERY_LIMIT, 2, 1)]
    assert ready(driver) == 0


def test_client_that_ends_with_a_message_has_failed(driver: Driver) -> None:
    """The end of a session counts towards the limit, the end of a node does not."""
    driver.queue(config=config(x_delivery_limit=0, x_dead_letter_exchange="dead"))
    driver.publish(1)
    driver.attach(1, prefetch=1, origin=2)
    driver.origin_gone(2)
    assert (ready(driver), letters(driver)) == (1, [])
    driver.attach(1, prefetch=1)
    driver.run(commands.close_session(TICKET, 1))
    assert letters(driver) == [(1, Reason.DELIVERY_LIMIT, 2, 1)]


def test_delayed_retry_waits_longer_each_time(driver: Driver) -> None:
    """x-delayed-retry-min times the number of failures, up to x-delayed-retry-max."""
    driver.queue(
        config=config(x_delayed_retry_type="failed", x_delayed_retry_min=100, x_delayed_retry_max=250)
    )
    driver.publish(1)
    driver.attach(1, prefetch=1)
    for number, wait_ms in enumerate((100, 200, 250, 250), 1):
        driver.run(commands.give_back(1, [(number, number)], failed=True))
        assert driver.machine.waiting(7) == (1, 0)
        assert slices_of(driver.wait(wait_ms - 1), 1) == []
        assert len(slices_of(driver.wait(1), 1)) == 1


def test_delayed_message_comes_at_its_time_and_once(driver: Driver) -> None:
    """x-delay and x-deliver-at: neither early nor twice, after a restart neither."""
    driver.queue()
    driver.attach(1)
    assert replies(driver.run(enqueue_with([7], 1, delay_ms=100))) == [0]
    driver.run(enqueue_with([7], 1, deliver_at_ms=driver.ts + 51))
    driver.checkpoint()
    driver.machines[1] = driver.restored()
    assert driver.machine.waiting(7) == (2, 0)
    assert records_of(driver.wait(49), 1) == []
    assert records_of(driver.wait(1), 1) == [(4, 0)]
    assert records_of(driver.wait(48), 1) == []
    assert records_of(driver.wait(1), 1) == [(3, 0)]
    assert records_of(driver.wait(500), 1) == []
    assert driver.machine.state_bytes() == driver.machines[2].state_bytes()


def test_delayed_message_lives_from_its_delivery_time_on(driver: Driver) -> None:
    """A time to live shorter than the delay does not kill it before its time."""
    driver.queue()
    driver.run(enqueue_with([7], 1, delay_ms=100, ttl_ms=20))
    driver.wait(100)
    assert ready(driver) == 1
    driver.wait(20)
    assert ready(driver) == 0


# --- deduplication, dead letters ---


def test_dedup_id_is_taken_once_and_confirmed_twice(driver: Driver) -> None:
    """A publisher that sends again what was not confirmed stores nothing twice, on whatever node."""
    driver.queue()
    assert replies(driver.run(enqueue_with([7], 3, dedup_ids=(b"a", b"b", b"a")))) == [0]
    driver.checkpoint()
    driver.machines[1] = driver.restored()
    assert replies(driver.run(enqueue_with([7], 3, dedup_ids=(b"b", b"c", b""), ticket=TICKET))) == [0]
    assert ready(driver) == 4
    assert driver.machine.live() == {2: 2, 3: 2}
    assert driver.machine.state_bytes() == driver.machines[2].state_bytes()


def test_refused_message_may_be_sent_again_with_its_id(driver: Driver) -> None:
    """A nack says that the queue does not have it, so its id is not known, nor that of its double in one command."""
    driver.queue(config=config(x_max_length=2, x_overflow="reject-publish"))
    names = (b"a", b"b", b"a", b"c", b"c")
    assert replies(driver.run(enqueue_with([7], 5, dedup_ids=names))) == [Refused(((3, 4),))]
    driver.run(commands.purge(0, 7))
    assert replies(driver.run(enqueue_with([7], 2, dedup_ids=(b"a", b"c")))) == [0]
    assert ready(driver) == 1
    assert driver.machine.state_bytes() == driver.machines[2].state_bytes()


def test_dedup_window_forgets_the_oldest(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """The window is bounded, and its rows with it."""
    monkeypatch.setattr("node.broker.dedup.IDS_MAX", 300)
    driver.queue()
    for number in range(0, 1200, 4):
        names = tuple(b"%d" % name for name in range(number, number + 4))
        driver.run(enqueue_with([7], 4, dedup_ids=names))
        driver.checkpoint()
    assert sum(key[9] == 7 for key in driver.store if key[:1] == b"Q") == 2
    driver.machines[1] = driver.restored()
    driver.run(enqueue_with([7], 2, dedup_ids=(b"1199", b"3")))
    assert ready(driver) == 1201
    assert driver.machine.state_bytes() == driver.machines[2].state_bytes()


def test_rejected_messages_become_letters_and_leave_when_done(driver: Driver) -> None:
    """They keep their entries until they are where they belong, and survive a restart."""
    driver.queue(config=config(x_dead_letter_exchange="dead"))
    driver.publish(5)
    driver.attach(1)
    driver.run(commands.discard(1, [(2, 4)]))
    driver.checkpoint()
    driver.machines[1] = driver.restored()
    assert letters(driver) == [(1, Reason.REJECTED, 2, 3)]
    assert driver.machine.duties().lettered == [7]
    assert driver.machine.live() == {2: 5}
    driver.run(commands.letters_done(7, 2))
    assert letters(driver) == [(3, Reason.REJECTED, 2, 1)]
    driver.run(commands.letters_done(7, 3))
    assert driver.machine.duties().lettered == []
    assert driver.machine.live() == {2: 2}


def test_a_letter_comes_once_however_often_it_is_sent(driver: Driver) -> None:
    """Numbers that came are not taken again, in whatever order and cut they come; a gap may be filled later."""
    driver.queue()
    driver.run(enqueue_with([7], 3, source_uid=9, source_low=1, source_seq=1))
    driver.run(enqueue_with([7], 2, source_uid=9, source_low=1, source_seq=6))
    assert replies(driver.run(enqueue_with([7], 7, source_uid=9, source_low=1, source_seq=1))) == [0]
    assert ready(driver) == 7
    driver.run(enqueue_with([7], 2, source_uid=9, source_low=8, source_seq=3))
    assert ready(driver) == 7
    driver.checkpoint()
    driver.machines[1] = driver.restored()
    driver.run(enqueue_with([7], 2, source_uid=9, source_low=8, source_seq=7))
    assert ready(driver) == 8
    assert driver.machine.source_uids() == [9]
    driver.run(commands.forget_source(9))
    driver.checkpoint()
    assert driver.restored().source_uids() == []


def test_without_dead_letter_exchange_discarded_messages_are_gone(driver: Driver) -> None:
    """Nothing keeps their entries."""
    driver.queue()
    driver.publish(2)
    driver.attach(1)
    driver.run(commands.discard(1, [(1, 2)]))
    assert not driver.machine.live()
    assert not driver.machine.has_duties


def test_fence_replies_after_what_was_before_it(driver: Driver) -> None:
    """It changes nothing."""
    driver.queue()
    assert replies(driver.run(enqueue([7], 1, ticket=4), commands.fence(5))) == [0, None]


def test_deleted_queue_takes_delayed_messages_and_letters_along(driver: Driver) -> None:
    """Nothing of it stays alive or in the store."""
    driver.queue(8)
    driver.checkpoint()
    before = dict(driver.store)
    driver.queue(config=config(x_dead_letter_exchange="dead", x_message_ttl=5))
    driver.run(enqueue_with([7], 2, delay_ms=1000, dedup_ids=(b"a", b"b")))
    driver.publish(2)
    driver.checkpoint()
    driver.wait(10)
    driver.run(enqueue_with([7], 1, delay_ms=2000))
    driver.run(commands.delete_queue(TICKET, 7, if_unused=False, if_empty=False))
    driver.checkpoint()
    assert driver.store == before
    assert not driver.machine.live()
    assert not driver.machine.has_duties


def test_timers_of_a_moving_queue_are_bounded(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long time to live and much traffic leave no trail of moments at which nothing happens."""
    monkeypatch.setattr("node.broker.queue_base.STALE_TIMERS_MAX", 5)
    settings = config(x_message_ttl=3_600_000, x_expires=3_600_000)
    driver.queue(config=settings)
    for uid in range(100, 130):
        driver.publish(1)
        fetched(driver)
        driver.run(commands.settle(50, [(1, 1)]))
        driver.queue(uid, settings)
        driver.run(commands.delete_queue(TICKET, uid, if_unused=False, if_empty=False))
    assert len(driver.machine._timers) <= 8
    driver.wait(3_600_000)
    assert not driver.machine.has_queue(7)
