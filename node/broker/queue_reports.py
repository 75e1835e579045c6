"""What the queue machine tells whoever looks after it: the leader's duties, and the consumers there are."""

from typing import NamedTuple


class Duties(NamedTuple):
    """What the leader of the group should see to; asking costs O(answer).

    Args:
        expired: auto-delete queues whose last consumer has gone. They hold nothing and refuse everything; the
            leader deletes each from the topology and then sends `delete_queue`, which forgets it here.
        unfinished: there are ready messages for consumers with credit, put off by `ASSIGN_SLICES_MAX`: the
            leader proposes `commands.tick()`. Any other command helps as well.
    """

    expired: list[int]
    unfinished: bool


class ConsumerInfo(NamedTuple):
    """An attached consumer as the admin sees it; `prefetch` 0: no limit."""

    origin: int
    session: int
    consumer: int
    prefetch: int
    no_ack: bool
    exclusive: bool
    priority: int
    unacked: int
