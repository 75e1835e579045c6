"""What the queue machine does, one claim a test."""

import pytest

from node.broker import commands, commands_read, queue_base
from node.broker.commands import QueueConfig
from node.broker.effects import Deliver, GetResult, Refusal, Reply, Slice
from node.broker.errors import UnknownCommand
from node.broker.queue import NO_ACK_WINDOW
from node.wire import codec
from tests.broker.queue_driver import (
    CONFIG,
    HEADER_BYTES,
    TICKET,
    Driver,
    cancelled,
    enqueue,
    records_of,
    replies,
    slices_of,
)

AUTO_DELETE = QueueConfig(auto_delete=True).encode()


@pytest.fixture
def driver() -> Driver:
    """Two replicas with the empty queue 7."""
    driver = Driver()
    driver.queue()
    return driver


def test_enqueue_replies_zero_when_all_queues_took_the_run(driver: Driver) -> None:
    """The confirm follows from the local apply of the enqueue."""
    assert driver.publish(3) == [Reply(TICKET, 0)]
    assert driver.machine.counts(7) == (3, 0, 0)


def test_enqueue_counts_missing_queues_and_names_a_double_one_once(driver: Driver) -> None:
    """A deleted queue is no error for its publisher."""
    assert replies(driver.publish(3, 7, 8, 9, 7)) == [2]
    assert driver.machine.counts(7) == (3, 0, 0)


def test_effects_go_to_the_origin_only(driver: Driver) -> None:
    """Replies and deliveries are for the node of the session; the state is the same everywhere."""
    driver.attach(1, origin=2)
    data = bytes(HEADER_BYTES) + b"".join(enqueue([7], 1))
    effects = driver.run_everywhere(data, origin=1)
    assert effects[1] == [Reply(TICKET, 0)]
    assert [type(effect) for effect in effects[2]] == [Deliver]
    assert driver.machines[1].state_bytes() == driver.machines[2].state_bytes()


def test_slice_names_the_records_in_the_entry(driver: Driver) -> None:
    """A delivery finds its bytes by `enqueue_layout` and `skip`, also in the middle of a run."""
    driver.publish(1)
    records = b"".join(b"\0\0\0\0\0\0\0\1" + bytes([65 + n]) for n in range(5))
    driver.run(
        commands.settle(5, []),
        enqueue([7, 8], 5, records),
    )
    driver.attach(1, prefetch=3)
    (slice_,) = slices_of(driver.run(commands.settle(1, [(1, 2)])), 1)
    assert (slice_.index, slice_.first_record, slice_.count, slice_.first_id) == (3, 2, 2, 4)
    data = driver.log[slice_.index - 1][1]
    assert data is not None
    start, count = commands_read.enqueue_layout(data, slice_.command_offset)
    assert count == 5
    start = codec.skip(data, start, slice_.first_record)
    assert data[start : codec.skip(data, start, slice_.count)] == records[18:36]


def test_attach_replies_before_it_delivers(driver: Driver) -> None:
    """consume-ok must reach the client before the first delivery."""
    driver.publish(2)
    assert driver.attach(1) == [Reply(TICKET, None), Deliver(1, [Slice(2, HEADER_BYTES, 0, 2, 1, False)])]


def test_run_is_shared_by_consumers_with_credit(driver: Driver) -> None:
    """Each of m consumers gets up to ceil(n / m) of a run of n, and no more than its credit."""
    for consumer, prefetch in ((1, 0), (2, 2), (3, 0)):
        driver.attach(consumer, prefetch=prefetch)
    effects = driver.publish(10)
    got = {consumer: len(records_of(effects, consumer)) for consumer in (1, 2, 3)}
    assert got == {1: 4, 2: 2, 3: 4}


def test_single_messages_go_round_robin(driver: Driver) -> None:
    """Consumers of one priority take turns."""
    for consumer in (1, 2, 3):
        driver.attach(consumer)
    turns = [effect.consumer for _ in range(6) for effect in driver.publish(1) if isinstance(effect, Deliver)]
    assert turns == [1, 2, 3, 1, 2, 3]


def test_higher_priority_is_served_while_it_has_credit(driver: Driver) -> None:
    """x-priority: lower ones get what the higher ones have no credit for."""
    driver.attach(1, priority=-1)
    driver.attach(2, priority=5, prefetch=2)
    effects = driver.publish(3)
    assert (records_of(effects, 2), records_of(effects, 1)) == ([(4, 0), (4, 1)], [(4, 2)])


