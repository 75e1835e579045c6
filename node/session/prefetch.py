"""basic.qos: how many messages a client may hold, by the consumer and by the channel.

`global=false` counts for the consumers that are started afterwards, each by itself, and lifts the channel's limit, as
in RabbitMQ. `global=true` is one limit for all consumers of the channel, from now on; those that wait for room are
served in turn. Both may stand together: the smaller room counts.
"""

from typing import TYPE_CHECKING, Final

from node.broker import commands
from node.errors import AmqpNotImplemented
from node.session.deliver import UNLIMITED, Consumer, flush, window_of
from node.wire import methods

if TYPE_CHECKING:
    from node.session.channel import ChannelSession

_NO_LIMIT: Final = 0
_PARKED: Final = -1
"""The window of a consumer that is to get no more; differs from any that it may have."""


class ChannelLimit:
    """The limit of one channel, made when the client sets the first one.

    What was taken by basic.get does not count, nor what a consumer without acks gets.

    Attributes:
        prefetch: messages that the client may hold; 0: no bound.
    """

    __slots__ = ("_channel", "_held", "_parked", "_turn", "_unacked", "_waited", "prefetch")

    def __init__(self, channel: "ChannelSession") -> None:
        self._channel = channel
        consumers = [consumer for consumer in channel.consumers.values() if not consumer.no_ack]
        self._held = {consumer.id: consumer.unacked for consumer in consumers}
        self._unacked = sum(self._held.values())
        self._turn = 0  # which consumer is served next
        self._waited: dict[
            int, int
        ] = {}  # consumer -> what was next in its backlog when it was last looked at
        self._parked: list[Consumer] = []  # told to get no more while there is no room
        self.prefetch = _NO_LIMIT

    @property
    def room(self) -> int:
        """How many more the client may hold."""
        return self.prefetch - self._unacked if self.prefetch else UNLIMITED

    def sent(self, consumer: int, count: int) -> None:
        """So many went to the client."""
        self._held[consumer] = self._held.get(consumer, 0) + count
        self._unacked += count

    def settled(self, consumer: int, count: int) -> None:
        """The client has settled so many, or has them no more."""
        held = self._held.get(consumer)
        if held is None:
            return
        self._unacked -= count
        if held == count:
            del self._held[consumer]
        else:
            self._held[consumer] = held - count

    def set(self, prefetch: int) -> None:
        """Change the limit: it counts at once for the client, and for the groups with the next entry."""
        self.prefetch = prefetch
        self._parked.clear()
        for consumer in self._channel.consumers.values():
            if not consumer.no_ack:
                _resize(consumer)
        self.flush()

    def flush(self) -> None:
        """Let consumers that wait for room have it, each its share, in turn."""
        if self._parked and self.room > 0:
            parked, self._parked = self._parked, []
            for consumer in parked:
                _resize(consumer)
        consumers = list(self._channel.consumers.values())
        start = self._turn % len(consumers) if consumers else 0
        order = [*range(start, len(consumers)), *range(start)]
        waiting = [number for number in order if consumers[number].backlog]
        while waiting and self.room > 0:
            share = -(-self.room // len(waiting))
            served = []
            for number in waiting:
                consumer = consumers[number]
                if flush(consumer, share):
                    self._turn = number + 1
                    if consumer.backlog:
                        served.append(number)
            waiting = served

    def look(self) -> None:
        """Called once a second: what has waited for room since the last time goes back to its queue.

        Others may have it, while the client is busy for long.
        """
        waited, self._waited = self._waited, {}
        if self.room > 0:
            return
        for consumer in self._channel.consumers.values():
            if not consumer.backlog or consumer.no_ack:
                continue
            if waited.get(consumer.id) == consumer.backlog[0].first_id:
                _park(consumer)
                self._parked.append(consumer)
            else:
                self._waited[consumer.id] = consumer.backlog[0].first_id


def qos(channel: "ChannelSession", method: methods.BasicQos) -> None:
    """basic.qos."""
    if method.prefetch_size:
        raise AmqpNotImplemented(f"prefetch_size!=0 ({method.prefetch_size})")
    # The answer goes before what the new limit lets go: a client in wait for it may not look at deliveries.
    channel.send(methods.BasicQosOk())
    prefetch = method.prefetch_count
    if not method.global_:
        channel.prefetch = prefetch
        prefetch = _NO_LIMIT
    if channel.limit is None and prefetch:
        channel.limit = ChannelLimit(channel)
        channel.session.limits[channel.id] = channel.limit
    if channel.limit is not None and channel.limit.prefetch != prefetch:
        channel.limit.set(prefetch)


def window(channel: "ChannelSession", prefetch: int) -> int:
    """What a group assigns to a consumer of this prefetch under the limit of the channel; 0: no bound."""
    limit = channel.limit.prefetch if channel.limit is not None else 0
    return window_of(min(prefetch, limit) if prefetch and limit else prefetch or limit)


def _resize(consumer: Consumer) -> None:
    """Tell the group the consumer's new window, and give back what is assigned beyond it and not sent."""
    size = window(consumer.channel, consumer.prefetch)
    if size != consumer.window:
        consumer.window = size
        _tell(consumer, size or commands.UNLIMITED_WINDOW)


def _park(consumer: Consumer) -> None:
    """Give back all that was not sent, and get no more."""
    consumer.window = _PARKED
    _tell(consumer, consumer.unacked)


def _tell(consumer: Consumer, size: int) -> None:
    ranges = consumer.take_unsent(max(size - consumer.unacked, 0))
    parts = commands.resize(consumer.id, size)
    if ranges:
        parts += commands.unsent(consumer.id, ranges)
    consumer.channel.session.node.submit(consumer.group, parts)
