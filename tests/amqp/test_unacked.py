"""The unacked window: tags to runs of deliveries."""

import random

from node.amqp.unacked import UnackedWindow


def test_record_joins_consecutive_deliveries_of_one_consumer() -> None:
    """Ids and tags that go on where the last run ended make one run, so one range is settled."""
    window = UnackedWindow()
    assert window.record(7, 1, 3) == 1
    assert window.record(7, 4, 2) == 4
    assert window.count == 5
    assert window.take_through(5) == [(7, 1, 5)]
    assert window.count == 0


def test_take_in_the_middle_of_a_run_leaves_both_sides() -> None:
    window = UnackedWindow()
    window.record(7, 101, 10)
    assert window.take(4, 6) == ([(7, 104, 106)], None)
    assert window.take_all() == [(7, 101, 103), (7, 107, 110)]


def test_take_goes_on_over_consumers() -> None:
    window = UnackedWindow()
    window.record(1, 1, 2)
    window.record(2, 1, 2)
    assert window.take(1, 4) == ([(1, 1, 2), (2, 1, 2)], None)


def test_take_returns_what_came_before_an_unknown_tag() -> None:
    """basic.ack 1, 2, 3 where 3 was never delivered: 1 and 2 are acknowledged, then the channel fails."""
    window = UnackedWindow()
    window.record(1, 1, 2)
    deliveries, error = window.take(1, 3)
    assert deliveries == [(1, 1, 2)]
    assert error is not None and error.text == "unknown delivery tag 3"


def test_take_through_zero_takes_all_even_of_nothing() -> None:
    """AMQP 1.8.3.13: tag 0 with multiple means all outstanding messages."""
    window = UnackedWindow()
    assert window.take_through(0) == []
    window.record(1, 5, 2)
    assert window.take_through(0) == [(1, 5, 6)]


def test_deliveries_without_ack_use_tags_up() -> None:
    window = UnackedWindow()
    assert window.skip(3) == 1
    assert window.record(1, 1, 1) == 4
    assert window.count == 1
    assert window.take(3, 3)[1] is not None


def test_window_agrees_with_a_dict_of_tags() -> None:
    """Against the obvious model: a dict from tag to (consumer, id)."""
    for seed in range(40):
        rng = random.Random(seed)
        window, model = UnackedWindow(), dict[int, tuple[int, int]]()
        next_ids = dict.fromkeys(range(3), 1)
        for _ in range(60):
            if rng.random() < 0.5 or not model:
                consumer, count = rng.randrange(3), rng.randint(1, 5)
                first_tag = window.record(consumer, next_ids[consumer], count)
                for at in range(count):
                    model[first_tag + at] = (consumer, next_ids[consumer] + at)
                next_ids[consumer] += count
                continue
            tag = rng.choice(list(model))
            if rng.random() < 0.3:
                taken, wanted = window.take_through(tag), [at for at in model if at <= tag]
            else:
                last = min(tag + rng.randrange(3), max(model))
                wanted = []
                for at in range(tag, last + 1):
                    if at not in model:
                        break
                    wanted.append(at)
                taken = window.take(tag, last)[0]
            flat = [(consumer, at) for consumer, first, end in taken for at in range(first, end + 1)]
            assert flat == [model.pop(at) for at in wanted]
            assert window.count == len(model)
        flat = [(c, at) for c, first, end in window.take_all() for at in range(first, end + 1)]
        assert flat == list(model.values())


def test_rollback_restores_what_was_settled_since_the_last_commit() -> None:
    """AMQP 1.9.2.5: a rollback abandons all acknowledgements of the transaction."""
    window = UnackedWindow()
    window.record(7, 1, 3)
    window.begin()
    window.take(1, 1)
    window.begin()
    window.take(3, 3)
    window.record(7, 4, 1)
    window.roll_back()
    assert window.count == 3
    assert window.take_all() == [(7, 2, 4)]


def test_what_was_settled_in_a_transaction_is_unknown_until_it_is_rolled_back() -> None:
    window = UnackedWindow()
    window.record(7, 1, 2)
    window.begin()
    window.take_through(0)
    assert window.take(1, 1)[1] is not None
    window.roll_back()
    assert window.take(1, 2) == ([(7, 1, 2)], None)


def test_rollback_agrees_with_a_set_of_tags() -> None:
    """Against the obvious model: a rollback is the state at the last commit, and what was delivered since."""
    for seed in range(40):
        rng = random.Random(seed)
        window, model, taken = UnackedWindow(), dict[int, int](), dict[int, int]()
        window.begin()
        for _ in range(80):
            action = rng.random()
            if action < 0.4 or not model:
                count = rng.randint(1, 6)
                first_tag = window.record(0, window.next_tag, count)
                model.update((tag, tag) for tag in range(first_tag, first_tag + count))
            elif action < 0.8:
                tag = rng.choice(list(model))
                settled = [tag]
                if rng.random() < 0.3:
                    settled = [at for at in model if at <= tag]
                    window.take_through(tag)
                else:
                    window.take(tag, tag)
                taken.update((at, model.pop(at)) for at in settled)
            elif action < 0.9:
                window.roll_back()
                model = dict(sorted({**model, **taken}.items()))
                taken = {}
            else:
                window.begin()
                taken = {}
            assert window.count == len(model)
        flat = [at for _, first, end in window.take_all() for at in range(first, end + 1)]
        assert flat == list(model)
