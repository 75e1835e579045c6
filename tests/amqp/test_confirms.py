"""Publisher confirms: few frames, and each message told exactly once."""

import random

from node.amqp.confirms import Confirms
from node.wire.codec import ACK, METHOD, scan
from node.wire.methods import BasicNack, decode_method


def told(confirms: Confirms) -> list[tuple[str, int, bool]]:
    """The frames as (kind, tag, multiple)."""
    frames = confirms.frames()
    result: list[tuple[str, int, bool]] = []
    for item in scan(frames, 0, 1)[0]:
        if item[0] == ACK:
            result += [("ack", tag, item[4]) for tag in range(item[2], item[3] + 1)]
        else:
            assert item[0] == METHOD
            method = decode_method(item[2], item[3])
            assert isinstance(method, BasicNack)
            result.append(("nack", method.delivery_tag, method.multiple))
    return result


def gathered(count: int, *ranges: tuple[int, int, bool]) -> Confirms:
    confirms = Confirms(1)
    confirms.number(count)
    for first, last, ok in ranges:
        confirms.gather([(first, last)], ok=ok)
    return confirms


def test_a_turn_of_confirms_is_one_frame() -> None:
    confirms = gathered(500, (1, 100, True), (301, 500, True), (101, 300, True))
    assert told(confirms) == [("ack", 500, True)]
    assert told(confirms) == []


def test_a_single_confirm_is_not_multiple() -> None:
    assert told(gathered(1, (1, 1, True))) == [("ack", 1, False)]


def test_beyond_a_gap_each_is_told_alone() -> None:
    """`multiple` would confirm message 2, which nobody has stored."""
    confirms = gathered(5, (1, 1, True), (3, 4, True))
    assert told(confirms) == [("ack", 1, False), ("ack", 3, False), ("ack", 4, False)]
    confirms.gather([(2, 2)], ok=True)
    confirms.gather([(5, 5)], ok=True)
    assert told(confirms) == [("ack", 5, True)]
    assert confirms.open_count == 0


def test_refusals_split_the_ranges() -> None:
    confirms = gathered(9, (1, 5, True), (6, 7, False), (8, 9, True))
    assert told(confirms) == [("ack", 5, True), ("nack", 7, True), ("ack", 9, True)]


def test_confirms_tell_each_message_once_whatever_the_order() -> None:
    """A client that follows the rules of `multiple` ends with exactly what was gathered."""
    for seed in range(60):
        rng = random.Random(seed)
        confirms = Confirms(1)
        total = 60
        confirms.number(total)
        outcome = {seq: rng.random() < 0.8 for seq in range(1, total + 1)}
        order = list(outcome)
        rng.shuffle(order)
        open_at_client, heard, sent = list(outcome), dict[int, bool](), 0
        while order:
            batch = [order.pop() for _ in range(min(len(order), rng.randint(1, 20)))]
            for seq in batch:
                confirms.gather([(seq, seq)], ok=outcome[seq])
            sent += len(batch)
            for kind, tag, multiple in told(confirms):
                seqs = [seq for seq in open_at_client if seq <= tag] if multiple else [tag]
                for seq in seqs:
                    open_at_client.remove(seq)
                    heard[seq] = kind == "ack"
            assert len(heard) == sent
            assert confirms.open_count == total - sent
        assert heard == outcome
