"""What all commands of the queue machine share: its state, references to messages, assignment, and time.

A command changes a queue and then calls `_follow_up`, which does what follows from any change: expire heads, serve
consumers, keep limits, let go of what left the queue, and note when time will change something here.
"""

from collections.abc import Iterable, Mapping
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from cluster.machine import Meta, Row
from node.broker import queue_rows, queue_rows_read
from node.broker.consumer import Consumer, Key
from node.broker.effects import Cancelled, Deliver, GetResult, QueueEffect, Refusal, Refused, Reply, Slice
from node.broker.queue_assignment import assign
from node.broker.queue_state import Letter, Queue
from node.broker.runs import Run

ASSIGN_SLICES_MAX = 8192
"""Slices assigned in one `apply`, some 20 ms of work; the rest waits for the next (`Duties.unfinished`)."""
STALE_TIMERS_MAX = 10_000
"""Timers that no queue knows of any more, kept until their time comes."""
RELEASED_RUNS_MAX = 8192
"""Delayed runs of a queue made ready in one `apply`; those that are due as well wait for the next."""


class Duties(NamedTuple):
    """What the leader of the group should see to; asking costs O(answer).

    Args:
        expired: queues that ended by themselves: auto-delete ones whose last consumer has gone, and those that nobody
            used for too long. They hold nothing and refuse everything; the leader deletes each from the topology
            and then sends `delete_queue`, which forgets it here.
        unfinished: there are ready messages for consumers with credit, put off by `ASSIGN_SLICES_MAX`: the
            leader proposes `commands.tick()`. Any other command helps as well.
        lettered: queues with dead letters, which the leader forwards.
    """

    expired: list[int]
    unfinished: bool
    lettered: list[int]


