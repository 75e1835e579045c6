"""Which consumer gets which ready messages: the same on every replica, since it follows from state alone.

The consumers with credit of the highest priority share each run: with `n` messages and `m` consumers in line
each gets up to ceil(n / m), in turn. Measured by bench/micro/queue.py.
"""

from collections.abc import Callable

from node.broker.consumer import Consumer
from node.broker.queue_state import Queue
from node.broker.runs import Run

Assigned = Callable[[Consumer, Run, int, int], None]
"""Told of each assignment: the consumer, the run, its first delivery id, the failed deliveries to tell of."""


def assign(queue: Queue, slices_max: int, now: int, assigned: Assigned) -> int:
    """Give ready messages to consumers while there are both; returns the number of slices given.

    Args:
        queue: its `service` and `ready_count` are both non-empty afterwards only if the bound was reached.
        slices_max: stop about here. The bound keeps one command on a long backlog from blocking the node.
        now: what has expired before is discarded instead.
        assigned: called once a slice, in order.
    """
    given = 0
    service = queue.service
    counts_attempts = queue.policy.counts_attempts
    while queue.ready_count and service and given < slices_max:
        priority = next(iter(service)) if len(service) == 1 else max(service)
        line = service[priority]
        left = queue.first_count()
        share = -(-left // len(line))
        while left and line:
            consumer = line[0]
            run = queue.take(min(share, left, consumer.window - consumer.unacked))
            left -= run[3]
            queue.unacked_count += run[3]
            first_id = consumer.hold(run)
            if consumer.timeout_ms:
                consumer.mark(first_id, now)
            assigned(consumer, run, first_id, run[5] if counts_attempts else 0)
            queue.dirty_consumers[consumer.key] = None
            given += 1
            if consumer.unacked < consumer.window:
                line.rotate(-1)
            else:
                line.popleft()
                consumer.is_in_service = False
        if not line:
            del service[priority]
        if queue.is_timed:
            queue.expire(now, now)
    return given
