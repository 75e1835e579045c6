"""Acks, rejects and returns: a consumer's decisions go to the group that holds the messages, as ranges."""

from typing import TYPE_CHECKING

from node.amqp.events import Outcome
from node.broker import commands

if TYPE_CHECKING:
    from node.amqp.events import Settle
    from node.session.channel import ChannelSession

Delivered = tuple[int, int, int]
"""Consumer, first and last delivery id."""


def settle(channel: "ChannelSession", event: "Settle") -> None:
    """Tell the groups what became of deliveries."""
    outcome = event.outcome
    submit = channel.session.node.submit
    for consumer, ranges in by_consumer(event.deliveries).items():
        group = channel.holders.get(consumer)
        if group is None:
            continue
        if outcome is Outcome.ACK:
            submit(group, commands.settle(consumer, ranges))
        elif outcome is Outcome.REJECT:
            submit(group, commands.discard(consumer, ranges))
        else:
            submit(group, commands.give_back(consumer, ranges, failed=True))


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