def test_prefetch_bounds_what_is_held(driver: Driver) -> None:
    """Credit comes back with the settle, never before."""
    driver.attach(1, prefetch=2)
    assert len(records_of(driver.publish(5), 1)) == 2
    assert driver.machine.counts(7) == (3, 2, 1)
    assert records_of(driver.run(commands.settle(1, [(2, 2)])), 1) == [(3, 2)]


def test_no_ack_consumer_has_a_fixed_window(driver: Driver) -> None:
    """The session settles what it has written; prefetch means nothing to a no-ack consumer."""
    driver.publish(NO_ACK_WINDOW + 5)
    assert len(records_of(driver.attach(1, no_ack=True, prefetch=1), 1)) == NO_ACK_WINDOW


def test_duplicate_settle_is_ignored(driver: Driver) -> None:
    """raft.md 2.6: settle is idempotent, unknown ids and consumers are ignored."""
    driver.attach(1)
    driver.publish(4)
    first = commands.settle(1, [(2, 3)])
    driver.run(first)
    state = driver.machine.state_bytes()
    driver.run(first)
    driver.run(commands.settle(1, [(90, 1 << 63), (3, 2), (0, 0)]))
    driver.run(commands.settle(55, [(1, 4)]))
    driver.run(first, origin=2)
    assert driver.machine.state_bytes() == state
    assert dict(driver.machine.live()) == {3: 2}


def test_entry_is_dead_when_its_last_message_is_settled(driver: Driver) -> None:
    """One body for many queues: a reference for each queue and message."""
    driver.queue(8)
    driver.publish(2, 7, 8)
    assert dict(driver.machine.live()) == {3: 4}
    driver.attach(1, 7)
    driver.run(commands.settle(1, [(1, 2)]))
    assert (dict(driver.machine.live()), driver.machine.take_dead()) == ({3: 2}, [])
    driver.run(commands.purge(TICKET, 8))
    assert (dict(driver.machine.live()), driver.machine.take_dead()) == ({}, [3])
    assert driver.machine.take_dead() == []


def test_entry_that_comes_back_to_life_is_not_dead(driver: Driver) -> None:
    """Enqueue, purge, enqueue in one entry: the second run still needs the data."""
    run = enqueue([7], 1, ticket=0)
    driver.run(run, commands.purge(0, 7), run)
    assert driver.machine.take_dead() == []


def test_give_back_serves_old_messages_first_and_flags_them(driver: Driver) -> None:
    """Returned messages keep their place before all new ones."""
    driver.publish(3)
    driver.attach(1, prefetch=2)
    driver.run(commands.detach(0, 1))
    driver.run(commands.give_back(1, [(1, 2)], failed=False))
    driver.publish(1)
    slices = slices_of(driver.attach(2), 2)
    assert [(s.index, s.first_record, s.count, s.redelivered) for s in slices] == [
        (2, 0, 2, True),
        (2, 2, 1, False),
        (6, 0, 1, False),
    ]


def test_down_returns_checked_out_in_order(driver: Driver) -> None:
    """rabbit_fifo down_noproc_returns_checked_out_in_order, for two sessions of one process."""
    driver.attach(1, origin=2)
    driver.attach(2, origin=2)
    for _ in range(6):
        driver.publish(1)
    effects = driver.origin_gone(2)
    assert effects == {1: [], 2: []}
    assert driver.machine.counts(7) == (6, 0, 0)
    slices = slices_of(driver.attach(3), 3)
    assert [(s.index, s.redelivered) for s in slices] == [(index, True) for index in range(4, 10)]


def test_ending_session_is_given_nothing_that_it_returns(driver: Driver) -> None:
    """All consumers of a session go before any of its messages is ready again."""
    driver.attach(1, session=5)
    driver.attach(2, session=5)
    driver.publish(4)
    effects = driver.run(commands.close_session(TICKET, 5))
    assert effects == [Reply(TICKET, None)]
    assert driver.machine.counts(7) == (4, 0, 0)


