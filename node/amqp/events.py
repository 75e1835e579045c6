"""What a client asked for: the events that a `Connection` returns, in the client's order.

An event that belongs to a channel carries the `Channel` itself and not its number: one piece of data may
close channel 1 and open it again, and an answer to the first must never reach the second. A handler that
refuses an event calls `event.channel.fail(error)` and from then on skips every event whose `channel.failed`
is true; no `ChannelClosing` follows for an error that the session itself raised.

An end that the client asked for, or that a fault makes certain, is an event like any other: what came before is
answered first.
"""

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from node.errors import AmqpError

if TYPE_CHECKING:
    from node.amqp.channel import Channel
    from node.wire.codec import PublishedRun
    from node.wire.methods import Method


class Outcome(Enum):
    """What a consumer decided about its deliveries."""

    ACK = "ack"
    REQUEUE = "requeue"  # basic.nack and basic.reject with requeue
    REJECT = "reject"  # the same without: discarded or dead-lettered


@dataclass(slots=True)
class Login:
    """The client has sent its credentials; answer with `login_accepted` or `login_refused`.

    Args:
        mechanism: `PLAIN`, `AMQPLAIN` or another of `Options.mechanisms`.
        user: the name as claimed.
        password: in clear; empty for mechanisms without one.
    """

    mechanism: str
    user: str
    password: str


@dataclass(slots=True)
class Open:
    """The client wants to work in `vhost`; answer with `open_accepted`, or `fail` with NotAllowed."""

    vhost: str


@dataclass(slots=True)
class ConnectionClosing:
    """The connection is about to end: answer with `finish` once all that came before, on any channel, is answered.

    Of events only `ConnectionClosed` may follow.

    Args:
        error: the fault that ends it; None where the client said goodbye.
        reason: for the log, e.g. the client's reply text.
    """

    error: AmqpError | None
    reason: str


@dataclass(slots=True)
class ConnectionClosed:
    """The connection has ended: every channel and all that it holds is gone. No event follows.

    Args:
        reason: for the log: it was lost, or `ConnectionClosing` was not answered in time.
    """

    reason: str


@dataclass(slots=True)
class ChannelOpened:
    """`channel` is open; answer with channel.open-ok, once `before` is closed.

    Args:
        channel: the new one.
        before: what had its number and was not closed yet, though the client has asked for it; None: nothing.
    """

    channel: "Channel"
    before: "Channel | None"


@dataclass(slots=True)
class ChannelClosing:
    """`channel` is about to end: answer with `channel.finish` once all that came before is answered.

    Args:
        channel: of which no other event but `ChannelClosed` follows.
        error: the fault that ends it; None where the client wished it.
    """

    channel: "Channel"
    error: AmqpError | None


@dataclass(slots=True)
class ChannelClosed:
    """`channel` is gone: `ChannelClosing` was not answered in time.

    What it held unacknowledged is still to be had by `channel.take_all()`.
    """

    channel: "Channel"


@dataclass(slots=True)
class Publish:
    """A burst: messages that were published on one channel one after the other, and read together.

    Args:
        channel: where they were published.
        runs: (args, count, packed) in order; the messages of one have the same exchange, routing key and flags.
            args: as they came, for `content.parse_publish`, which has taken them once.
            packed: `count` records as `node.wire` packs them.
        first_seq: confirm sequence number of the first message, the others follow; 0: channel not in confirm
            mode.
    """

    channel: "Channel"
    runs: "list[PublishedRun]"
    first_seq: int


@dataclass(slots=True)
class Settle:
    """Deliveries that the client has settled; they have left the channel's unacked window.

    Args:
        channel: where they had been delivered.
        outcome: what becomes of them, in a transaction once it is committed.
        deliveries: (consumer, first_id, last_id), both ends included, in the order of their delivery tags;
            the ids are those that the session gave to `Channel.record_delivery`. Never empty.
    """

    channel: "Channel"
    outcome: Outcome
    deliveries: list[tuple[int, int, int]]


@dataclass(slots=True)
class Request:
    """Any other method of a channel: exchange.*, queue.*, basic.qos/consume/cancel/get/recover/recover-async.

    Also confirm.select, tx.*, channel.flow and access.request, whose effect on tags and confirms, if any, has taken
    place: their answers must not overtake those to what the client sent before, a basic.return for example.

    The session answers with `channel.send`, or not at all where the method says no-wait.
    """

    channel: "Channel"
    method: "Method"


Event = (
    Login
    | Open
    | ConnectionClosing
    | ConnectionClosed
    | ChannelOpened
    | ChannelClosing
    | ChannelClosed
    | Publish
    | Settle
    | Request
)
