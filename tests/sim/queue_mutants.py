"""Planted bugs in what queues can do beyond keeping messages; see `tests.sim.mutants`."""

from dataclasses import replace
from typing import Any

import pytest

from node.broker import commands, lane, queue_intake
from node.broker.consumer import Consumer
from node.broker.dedup import Window
from node.broker.queue_base import QueueBase
from node.broker.queue_state import Queue
from node.broker.sources import Source
from node.session.letters import Outlets
from node.session.settle import settle
from node.session.sorter import RefusableReceipt
from node.session.transaction import Transaction

Patch = pytest.MonkeyPatch


def _with_policy(patch: Patch, name: str, **changes: Any) -> None:
    """Run a method of queues under another policy; a change is made from the old value."""
    original = getattr(Queue, name)

    def mutated(queue: Any, *args: Any) -> Any:
        policy = queue.policy
        queue.policy = replace(
            policy, **{key: change(getattr(policy, key)) for key, change in changes.items()}
        )
        try:
            return original(queue, *args)
        finally:
            queue.policy = policy

    patch.setattr(Queue, name, mutated)


def letters_of_another_leader_are_dropped(patch: Patch) -> None:
    """A new leader takes the letters that it finds for forwarded."""
    original = Outlets.forward
    terms: dict[Any, int] = {}

    def forward(outlets: Any, group: int, uids: list[int]) -> None:
        node = outlets._shared.node
        term = node.host.groups[group].raft.term if group in node.host.groups else 0
        if terms.get((outlets, group)) != term:
            terms[outlets, group] = term
            for uid in uids:
                first, letter = node.machine(group).letters(uid)[-1]
                node.submit(group, commands.letters_done(uid, first + letter.run[3] - 1))
        original(outlets, group, uids)

    patch.setattr(Outlets, "forward", forward)


def letters_count_as_often_as_they_come(patch: Patch) -> None:
    """Nobody remembers which letters have come: what a new leader sends again is there twice."""
    patch.setattr(Source, "accept", lambda source, low, first, count: [(first, first + count - 1)])


def a_queue_keeps_one_too_many(patch: Patch) -> None:
    """The oldest is dropped when there are two more than the limit."""
    _with_policy(patch, "shorten", length_max=lambda limit: limit + (limit >= 0))


def a_full_queue_takes_one_more(patch: Patch) -> None:
    """A publish is refused when there is one more than the limit."""
    _with_policy(patch, "room", length_max=lambda limit: limit + (limit >= 0))


def the_newest_is_dropped(patch: Patch) -> None:
    """A queue that is too long drops what came last."""
    original = Queue.shorten

    def shorten(queue: Any, now: int) -> None:
        for one in queue.in_order:
            one.ready.reverse()
        original(queue, now)
        for one in queue.in_order:
            one.ready.reverse()

    patch.setattr(Queue, "shorten", shorten)


def refused_messages_are_confirmed(patch: Patch) -> None:
    """That a full queue has refused something is not looked at."""
    original = RefusableReceipt._complete

    def complete(receipt: Any) -> None:
        receipt._refused = []
        original(receipt)

    patch.setattr(RefusableReceipt, "_complete", complete)


def expired_messages_are_delivered(patch: Patch) -> None:
    """What has expired is looked for half a second late."""
    original = Queue.expire
    patch.setattr(Queue, "expire", lambda queue, before, now: original(queue, before - 500, now))


def messages_expire_early(patch: Patch) -> None:
    """The time to live is counted in whole seconds."""
    original = Queue.expire
    patch.setattr(Queue, "expire", lambda queue, before, now: original(queue, before + 1_500, now))


def two_consumers_are_active(patch: Patch) -> None:
    """Whoever has credit is served, the only active consumer or not."""
    _with_policy(patch, "serve", single_active=lambda _: False)


def a_new_consumer_takes_over(patch: Patch) -> None:
    """A new consumer becomes the active one, though there is one."""
    original = Queue.attach

    def attach(queue: Any, consumer: Any) -> None:
        if queue.policy.single_active and queue.active is not None:
            queue._leave_line(queue.active)
            queue.active = consumer
        original(queue, consumer)

    patch.setattr(Queue, "attach", attach)


def delays_are_over_twice(patch: Patch) -> None:
    """What was released is not deleted from the saved state: after a restart it waits again."""
    original = Queue.release_delayed

    def release(queue: Any, now: int, runs_max: int) -> None:
        before = dict(queue.dirty_delayed)
        original(queue, now, runs_max)
        queue.dirty_delayed = before

    patch.setattr(Queue, "release_delayed", release)


def delays_are_over_early(patch: Patch) -> None:
    """With what is due goes what is due soon."""
    original = Queue.release_delayed
    patch.setattr(Queue, "release_delayed", lambda queue, now, most: original(queue, now + 200, most))


def dedup_ids_are_forgotten_at_restore(patch: Patch) -> None:
    """A replica that restarts takes what it has seen before."""
    patch.setattr(Window, "read_chunk", lambda window, number, value: None)