def test_return_of_pieces_costs_one_run_again(driver: Driver) -> None:
    """Messages of one run that come back one by one are joined."""
    driver.publish(64)
    driver.attach(1)
    driver.run(commands.detach(0, 1))
    for number in (*range(40, 65), *range(1, 40)):
        driver.run(commands.give_back(1, [(number, number)], failed=False))
    assert [(s.first_record, s.count) for s in slices_of(driver.attach(2), 2)] == [(0, 64)]


def test_detach_keeps_unacked(driver: Driver) -> None:
    """AMQP cancel: what the consumer holds stays with it until settled or until its session ends."""
    driver.publish(3)
    driver.attach(1, prefetch=2)
    assert driver.run(commands.detach(TICKET, 1)) == [Reply(TICKET, None)]
    assert driver.machine.counts(7) == (1, 2, 0)
    assert driver.run(commands.settle(1, [(1, 1)])) == []
    assert driver.machine.counts(7) == (1, 1, 0)
    driver.run(commands.close_session(0, 1))
    assert driver.machine.counts(7) == (2, 0, 0)


def test_discard_after_detach_drops_the_message(driver: Driver) -> None:
    """rabbit_fifo discard_after_cancel."""
    driver.publish(1)
    driver.attach(1)
    driver.run(commands.detach(0, 1), commands.discard(1, [(1, 1)]))
    assert driver.machine.counts(7) == (0, 0, 0)
    assert dict(driver.machine.live()) == {}


def test_purge_leaves_what_is_checked_out(driver: Driver) -> None:
    """rabbit_fifo purge_with_checkout; the count is that of ready messages."""
    driver.publish(5)
    driver.attach(1, prefetch=2)
    assert driver.run(commands.purge(TICKET, 7)) == [Reply(TICKET, 3)]
    assert driver.machine.counts(7) == (0, 2, 1)
    driver.run(commands.give_back(1, [(1, 2)], failed=True))
    assert driver.machine.counts(7) == (0, 2, 1)


def test_get_takes_one_message_and_counts_the_rest(driver: Driver) -> None:
    """basic.get-ok carries the number of messages left; get-empty is None."""
    driver.publish(2)
    found = GetResult(Slice(2, HEADER_BYTES, 0, 1, 1, False), 1)
    assert driver.run(commands.get(TICKET, 1, 50, 7)) == [Reply(TICKET, found)]
    driver.run(commands.get(0, 1, 51, 7))
    assert driver.run(commands.get(TICKET, 1, 52, 7)) == [Reply(TICKET, None)]
    driver.run(commands.settle(50, [(1, 1)]))
    assert driver.machine.counts(7) == (0, 1, 0)
    driver.run(commands.close_session(0, 1))
    assert driver.machine.counts(7) == (1, 0, 0)


def test_get_refuses_the_id_of_a_consumer(driver: Driver) -> None:
    """A holder of basic.get is not a consumer, and neither may hold for another queue."""
    driver.queue(8)
    driver.publish(2, 8)
    driver.attach(1)
    driver.run(commands.get(0, 1, 50, 8))
    assert replies(driver.run(commands.get(TICKET, 1, 1, 7))) == [Refusal.DUPLICATE]
    assert replies(driver.run(commands.get(TICKET, 1, 50, 7))) == [Refusal.DUPLICATE]
    assert replies(driver.attach(50)) == [Refusal.DUPLICATE]


def test_commands_on_a_missing_queue_are_refused(driver: Driver) -> None:
    """Expected outcomes are values."""
    missing = [
        commands.get(TICKET, 1, 1, 99),
        commands.purge(TICKET, 99),
        commands.delete_queue(TICKET, 99, if_unused=False, if_empty=False),
        commands.attach(TICKET, 1, 1, 99, prefetch=0, no_ack=False, exclusive=False, priority=0),
    ]
    assert replies(driver.run(*missing)) == [Refusal.NO_QUEUE] * 4


def test_exclusive_consumer_is_alone(driver: Driver) -> None:
    """basic.consume exclusive: refused beside others, and refuses others."""
    driver.attach(1)
    assert replies(driver.attach(2, exclusive=True)) == [Refusal.EXCLUSIVE_USE]
    driver.run(commands.detach(0, 1))
    assert replies(driver.attach(3, exclusive=True)) == [None]
    assert replies(driver.attach(4)) == [Refusal.EXCLUSIVE_USE]


