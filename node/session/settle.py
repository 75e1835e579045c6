"""Acks, rejects and returns: a consumer's decisions go to the group that holds the messages, as ranges."""

from typing import TYPE_CHECKING

from node.amqp.events import Outcome
from node.broker import commands
from node.session.deliver import flush

if TYPE_CHECKING:
    from node.amqp.events import Settle
    from node.session.channel import ChannelSession
    from node.session.session import Session

Delivered = tuple[int, int, int]
"""Consumer, first and last delivery id."""


def settle(channel: "ChannelSession", event: "Settle") -> None:
    """Tell the groups what became of deliveries."""
    outcome = event.outcome
    session = channel.session
    submit = session.node.submit
    for consumer, ranges in by_consumer(event.deliveries).items():
        group = channel.holders.get(consumer)
        if group is None:
            continue
        if outcome is Outcome.ACK:
            is_patient = _can_wait(session, consumer, ranges)
            submit(group, commands.settle(consumer, ranges), is_patient=is_patient)
        elif outcome is Outcome.REJECT:
            submit(group, commands.discard(consumer, ranges))
        else:
            submit(group, commands.give_back(consumer, ranges, failed=True))
        let_go(session, consumer, ranges)


def let_go(session: "Session", consumer_id: int, ranges: list[tuple[int, int]]) -> None:
    """The client holds these no more: what waits for it can go out at once."""
    consumer = session.shared.consumers.get(consumer_id)
    if consumer is not None:
        consumer.settled(_count(ranges))
        if consumer.backlog:
            flush(consumer)


def _can_wait(session: "Session", consumer_id: int, ranges: list[tuple[int, int]]) -> bool:
    """An ack is answered by nothing; only a consumer that soon has no credit left waits for what it brings."""
    consumer = session.shared.consumers.get(consumer_id)
    return consumer is None or consumer.can_wait(_count(ranges))


def _count(ranges: list[tuple[int, int]]) -> int:
    return sum([last - first + 1 for first, last in ranges])


def by_consumer(deliveries: list[Delivered]) -> dict[int, list[tuple[int, int]]]:
    """Ranges of each consumer, in the order of delivery."""
    found: dict[int, list[tuple[int, int]]] = {}
    for consumer, first, last in deliveries:
        ranges = found.get(consumer)
        if ranges is None:
            found[consumer] = [(first, last)]
        else:
            ranges.append((first, last))
    return found
