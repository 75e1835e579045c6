"""What must hold of every replica's queues after every event, and of the rows that their bodies are read from."""

import zlib
from typing import Any

from cluster.group import Group
from node.broker.queue import QueueMachine
from node.broker.queue_state import Queue
from node.core import NodeCore
from tests.sim.history import Violation
from tests.sim.log_model import LogModel
from tests.sim.world import SimNode

AUDIT_EVERY = 16
"""Applied changes of a replica between two full counts of its messages."""


class QueueChecks:
    """Call `check` when a group of a node has moved, `audit` at the end."""

    def __init__(self, model: LogModel) -> None:
        self.model = model
        self._states: dict[tuple[int, int], int] = {}  # (group, applied): state
        self._applied: dict[tuple[int, int], tuple[int, int]] = {}  # (node, group): boot, applied
        self._changes: dict[tuple[int, int], int] = {}

    def check(self, sim: SimNode, core: NodeCore, group: Group) -> None:
        """Compare a replica with the others at the same index, and with the rows on its disk."""
        key = (sim.id, group.id)
        if self._applied.get(key) == (sim.boot, group.applied) or group.installing:
            return
        self._applied[key] = (sim.boot, group.applied)
        model = self.model.groups[group.id]
        streams = tuple(sorted((node, *stream) for node, stream in group.origins._streams.items()))
        if streams != model.streams[group.applied]:
            raise Violation(
                "origin streams",
                f"n{sim.id} g{group.id} {group.applied}: {streams}, not {model.streams[group.applied]}",
            )
        machine: Any = group.machine
        state = state_of(machine)
        if self._states.setdefault((group.id, group.applied), state) != state:
            raise Violation("states differ", f"n{sim.id} g{group.id} after {group.applied}")
        self._bodies(sim, group)
        if isinstance(machine, QueueMachine):
            count = self._changes[key] = self._changes.get(key, 0) + 1
            for consumer, _ in machine._consumers.values():
                if consumer.attached and consumer.unacked > consumer.window:
                    raise Violation(
                        "prefetch", f"n{sim.id} g{group.id} {consumer.key} holds {consumer.unacked}"
                    )
            if count % AUDIT_EVERY == 0:
                audit(f"n{sim.id} g{group.id}", machine)

    def _bodies(self, sim: SimNode, group: Group) -> None:
        """Every live message can be read."""
        image = sim.disk.images[group.id]
        missing = group.machine.live().keys() - image.log.keys() - image.live.keys()
        if missing:
            raise Violation("body is missing", f"n{sim.id} g{group.id} entries {sorted(missing)[:5]}")


def state_of(machine: Any) -> int:
    """A checksum of a replica's whole state."""
    if isinstance(machine, QueueMachine):
        return zlib.crc32(machine.state_bytes())
    return zlib.crc32(repr(machine.checkpoint(full=True)).encode())


def audit(who: str, machine: QueueMachine) -> None:
    """Count everything anew: each message is in one place, and every number is the sum of its parts."""
    references: dict[int, int] = {}
    for uid, queue in machine._queues.items():
        seen: set[tuple[int, int, int]] = set()
        ready = sum(_place(who, uid, [*lane.runs(), *lane.returned], seen) for lane in queue.lanes.values())
        delayed = _place(who, uid, [run for _, run in queue.delayed], seen)
        _place(who, uid, [letter.run for _, letter in queue.letters], seen)
        if delayed != queue.delayed.count:
            raise Violation("counts", f"{who} queue {uid}: {delayed} delayed, not {queue.delayed.count}")
        held = 0
        for consumer in queue.consumers.values():
            runs = [run for chunk in consumer.chunks.values() for _, run in chunk]
            count = _place(who, uid, runs, seen)
            if count != consumer.unacked:
                raise Violation("counts", f"{who} {consumer.key} holds {count}, says {consumer.unacked}")
            held += count
        if (ready, held) != (queue.ready_count, queue.unacked_count):
            raise Violation(
                "counts",
                f"{who} queue {uid}: {ready}, {held}, not {queue.ready_count}, {queue.unacked_count}",
            )
        if queue.attached_count != sum(consumer.attached for consumer in queue.consumers.values()):
            raise Violation("counts", f"{who} queue {uid}: {queue.attached_count} attached")
        _rules(f"{who} queue {uid}", queue)
        _timer(f"{who} queue {uid}", machine, queue)
        for index, _, _ in seen:
            references[index] = references.get(index, 0) + 1
    if references != machine.live():
        raise Violation("live", f"{who}: {references}, not {dict(machine.live())}")


def _rules(who: str, queue: Queue) -> None:
    """What the arguments of a queue allow."""
    policy = queue.policy
    ready = [run for lane in queue.lanes.values() for run in (*lane.runs(), *lane.returned)]
    for lane in queue.lanes.values():
        if any(run[6][0] != lane.priority for run in (*lane.runs(), *lane.returned)):
            raise Violation("lanes", f"{who}: lane {lane.priority}")
    if [lane.priority for lane in queue.in_order] != sorted(queue.lanes, reverse=True):
        raise Violation("lanes", f"{who}: {[lane.priority for lane in queue.in_order]}")
    size = sum(run[3] * run[6][2] for run in ready)
    if policy.bytes_max >= 0 and size != queue.ready_bytes:
        raise Violation("counts", f"{who}: {size} bytes, not {queue.ready_bytes}")
    if policy.refuses:
        # What comes back, from a consumer or after a delay, comes in whatever there is.
        ready = [run for lane in queue.lanes.values() for run in lane.runs()]
    count = sum(run[3] for run in ready)
    if 0 <= policy.length_max < count:
        raise Violation("limit exceeded", f"{who}: {count} ready, not {policy.length_max}")
    serving = [consumer for line in queue.service.values() for consumer in line]
    if policy.single_active and any(consumer is not queue.active for consumer in serving):
        raise Violation("two active consumers", f"{who}: {[consumer.key for consumer in serving]}")
    if any(
        not taker.attached or not taker.is_in_service or taker.unacked >= taker.window for taker in serving
    ):
        raise Violation("service", f"{who}: {[consumer.key for consumer in serving]}")
    numbers = [(first, first + letter.run[3]) for first, letter in queue.letters]
    if [end for _, end in numbers] != [*[first for first, _ in numbers[1:]], queue.next_letter][
        : len(numbers)
    ]:
        raise Violation("letters", f"{who}: {numbers}, next {queue.next_letter}")


def _timer(who: str, machine: QueueMachine, queue: Queue) -> None:
    """What is due at some time stands in the timers, not later than then."""
    due = queue.next_due()
    first = min((when for when, _ in queue.delayed), default=0)
    if first and not 0 < queue.delayed.next_due() <= first:
        raise Violation("heap", f"{who}: {first}, said to be {queue.delayed.next_due()}")
    if due and not queue.is_timed:
        raise Violation("timers", f"{who} is due and not timed")
    if queue.is_timed and due and (not queue.due_ts or queue.due_ts > due):
        raise Violation("timers", f"{who} is due at {due}, known for {queue.due_ts}")
    if queue.due_ts and (queue.due_ts, queue.uid) not in machine._timers:
        raise Violation("timers", f"{who} is due at {queue.due_ts}, and in no timer")


def _place(who: str, uid: int, runs: Any, seen: set[tuple[int, int, int]]) -> int:
    count = 0
    for index, offset, first, size, *_ in runs:
        for record in range(first, first + size):
            if (index, offset, record) in seen:
                raise Violation("message in two places", f"{who} queue {uid}: entry {index} record {record}")
            seen.add((index, offset, record))
        count += size
    return count