def test_delete_checks_if_unused_and_if_empty(driver: Driver) -> None:
    """A refused delete changes nothing."""
    driver.attach(1, prefetch=1)
    driver.publish(2)
    assert replies(driver.run(commands.delete_queue(TICKET, 7, if_unused=True, if_empty=False))) == [
        Refusal.IN_USE
    ]
    assert replies(driver.run(commands.delete_queue(TICKET, 7, if_unused=False, if_empty=True))) == [
        Refusal.NOT_EMPTY
    ]
    assert driver.machine.counts(7) == (1, 1, 1)


def test_delete_cancels_consumers_on_their_nodes(driver: Driver) -> None:
    """The client learns that its consumer is gone; late settles are ignored."""
    driver.attach(1, prefetch=1)
    driver.attach(2, origin=2, prefetch=1)
    driver.publish(3)
    data = bytes(HEADER_BYTES) + commands.delete_queue(TICKET, 7, if_unused=False, if_empty=False)[0]
    effects = driver.run_everywhere(data)
    assert (cancelled(effects[1]), cancelled(effects[2])) == ([1], [2])
    assert replies(effects[1]) == [1]
    assert driver.run(commands.settle(1, [(1, 1)])) == []
    assert (driver.machine.has_queue(7), dict(driver.machine.live())) == (False, {})
    assert driver.machine.take_dead() == [4]


def test_create_is_idempotent_by_uid(driver: Driver) -> None:
    """A frontend may create a queue again that another one has created."""
    driver.publish(1)
    driver.queue()
    assert driver.machine.counts(7) == (1, 0, 0)


def test_auto_delete_queue_expires_with_its_last_consumer(driver: Driver) -> None:
    """It refuses everything at once, and stays named until the leader has deleted it everywhere."""
    driver.queue(8, AUTO_DELETE)
    driver.run(commands.get(0, 9, 9, 8))
    assert driver.machine.has_queue(8)
    driver.attach(1, 8)
    driver.attach(2, 8, origin=2)
    driver.publish(3, 8)
    driver.run(commands.detach(0, 1))
    assert driver.machine.duties() == ([], False, [])
    driver.origin_gone(2)
    assert driver.machine.duties().expired == [8]
    assert dict(driver.machine.live()) == {}
    driver.queue(8, AUTO_DELETE)
    assert replies(driver.attach(3, 8)) == [Refusal.NO_QUEUE]
    assert replies(driver.run(commands.delete_queue(TICKET, 8, if_unused=False, if_empty=False))) == [0]
    assert driver.machine.duties().expired == []


def test_long_assignment_goes_on_in_later_entries(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """One attach to a long backlog must not block the node: the rest follows with any entry, here ticks."""
    monkeypatch.setattr(queue_base, "ASSIGN_SLICES_MAX", 4)
    for _ in range(10):
        driver.publish(1)
    assert len(slices_of(driver.attach(1), 1)) == 4
    assert driver.machine.duties().unfinished
    assert len(slices_of(driver.run(commands.tick()), 1)) == 4
    assert len(slices_of(driver.run(commands.tick()), 1)) == 2
    assert not driver.machine.duties().unfinished


def test_unknown_kind_stops_the_group_before_anything_changed(driver: Driver) -> None:
    """raft.md trap 34: never skipped, never answered ok."""
    state = driver.machine.state_bytes()
    run = b"".join(enqueue([7], 1, ticket=0))
    with pytest.raises(UnknownCommand):
        driver.run((run + b"\xff\0\0\0\0",))
    assert driver.machine.state_bytes() == state


def test_config_round_trip() -> None:
    """The canonical bytes of a configuration say all of it."""
    config = QueueConfig(durable=False, exclusive=True, auto_delete=True, arguments=b"\0\0\0\0")
    assert QueueConfig.decode(config.encode()) == config
    assert QueueConfig.decode(CONFIG) == QueueConfig()


def test_consumers_are_listed_for_the_admin(driver: Driver) -> None:
    """Holders of basic.get and detached consumers are not among them."""
    driver.publish(3)
    driver.attach(4, origin=2, prefetch=2, priority=1)
    driver.run(commands.get(0, 1, 50, 7))
    assert driver.machine.consumers(7) == [(2, 4, 4, 2, False, False, 1, 2, True)]
    assert list(driver.machine.queue_uids()) == [7]
