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
    """Tell the groups what became of deliveries, or keep it for the commit."""
    if channel.transaction is not None:
        channel.transaction.keep_settled(event)
        return
    outcome = event.outcome
    session = channel.session
    submit = session.node.submit
    for consumer, ranges in by_consumer(event.deliveries).items():
        group = channel.holders.get(consumer)
        if group is None:
            continue
        is_patient = outcome is Outcome.ACK and _can_wait(session, consumer, ranges)
        submit(group, command(outcome, consumer, ranges), is_patient=is_patient)
        let_go(channel, consumer, ranges, is_told=outcome is not Outcome.ACK)


def command(outcome: Outcome, consumer: int, ranges: list[tuple[int, int]]) -> commands.Parts:
    """What a group is told of these deliveries."""
    if outcome is Outcome.ACK:
        return commands.settle(consumer, ranges)
    if outcome is Outcome.REJECT:
        return commands.discard(consumer, ranges)
    return commands.give_back(consumer, ranges, failed=True)


def let_go(
    channel: "ChannelSession", consumer_id: int, ranges: list[tuple[int, int]], *, is_told: bool
) -> None:
    """The client holds these no more: what waits for it can go out at once.

    Args:
        channel: where they were delivered.
        consumer_id: who held them.
        ranges: of delivery ids.
        is_told: the group was told so in a command that does not wait for another.
    """
    count = _count(ranges)
    limit = channel.limit
    if limit is not None:
        limit.settled(consumer_id, count)
    consumer = channel.session.shared.consumers.get(consumer_id)
    if consumer is not None:
        consumer.settled(count)
        if is_told:
            consumer.told(count)
        if consumer.backlog and limit is None:
            flush(consumer)
    if limit is not None:
        limit.flush()


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
