"""The state of one queue: ready runs, delayed ones, dead letters on their way, and what each consumer holds.

The unit is a run (`runs`). Nothing here produces effects; `queue_assignment` moves runs to consumers, `queue_rows`
saves them. Every message is in exactly one place: a lane, `delayed`, a letter, or a chunk of one `Consumer`. What
leaves the queue for good passes through `gone`, from where the machine takes it.
"""

from collections import deque
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

from node.broker.commands import QueueConfig
from node.broker.consumer import Consumer, Key
from node.broker.dedup import Window
from node.broker.delayed import Delayed
from node.broker.lane import Lane, returned_runs
from node.broker.queue_policy import Policy, policy_of
from node.broker.runs import PLAIN, Run, first_part, last_part
from node.broker.sources import Source

TIME_MAX = (1 << 63) - 1
"""A time that never comes, which still fits a row."""

DelayedKey = tuple[int, int, int, int]
"""When it is due, log index, command offset, first record."""


class Reason(IntEnum):
    """Why a message became a dead letter; the names are those of x-death."""

    REJECTED = 1
    EXPIRED = 2
    MAXLEN = 3
    DELIVERY_LIMIT = 4


class Letter(NamedTuple):
    """Dead letters that wait to be forwarded: the messages of `run` have the numbers from its key on."""

    reason: Reason
    ts: int
    run: Run