def dedup_ids_are_not_looked_at(patch: Patch) -> None:
    """What is sent again is there twice."""
    patch.setattr(queue_intake, "_unknown", lambda queue, run, names: [run])


def what_returns_has_no_priority(patch: Patch) -> None:
    """Messages that come back wait behind all others."""
    original = Queue._make_ready_again

    def make_ready(queue: Any, runs: Any) -> None:
        original(queue, [(*run[:6], (0, *run[6][1:])) for run in runs])

    patch.setattr(Queue, "_make_ready_again", make_ready)


def lanes_stand_upside_down(patch: Patch) -> None:
    """The lowest priority goes first."""
    original = Queue.top

    def top(queue: Any) -> Any:
        for one in reversed(queue.in_order):
            if one.next_run() is not None:
                return one
        return original(queue)

    patch.setattr(Queue, "top", top)


def failures_are_not_counted(patch: Patch) -> None:
    """A delivery that failed is as one that came back."""
    original = lane.attempted
    patch.setattr(lane, "attempted", lambda run, failed: original(run, failed=False))


def one_more_failure_is_allowed(patch: Patch) -> None:
    """A message is given up when it has failed once more than it may."""
    original = Queue.give_back

    def give_back(queue: Any, runs: Any, *, failed: bool, now: int) -> None:
        policy = queue.policy
        queue.policy = replace(policy, delivery_limit=policy.delivery_limit + (policy.delivery_limit >= 0))
        original(queue, runs, failed=failed, now=now)
        queue.policy = policy

    patch.setattr(Queue, "give_back", give_back)


def timers_are_forgotten_at_restore(patch: Patch) -> None:
    """A replica that restarts does not know what is due."""
    original = QueueBase.restore

    def restore(machine: Any, rows: Any) -> None:
        original(machine, rows)
        machine._timers.clear()

    patch.setattr(QueueBase, "restore", restore)


def consumers_time_out_early(patch: Patch) -> None:
    """Slow consumers lose their messages before the time has come."""
    original = Consumer.deadline
    patch.setattr(Consumer, "deadline", lambda consumer: max(0, original(consumer) - 80))


def what_times_out_is_lost(patch: Patch) -> None:
    """What is taken from a slow consumer counts as settled."""
    original = QueueBase._time_out

    def time_out(machine: Any, consumer: Any, queue: Any) -> None:
        with pytest.MonkeyPatch.context() as once:
            once.setattr(Queue, "give_back", lambda queue, runs, **_: queue.gone.extend(runs))
            original(machine, consumer, queue)

    patch.setattr(QueueBase, "_time_out", time_out)


def commits_come_in_pieces(patch: Patch) -> None:
    """Each command of a commit is submitted for itself: a crash in between leaves a part."""
    original = Transaction.commit

    def commit(transaction: Any) -> Any:
        node = transaction._channel.session.node
        submit = node.submit

        def submit_pieces(group: int, parts: Any) -> None:
            piece: list[bytes] = []
            left = 0
            for part in parts:
                if left == 0:
                    if piece:
                        submit(group, tuple(piece))
                    piece, left = [], commands.HEAD.unpack_from(part)[1] + commands.HEAD.size
                piece.append(part)
                left -= len(part)
            submit(group, tuple(piece))

        node.submit = submit_pieces
        try:
            return original(transaction)
        finally:
            del node.submit

    patch.setattr(Transaction, "commit", commit)


def settlements_do_not_wait_for_the_commit(patch: Patch) -> None:
    """What a transaction settles is settled at once."""

    def keep_settled(transaction: Any, event: Any) -> None:
        channel, transaction._channel.transaction = transaction._channel, None
        settle(channel, event)
        channel.transaction = transaction

    patch.setattr(Transaction, "keep_settled", keep_settled)


MUTANTS: list[tuple[Any, int]] = [
    (letters_of_another_leader_are_dropped, 12),
    (letters_count_as_often_as_they_come, 32),
    (a_queue_keeps_one_too_many, 4),
    (a_full_queue_takes_one_more, 18),
    (the_newest_is_dropped, 16),
    (refused_messages_are_confirmed, 14),
    (expired_messages_are_delivered, 12),
    (messages_expire_early, 2),
    (two_consumers_are_active, 2),
    (a_new_consumer_takes_over, 30),
    (delays_are_over_twice, 42),
    (delays_are_over_early, 8),
    (dedup_ids_are_forgotten_at_restore, 20),
    (dedup_ids_are_not_looked_at, 538),
    (what_returns_has_no_priority, 34),
    (lanes_stand_upside_down, 12),
    (failures_are_not_counted, 58),
    (one_more_failure_is_allowed, 106),
    (timers_are_forgotten_at_restore, 2),
    (consumers_time_out_early, 12),
    (what_times_out_is_lost, 12),
    (commits_come_in_pieces, 10),
    (settlements_do_not_wait_for_the_commit, 40),
]
"""As those of `tests.sim.mutants`. Each needs a seed with the feature: see `tests.sim.features`."""