class QueueBase:
    """See the module. State is the same on every replica; only the effects depend on `local_node`.

    Attributes:
        has_duties: whether `duties` would name anything. Kept, because all groups are asked in each turn.
    """

    def __init__(self, local_node: int) -> None:
        self._local_node = local_node
        self.has_duties = False
        self._queues: dict[int, Queue] = {}
        self._expired: dict[int, None] = {}
        self._consumers: dict[Key, tuple[Consumer, Queue]] = {}
        self._sessions: dict[Key, dict[Key, None]] = {}
        self._local_sessions = 0
        self._live: dict[int, int] = {}
        self._dead: list[int] = []
        self._unfinished: dict[int, None] = {}
        self._lettered: dict[int, None] = {}
        self._fed: dict[
            int, dict[int, None]
        ] = {}  # queues that send dead letters here: queues that took some
        self._timers: list[tuple[int, int]] = []  # a heap of (when, uid); one counts that the queue knows of
        self._retimed: dict[int, None] = {}  # timed queues that changed in this `apply`
        self._now = 0  # time of the entry that is applied
        self._effects: list[QueueEffect] = []
        self._deliveries: dict[int, list[Slice]] = {}
        self._slices_left = 0
        self._changes = queue_rows.Changes()

    # --- saved state ---

    def checkpoint(self, *, full: bool) -> list[Row]:
        """Return the rows that changed since the last call; all rows if `full`. Layout: `queue_rows`."""
        if full:
            return list(self._changes.all_rows(self._queues, self._expired))
        return self._changes.changed_rows(self._queues, self._expired)

    def restore(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Become the state of `rows` (any order), which are taken to be what the store has.

        Raises:
            ValueError: a row of another version or that is none of ours.
        """
        stored = list(rows)
        queues, expired = queue_rows_read.read(stored)
        self._queues, self._expired = queues, dict.fromkeys(expired)
        self._consumers, self._sessions, self._dead = {}, {}, []
        self._local_sessions = 0
        self._lettered = {queue.uid: None for queue in queues.values() if queue.letters}
        self._retimed, self._fed = {}, {}
        for queue in queues.values():
            for uid in queue.sources:
                self._fed.setdefault(uid, {})[queue.uid] = None
            queue.due_ts = queue.next_due() if queue.is_timed else 0
            for consumer in queue.consumers.values():
                self._remember(consumer, queue)
        self._begin_timers()
        self._live = queue_rows.live_counts(queues.values())
        self._unfinished = {
            queue.uid: None for queue in queues.values() if queue.ready_count and queue.service
        }
        self._changes = queue_rows.Changes(is_started=bool(stored))
        self.has_duties = bool(self._expired or self._unfinished or self._lettered)

    def state_bytes(self) -> bytes:
        """Return the whole state in canonical form: equal on replicas that applied the same log."""
        return queue_rows.state_bytes(self._queues, self._expired)

    def live(self) -> Mapping[int, int]:
        """Return log index -> number of (queue, message) pairs that are in a queue or held. Not a copy."""
        return self._live

    def take_dead(self) -> list[int]:
        """Return the indexes that left `live` since the last call, in the order in which they did."""
        if not self._dead:
            return []
        # An index may come back within its own entry (enqueue, purge, enqueue), never later.
        dead = [index for index in dict.fromkeys(self._dead) if index not in self._live]
        self._dead = []
        return dead

    # --- duties of the leader ---

    def duties(self) -> Duties:
        """Return what the leader should see to."""
        return Duties(sorted(self._expired), bool(self._unfinished), sorted(self._lettered))

    @property
    def due_ts(self) -> int:
        """When the leader should propose `commands.tick()`; 0: time changes nothing here. It may be early."""
        return self._timers[0][0] if self._timers else 0

    def letters(self, uid: int) -> Iterable[tuple[int, Letter]]:
        """The dead letters of a queue that wait to be forwarded, with the number of each one's first message."""
        queue = self._queues.get(uid)
        return queue.letters if queue is not None else ()

    def source_uids(self) -> list[int]:
        """The queues whose dead letters queues of this group remember to have taken."""
        return list(self._fed)

    # --- one turn ---

    def _begin(self, meta: Meta) -> None:
        self._now = meta.ts
        self._effects = []
        self._deliveries = {}
        self._slices_left = ASSIGN_SLICES_MAX
        if self._unfinished:
            for uid in sorted(self._unfinished):
                self._follow_up(self._queues[uid])
        timers = self._timers
        while timers and timers[0][0] <= meta.ts:
            due, uid = heappop(timers)
            queue = self._queues.get(uid)
            if queue is not None and queue.due_ts == due:
                queue.due_ts = 0
                self._on_time(queue)
        # The batch has its own share, so that a long backlog does not hold up the other queues.
        self._slices_left = ASSIGN_SLICES_MAX

    def _end(self) -> list[QueueEffect]:
        if self._retimed:
            for uid in self._retimed:
                queue = self._queues.get(uid)
                if queue is not None:
                    self._set_timer(queue)
            self._retimed = {}
        self.has_duties = bool(self._expired or self._unfinished or self._lettered)
        effects, self._effects = self._effects, []
        return effects

    def _set_timer(self, queue: Queue) -> None:
        """See that the timers name a moment no later than that at which time changes something in a queue.

        A queue that moves is due later and later: it keeps the timer that it has, which then finds nothing to do.
        """
        due = queue.next_due()
        if due and not 0 < queue.due_ts <= due:
            queue.due_ts = due
            heappush(self._timers, (due, queue.uid))
            if len(self._timers) > 2 * len(self._queues) + STALE_TIMERS_MAX:
                self._begin_timers()

    def _begin_timers(self) -> None:
        """Forget the timers of queues that are gone or due earlier than they were."""
        self._timers = [(queue.due_ts, queue.uid) for queue in self._queues.values() if queue.due_ts]
        heapify(self._timers)

    def _on_time(self, queue: Queue) -> None:
        """The time has come for which a queue stood in the timers."""
        now = self._now
        self._changes.touch(queue.uid)
        self._retimed[queue.uid] = None
        unused_ms = queue.policy.expires_ms
        if unused_ms and not queue.attached_count and queue.used_ts + unused_ms <= now:
            self._end_queue(queue)
            return
        queue.release_delayed(now, RELEASED_RUNS_MAX)
        overdue = [
            consumer
            for consumer in queue.consumers.values()
            if consumer.timeout_ms and 0 < consumer.deadline() <= now
        ]
        for consumer in sorted(overdue, key=lambda found: found.key):
            self._time_out(consumer, queue)
        if not (overdue and self._ends_unused(queue)):
            self._follow_up(queue)

    def _time_out(self, consumer: Consumer, queue: Queue) -> None:
        """Take from a consumer what it held for too long, and all else; it is cancelled."""
        if consumer.attached:
            queue.detach(consumer)
            if consumer.key[0] == self._local_node:
                self._effects.append(Cancelled(consumer.key[1]))
        runs = consumer.release(1, consumer.next_id)
        queue.unacked_count -= sum([run[3] for run in runs])
        self._forget(consumer, queue)
        queue.give_back(runs, failed=False, now=self._now)
        queue.serve_next()

    def _reply(
        self, meta: Meta, ticket: int, value: int | Refusal | Refused | GetResult | None = None
    ) -> None:
        if ticket and meta.origin == self._local_node:
            self._effects.append(Reply(ticket, value))

    # --- what follows from a change ---

    def _follow_up(self, queue: Queue) -> None:
        """Serve the consumers of a queue and keep its rules; follows every change of what it has and who wants it."""
        now = self._now
        if queue.is_timed:
            # What expires now may still be given to a consumer that has waited for it (a time to live of 0).
            queue.expire(now, now)
            self._retimed[queue.uid] = None
        uid = queue.uid
        if queue.ready_count and queue.service:
            self._changes.touch(uid)
            if self._slices_left > 0:
                self._slices_left -= assign(queue, self._slices_left, now, self._assigned)
            if queue.ready_count and queue.service:
                self._unfinished[uid] = None
            else:
                self._unfinished.pop(uid, None)
        else:
            self._unfinished.pop(uid, None)
        if queue.ready_count:
            if queue.is_limited:
                queue.shorten(now)
            if queue.is_timed:
                queue.expire(now + 1, now)
        if queue.gone:
            self._unrefer(queue.gone)
            queue.gone = []
        if queue.letters:
            self._lettered[uid] = None

    def _assigned(self, consumer: Consumer, run: Run, first_id: int, attempts: int) -> None:
        origin, number = consumer.key
        if origin != self._local_node:
            return
        slices = self._deliveries.get(number)
        if slices is None:
            slices = self._deliveries[number] = []
            self._effects.append(Deliver(number, slices))
        slices.append(Slice(run[0], run[1], run[2], run[3], first_id, run[4] > 0, attempts))

    def _unrefer(self, runs: Iterable[Run]) -> None:
        """One queue no longer needs these messages."""
        live = self._live
        for run in runs:
            index = run[0]
            left = live[index] - run[3]
            if left:
                live[index] = left
            else:
                del live[index]
                self._dead.append(index)

    # --- consumers and queues ---

    def _remember(self, consumer: Consumer, queue: Queue) -> None:
        self._consumers[consumer.key] = (consumer, queue)
        session = self._sessions.get(consumer.session)
        if session is None:
            session = self._sessions[consumer.session] = {}
            self._local_sessions += consumer.session[0] == self._local_node
        session[consumer.key] = None

    def _forget(self, consumer: Consumer, queue: Queue) -> None:
        del queue.consumers[consumer.key]
        del self._consumers[consumer.key]
        queue.dirty_consumers[consumer.key] = None
        session = self._sessions[consumer.session]
        del session[consumer.key]
        if not session:
            del self._sessions[consumer.session]
            self._local_sessions -= consumer.session[0] == self._local_node

    def _ends_unused(self, queue: Queue) -> bool:
        """End an auto-delete queue that has just lost its last consumer; returns whether it is so."""
        queue.used_ts = self._now
        if queue.attached_count or not queue.config.auto_delete:
            return False
        self._end_queue(queue)
        return True

    def _end_queue(self, queue: Queue) -> None:
        """A queue ends by itself: it is empty for all who ask until the topology has forgotten it."""
        self._drop(queue)
        self._expired[queue.uid] = None
        self._changes.expire(queue.uid)

    def _drop(self, queue: Queue) -> None:
        self._unrefer(queue.drop_all())
        for key in sorted(queue.consumers):
            consumer = queue.consumers[key]
            self._unrefer(consumer.release(1, consumer.next_id))
            if consumer.attached and key[0] == self._local_node:
                self._effects.append(Cancelled(key[1]))
            self._forget(consumer, queue)
        for uid in queue.sources:
            del self._fed[uid][queue.uid]
            if not self._fed[uid]:
                del self._fed[uid]
        del self._queues[queue.uid]
        for noted in (self._unfinished, self._lettered, self._retimed):
            noted.pop(queue.uid, None)
        self._changes.drop(queue)
