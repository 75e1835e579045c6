"""What the replicated machines want told to clients: data, returned by `apply`, never closures.

Every node applies every group, and each machine returns the effects for its own node only, so that what
a client is told follows from the local apply. Effects come in the order in which they must be acted on:
the reply to `attach` before the first delivery, `Cancelled` after the last.
"""

from enum import Enum
from typing import Any, NamedTuple


class Refusal(Enum):
    """Why a queue command changed nothing; the session layer turns it into the spec's exception."""

    NO_QUEUE = "no queue"  # deleted, or an auto-delete queue whose last consumer has gone
    IN_USE = "in use"  # delete if-unused: it has consumers
    NOT_EMPTY = "not empty"  # delete if-empty: it has ready messages
    EXCLUSIVE_USE = "exclusive use"  # attach: there is an exclusive consumer, or this one would not be alone
    DUPLICATE = "duplicate"  # attach or get: the consumer id is taken


class Refused(NamedTuple):
    """Full queues refused messages of an enqueue (x-overflow); they are to be nacked.

    Args:
        ranges: first and last number of refused messages within the command, from 0, ascending.
    """

    ranges: tuple[tuple[int, int], ...]


class Slice(NamedTuple):
    """Consecutive messages of one run, delivered to one consumer.

    Args:
        index: log entry whose data holds them.
        command_offset: where the enqueue command starts in that data; `commands_read.enqueue_layout` finds
            the exchange, the routing key and record 0 from it, `wire.codec.skip` record `first_record`.
        first_record: number of the first message within the run, from 0.
        count: number of messages, at least 1.
        first_id: delivery id of the first; the others follow without gaps.
        redelivered: they were given to a consumer before.
        attempts: how often their delivery has failed before, where the queue tells its consumers (x-delivery-count).
    """

    index: int  # type: ignore[assignment]  # the word of the log; tuple.index is not used
    command_offset: int
    first_record: int
    count: int  # type: ignore[assignment]  # as above
    first_id: int
    redelivered: bool
    attempts: int = 0


class Reply(NamedTuple):
    """The answer to the command that carried `ticket` (never 0).

    Args:
        ticket: as in the command.
        value: of a queue group: None (done; get: the queue is empty), a `Refusal`, a `GetResult` (get), a
            message count (delete_queue, purge), the number of missing queues (enqueue; 0: all took it) or
            `Refused`, or what another node has answered to `probe`.
    """

    ticket: int
    value: Any


class Probed(NamedTuple):
    """Another node has asked whether a queue is here, in this node's memory; `commands.answer` tells it."""

    origin: int
    question: int  # the ticket of the node that asks
    is_here: bool


class GetResult(NamedTuple):
    """A message for basic.get.

    Args:
        slice: one message; its `first_id` is held by the consumer id that the command named.
        remaining: ready messages left in the queue.
    """

    slice: Slice
    remaining: int


class Deliver(NamedTuple):
    """Messages for a consumer of this node, in order; at most one such effect a consumer and `apply`."""

    consumer: int
    slices: list[Slice]


class Cancelled(NamedTuple):
    """An attached consumer of this node is gone, because its queue is or because it held a message for too long.

    Nothing that it holds can be settled.
    """

    consumer: int


QueueEffect = Reply | Deliver | Cancelled | Probed