@dataclass(slots=True, eq=False)
class Queue:
    """One queue."""

    uid: int
    config: QueueConfig
    policy: Policy = field(init=False)
    takes_as_is: bool = field(init=False)  # a message that asks for nothing is just put at the end
    is_limited: bool = field(init=False)  # in messages or bytes
    counts_bytes: bool = field(init=False)  # it has a limit in bytes
    base: Lane = field(init=False)  # that of priority 0, the only one of most queues
    lanes: dict[int, Lane] = field(default_factory=dict)
    in_order: list[Lane] = field(default_factory=list)  # all lanes, highest priority first
    ready_count: int = 0  # messages in all lanes
    ready_bytes: int = 0  # of their bodies, where bytes are limited
    unacked_count: int = 0
    consumers: dict[Key, Consumer] = field(default_factory=dict)  # also detached ones and holders of a get
    attached_count: int = 0
    attached_ever: int = 0
    active: Consumer | None = None  # the only one to be served, with a single active consumer
    service: dict[int, deque[Consumer]] = field(default_factory=dict)
    """Attached consumers with credit, by priority, in the order of their turns; no empty ones."""
    delayed: Delayed = field(default_factory=Delayed)
    letters: deque[tuple[int, Letter]] = field(default_factory=deque)  # with the number of the first message
    next_letter: int = 1
    sources: dict[int, Source] = field(
        default_factory=dict
    )  # by the uid of the queue that sends dead letters here
    window: Window = field(default_factory=Window)
    used_ts: int = 0  # when it was last used, where it expires
    due_ts: int = 0  # for when it stands in the machine's timers; 0: it does not
    is_timed: bool = False  # something in it may become due
    has_timeouts: bool = False  # there was a consumer that may hold a message for some time only
    gone: list[Run] = field(default_factory=list)
    dirty_consumers: dict[Key, None] = field(default_factory=dict)
    dirty_letters: dict[int, Letter | None] = field(default_factory=dict)
    dirty_sources: dict[int, None] = field(default_factory=dict)
    dirty_delayed: dict[DelayedKey, Run | None] = field(default_factory=dict)
    saved_consumers: dict[Key, dict[int, None]] = field(default_factory=dict)
    """The consumers that the store has, with the chunk numbers of each."""

    def __post_init__(self) -> None:
        self.policy = policy_of(self.config.arguments)
        self.is_limited = self.policy.is_limited
        self.takes_as_is = self.policy.ttl_ms < 0 and not self.is_limited
        self.is_timed = self.policy.ttl_ms >= 0 or self.policy.expires_ms > 0
        self.counts_bytes = self.policy.bytes_max >= 0
        self.base = self.lane(0)

    # --- ready messages ---

    def lane(self, priority: int) -> Lane:
        """Return the lane of a priority."""
        lane = self.lanes.get(priority)
        if lane is None:
            lane = self.lanes[priority] = Lane(priority)
            self.in_order = [self.lanes[number] for number in sorted(self.lanes, reverse=True)]
        return lane

    def put(self, run: Run) -> None:
        """Add a new run at the end."""
        traits = run[6]
        self.ready_count += run[3]
        if traits is PLAIN:
            self.base.tail.append(run)
        else:
            self.lane(traits[0]).tail.append(run)
            self.ready_bytes += run[3] * traits[2]

    def top(self) -> Lane:
        """Return the lane that is next; the queue must not be empty."""
        lanes = self.in_order
        if len(lanes) == 1:
            return self.base
        for lane in lanes:
            if not lane.is_empty:
                return lane
        raise AssertionError(self.uid)

    def first_count(self) -> int:
        """Return the size of the run that is next; the queue must not be empty."""
        run = self.top().next_run()
        assert run is not None
        return run[3]

    def take(self, limit: int) -> Run:
        """Remove and return the next run, at most `limit` (>= 1) messages of it; there must be one."""
        return self._take_from(self.top(), limit)

    def _take_from(self, lane: Lane, limit: int) -> Run:
        run = lane.take(limit)
        self.ready_count -= run[3]
        size = run[6][2]
        if size:
            self.ready_bytes -= run[3] * size
        return run

    def drop_ready(self) -> list[Run]:
        """Forget all ready messages; returns their runs."""
        runs: list[Run] = []
        for lane in self.in_order:
            runs += lane.clear()
        self.ready_count = self.ready_bytes = 0
        return runs

    def drop_all(self) -> list[Run]:
        """Forget all but what consumers hold; returns the runs."""
        runs = self.drop_ready()
        runs += [run for _, run in self.delayed]
        runs += [letter.run for _, letter in self.letters]
        return runs

    # --- messages that come back ---

    def give_back(self, runs: list[Run], *, failed: bool, now: int) -> None:
        """Make released runs ready again in their old order, with one more return (and failure)."""
        if not runs:
            return
        policy = self.policy
        runs = returned_runs(runs, failed=failed)
        if policy.delivery_limit >= 0:
            spent = [run for run in runs if run[5] > policy.delivery_limit]
            if spent:
                self.bury(spent, Reason.DELIVERY_LIMIT, now)
                runs = [run for run in runs if run[5] <= policy.delivery_limit]
        if policy.retry_ms and (policy.retries_failed if failed else policy.retries_returned):
            for run in runs:
                times = run[5] if failed else run[4]
                self.delay(run, now + min(policy.retry_ms * times, policy.retry_max_ms))
            return
        if runs:
            self._make_ready_again(runs)

    def undo(self, runs: list[Run]) -> None:
        """Make released runs, which were never sent, ready again in their old order, at once and whatever the limit."""
        if runs:
            self._make_ready_again(returned_runs(runs, failed=False))

    def _make_ready_again(self, runs: list[Run]) -> None:
        by_priority: dict[int, list[Run]] = {}
        for run in runs:
            self.ready_count += run[3]
            self.ready_bytes += run[3] * run[6][2]
            by_priority.setdefault(run[6][0], []).append(run)
        for priority, part in by_priority.items():
            self.lane(priority).give_back(part)

    # --- messages that wait for their time ---

    def delay(self, run: Run, due: int) -> None:
        """Keep a run back until `due`."""
        due = min(due, TIME_MAX)
        self.delayed.add(due, run)
        self.dirty_delayed[due, run[0], run[1], run[2]] = run
        self.is_timed = True

    def release_delayed(self, now: int, runs_max: int) -> None:
        """Make ready what is due, at most `runs_max` runs: what was delivered before goes where it was."""
        while runs_max and (item := self.delayed.take(now)) is not None:
            due, run = item
            runs_max -= 1
            self.dirty_delayed[due, run[0], run[1], run[2]] = None
            if run[4]:
                self._make_ready_again([run])
            else:
                self.put(run)

    def expire(self, before: int, now: int) -> None:
        """Discard what is next in a lane and expires earlier than `before`."""
        for lane in self.in_order:
            expired: list[Run] = []
            while (run := lane.next_run()) is not None and 0 < run[6][1] < before:
                expired.append(self._take_from(lane, run[3]))
            if expired:
                self.bury(expired, Reason.EXPIRED, now)

    # --- messages that are given up ---

    def shorten(self, now: int) -> None:
        """Drop the oldest of the lowest priority while there is more than the limits allow."""
        policy = self.policy
        if policy.refuses:
            return
        dropped: list[Run] = []
        lanes = reversed(self.in_order)
        lane = next(lanes)
        while True:
            excess = self.ready_count - policy.length_max if policy.length_max >= 0 else 0
            excess_bytes = self.ready_bytes - policy.bytes_max if policy.bytes_max >= 0 else 0
            if excess <= 0 and excess_bytes <= 0:
                break
            while (run := lane.next_run()) is None:
                lane = next(lanes)
            if excess_bytes > 0:
                size = run[6][2]
                excess = max(excess, -(-excess_bytes // size) if size else run[3])
            dropped.append(self._take_from(lane, excess))
        if dropped:
            self.bury(dropped, Reason.MAXLEN, now)

    def room(self, size: int) -> int:
        """Return how many messages of `size` bytes a queue that refuses still takes."""
        policy = self.policy
        room = policy.length_max - self.ready_count if policy.length_max >= 0 else 1 << 62
        if policy.bytes_max >= 0 and size:
            room = min(room, (policy.bytes_max - self.ready_bytes) // size)
        return max(room, 0)

    def bury(self, runs: list[Run], reason: Reason, now: int) -> None:
        """Discard runs: they become dead letters, or are gone."""
        if not self.policy.dead_letters:
            self.gone += runs
            return
        for run in runs:
            self._add_letter(self.next_letter, Letter(reason, now, run))
            self.next_letter += run[3]

    def _add_letter(self, first: int, letter: Letter) -> None:
        self.letters.append((first, letter))
        self.dirty_letters[first] = letter

    def letters_done(self, last: int) -> None:
        """The dead letters up to number `last` have found their places, or there is none for them."""
        letters = self.letters
        while letters and letters[0][0] <= last:
            first, letter = letters.popleft()
            self.dirty_letters[first] = None
            done = last - first + 1
            if done < letter.run[3]:
                self.gone.append(first_part(letter.run, done))
                rest = letter._replace(run=last_part(letter.run, done))
                letters.appendleft((last + 1, rest))
                self.dirty_letters[last + 1] = rest
            else:
                self.gone.append(letter.run)

    # --- consumers ---

    def serve(self, consumer: Consumer) -> None:
        """Let an attached consumer with credit stand in line, unless it does."""
        if (
            consumer.attached
            and not consumer.is_in_service
            and consumer.unacked < consumer.window
            and (self.active is consumer or not self.policy.single_active)
        ):
            consumer.is_in_service = True
            self.service.setdefault(consumer.priority, deque()).append(consumer)

    def attach(self, consumer: Consumer) -> None:
        """Take a new consumer in."""
        self.attached_ever += 1
        consumer.number = self.attached_ever
        self.consumers[consumer.key] = consumer
        self.attached_count += 1
        self.dirty_consumers[consumer.key] = None
        self.serve_next()
        self.serve(consumer)

    def detach(self, consumer: Consumer) -> None:
        """Give an attached consumer no more messages."""
        consumer.attached = False
        self.attached_count -= 1
        self.dirty_consumers[consumer.key] = None
        self._leave_line(consumer)
        if self.active is consumer:
            self.active = None

    def resize(self, consumer: Consumer, window: int) -> None:
        """Let an attached consumer hold `window` messages from now on."""
        consumer.window = window
        self.dirty_consumers[consumer.key] = None
        if consumer.unacked >= window:
            self._leave_line(consumer)
        else:
            self.serve(consumer)

    def _leave_line(self, consumer: Consumer) -> None:
        if consumer.is_in_service:
            consumer.is_in_service = False
            line = self.service[consumer.priority]
            line.remove(consumer)
            if not line:
                del self.service[consumer.priority]

    def serve_next(self) -> None:
        """Where one consumer is served at a time and none is: the highest priority, then who came first."""
        if not self.policy.single_active or self.active is not None:
            return
        attached = [consumer for consumer in self.consumers.values() if consumer.attached]
        if attached:
            self.active = min(attached, key=lambda consumer: (-consumer.priority, consumer.number))
            self.serve(self.active)

    def has_exclusive(self) -> bool:
        """Whether an exclusive consumer is attached; it is then the only one."""
        # It is kept alone, so a queue with several attached consumers has none that is exclusive.
        return self.attached_count == 1 and any(
            consumer.exclusive for consumer in self.consumers.values() if consumer.attached
        )

    # --- time ---

    def next_due(self) -> int:
        """Return when time will change something here; 0: never. In the past where work was put off."""
        due = self.delayed.next_due()
        for lane in self.in_order:
            run = lane.next_run()
            if run is not None and run[6][1]:
                due = min(due or run[6][1], run[6][1])
        if self.policy.expires_ms and not self.attached_count:
            unused = self.used_ts + self.policy.expires_ms
            due = min(due or unused, unused)
        for consumer in self.consumers.values() if self.has_timeouts else ():
            deadline = consumer.deadline() if consumer.timeout_ms else 0
            if deadline:
                due = min(due or deadline, deadline)
        return due
