"""Planted bugs: mistakes that real systems made, put into the broker one by one; some seed must notice each.

`python -m tests.sim.hunt` plants them all, those of the bare core (tests/raft/mutants.py) among them, and
prints which seed found what. A check that lets one live has a hole.
"""

import time
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from cluster.group import MACHINE_ROWS, Group
from cluster.host import Host
from cluster.memory import MemoryLink
from cluster.origin import Intake, Origins, OriginStream
from cluster.raft import core, follower, leader
from cluster.raft.log import RaftLog
from cluster.raft.ready import Role
from cluster.raft.rpc import AppendEntries, InstallSnapshot
from cluster.snapshot import SnapshotSender
from node.broker import commands_read, consumer, queue_base
from node.broker.errors import UnknownCommand
from node.broker.queue_state import Queue
from node.session import sorter
from node.session.consume import forget
from tests.sim.world import SimNode, World

Patch = pytest.MonkeyPatch
Mutant = Callable[[Patch], None]


def _after(patch: Patch, owner: Any, name: str, change: Callable[..., None]) -> None:
    """Run `change` with the same arguments after the original function."""
    original = getattr(owner, name)

    def mutated(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        change(*args)
        return result

    patch.setattr(owner, name, mutated)


# -- the host: durability and who may speak when ---------------------------------------------------------


def everything_is_sent_before_it_is_durable(patch: Patch) -> None:
    """Answers to appends and votes leave with the turn that writes what they vouch for."""
    original = Host._dispatch

    def dispatch(host: Any, group: Any, outcome: Any) -> None:
        outcome.messages = outcome.messages + outcome.messages_after_persist
        outcome.messages_after_persist = []
        original(host, group, outcome)

    patch.setattr(Host, "_dispatch", dispatch)


def failed_sync_is_tried_again(patch: Patch) -> None:
    """The kernel dropped the pages of the failed sync and reports success for the next one."""

    def sync_failed(world: World, sim: SimNode, count: int) -> None:
        lost = sim.disk.under_way[count - 1][0]
        del sim.disk.under_way[:count]
        world.synced(sim, lost)

    patch.setattr(World, "sync_failed", sync_failed)


def turns_are_durable_when_they_are_handed_over(patch: Patch) -> None:
    """A store without sync: the process is told that a write is durable before it is."""
    original = World._carry_out

    def carry_out(world: Any, sim: Any, turn: Any) -> None:
        original(world, sim, turn)
        if sim.process is not None and turn.writes:
            sim.process.persisted(turn.number)

    patch.setattr(World, "_carry_out", carry_out)


def boot_epoch_is_reused(patch: Patch) -> None:
    """A restarted process takes itself for the one before it."""
    patch.setattr(World, "next_boot", lambda world, sim: sim.boot or world.now_ms)


def messages_for_an_earlier_process_are_read(patch: Patch) -> None:
    """Nobody looks at the boot epochs of an envelope, and votes are forgotten in a restart."""
    original = Host.receive

    def receive(host: Any, envelope: Any) -> None:
        envelope.to_boot = 0
        original(host, envelope)

    patch.setattr(Host, "receive", receive)
    vote_is_forgotten_at_restart(patch)


def vote_is_forgotten_at_restart(patch: Patch) -> None:
    """The stored vote is not looked at."""
    _after(patch, core.Raft, "__init__", lambda raft, *_: setattr(raft, "voted_for", 0))


def term_is_not_stored(patch: Patch) -> None:
    """Hard states are written only beside entries."""
    original = core.Raft._take_hard_state

    def take(raft: Any, *, with_commit: bool) -> Any:
        return original(raft, with_commit=True) if with_commit else None

    patch.setattr(core.Raft, "_take_hard_state", take)


# -- the log ----------------------------------------------------------------------------------------------


def append_after_nothing_is_accepted(patch: Patch) -> None:
    """The term of a compacted entry reads as 0, a leader sends it, and 0 matches everything (etcd 76f1249)."""
    original = RaftLog.matches

    def send(raft: Any, progress: Any) -> None:
        log = raft.log
        first = log.first_index
        entries = tuple(log.entries(first, log.last_index + 1, 1)) if first <= log.last_index else ()
        raft.messages.append(
            AppendEntries(raft.id, progress.id, raft.term, first - 1, 0, log.commit, entries)
        )

    patch.setattr(RaftLog, "matches", lambda log, index, term: term == 0 or original(log, index, term))
    patch.setattr(leader, "_want_snapshot", send)


def new_leaders_append_nothing(patch: Patch) -> None:
    """Without an entry of its own term a leader never learns what is committed."""
    append = leader._append

    def skip(raft: Any, kind: int, payloads: list[bytes]) -> int:
        return raft.log.last_index if kind == 0 else append(raft, kind, payloads)

    patch.setattr(leader, "_append", skip)


def older_snapshot_is_installed(patch: Patch) -> None:
    """A saved state replaces the log whatever the log has."""

    def step(raft: Any, message: Any) -> None:
        raft.hear(message.source)
        raft.log.restore(message.meta)
        raft.applying.clear()
        raft.applying_bytes = 0
        raft.configuration = message.meta.configuration
        follower._accept(raft, message.meta.index)

    for role in (Role.FOLLOWER,):
        patch.setitem(core.STEPS[role], InstallSnapshot, step)
    patch.setitem(follower.STEPS, InstallSnapshot, step)


# -- saved states -------------------------------------------------------------------------------------------


def checkpoint_lacks_the_streams(patch: Patch) -> None:
    """Saved states hold the machine, but not how far each node's commands have come."""
    patch.setattr(Origins, "rows", lambda origins, *, full: [])


def checkpoint_lacks_the_members(patch: Patch) -> None:
    """Saved states name no configuration."""
    save = Group._save

    def without(group: Any, outcome: Any) -> None:
        save(group, outcome)
        nobody = type(outcome.write.checkpoint.configuration)(())
        group._checkpoint = outcome.write.checkpoint = outcome.write.checkpoint._replace(configuration=nobody)

    patch.setattr(Group, "_save", without)


def checkpoint_rows_are_lost(patch: Patch) -> None:
    """An incremental checkpoint forgets the rows of queues that went empty."""
    save = Group._save

    def without(group: Any, outcome: Any) -> None:
        save(group, outcome)
        rows = outcome.write.checkpoint_rows
        outcome.write.checkpoint_rows = [
            row for row in rows if row[1] is not None or not row[0].startswith(MACHINE_ROWS)
        ]

    patch.setattr(Group, "_save", without)


def live_bodies_are_trimmed(patch: Patch) -> None:
    """What Raft has forgotten is deleted, whether a queue still has it or not."""

    def find(group: Any, first: int, compact_to: int) -> None:
        group.machine.take_dead()
        group._trims = sorted({*range(first, compact_to + 1), *group._trims})

    patch.setattr(Group, "_find_trims", find)


def bodies_are_trimmed_before_the_checkpoint(patch: Patch) -> None:
    """A body dies in memory and goes at once, though a restart begins from a state in which it lives."""

    def housekeeping(group: Any, outcome: Any) -> None:
        original(group, outcome)
        first = group._store.view(group.id).first_index()
        dead = [index for index in group.machine.take_dead() if index < first]
        if dead:
            group._write(outcome).trims = sorted({*dead, *group._write(outcome).trims})

    original = Group._housekeeping
    patch.setattr(Group, "_housekeeping", housekeeping)


def snapshot_brings_no_bodies(patch: Patch) -> None:
    """The list of live entries was empty when it was read, and that was believed (ra 5a63636e)."""
    begin = SnapshotSender.begin

    def without(sender: Any, store: Any, applied: int, *rest: Any) -> None:
        begin(sender, store, 1 << 60, *rest)

    patch.setattr(SnapshotSender, "begin", without)


# -- origin streams -----------------------------------------------------------------------------------------


def any_later_batch_is_accepted(patch: Patch) -> None:
    """De-duplication by "greater than the last" instead of "the next"."""

    def accepts(origins: Any, node: int, epoch: int, seq: int) -> bool:
        known, expected = origins.get(node)
        return seq >= expected > 0 if epoch == known else epoch > known

    def takes(intake: Any, node: int, epoch: int, seq: int) -> bool:
        known, expected = intake.get(node)
        if not (seq >= expected > 0 if epoch == known else epoch > known):
            return False
        intake._expected[node] = (epoch, seq + 1)
        return True

    patch.setattr(Origins, "accepts", accepts)
    patch.setattr(Intake, "accepts", takes)


def duplicates_are_accepted(patch: Patch) -> None:
    """A batch is taken whenever its epoch is right: what is sent again after a change of leader counts twice."""

    def takes(known: int, epoch: int, seq: int) -> bool:
        return epoch == known or (epoch > known and seq == 1)

    patch.setattr(
        Origins, "accepts", lambda origins, node, epoch, seq: takes(origins.get(node)[0], epoch, seq)
    )
    patch.setattr(Intake, "accepts", lambda intake, node, epoch, seq: True)


def streams_are_forgotten_at_failover(patch: Patch) -> None:
    """A new leader knows nothing of the streams, takes what comes first, and so does apply."""
    original = Intake.begin

    def begin(intake: Any, origins: Any, nodes: Any) -> None:
        original(intake, origins, nodes)
        intake._expected = {node: (epoch, 1) for node, (epoch, _) in intake._expected.items()}

    patch.setattr(Intake, "begin", begin)
    accepts = Origins.accepts
    patch.setattr(
        Origins, "accepts", lambda origins, node, epoch, seq: seq == 1 or accepts(origins, node, epoch, seq)
    )


def only_the_oldest_batch_is_sent_again(patch: Patch) -> None:
    """After a change of leader one batch is resent, and what came after it is taken for delivered."""

    def from_seq(stream: Any, seq: int) -> Any:
        found = [batch for batch in stream.pending if batch.seq >= seq][:1]
        if found:
            stream.pending = deque(found)
        return found

    patch.setattr(OriginStream, "from_seq", from_seq)


def effects_run_on_replay(patch: Patch) -> None:
    """What an earlier process of this node was told is told again to this one's clients."""
    patch.setattr(Group, "_emit", lambda group, effects, outcome: outcome.effects.extend(effects))


def gone_streams_stay(patch: Patch) -> None:
    """Nobody ends the sessions of a process that is gone: what they hold stays with them."""
    patch.setattr(Host, "_end_origins", lambda host: None)
    original = Group._apply_batch

    def apply_batch(group: Any, entry: Any, outcome: Any) -> None:
        gone = group.machine.origin_gone
        group.machine.origin_gone = lambda meta: []
        original(group, entry, outcome)
        group.machine.origin_gone = gone

    patch.setattr(Group, "_apply_batch", apply_batch)


def memory_batches_are_not_sent_again(patch: Patch) -> None:
    """What was under way to another node's memory when the link lost it is never missed."""
    patch.setattr(MemoryLink, "resend", lambda link, now_ms: [])


# -- the queue machine --------------------------------------------------------------------------------------


def consumers_stand_in_no_order(patch: Patch) -> None:
    """A set instead of a line: which consumer is served depends on where objects lie in memory."""
    original = queue_base.assign

    def assign(which: Queue, slices_max: int, now: int, assigned: Any) -> int:
        for priority, line in which.service.items():
            which.service[priority] = deque(sorted(line, key=lambda consumer: hash(id(consumer)) % 997))
        return original(which, slices_max, now, assigned)

    patch.setattr(queue_base, "assign", assign)


def apply_looks_at_the_clock(patch: Patch) -> None:
    """Whether a returned message counts as failed depends on the time at which a replica applies."""
    original = Queue.give_back

    def give_back(which: Any, runs: Any, *, failed: bool, now: int) -> None:
        original(which, runs, failed=failed and time.perf_counter_ns() % 2 == 0, now=now)

    patch.setattr(Queue, "give_back", give_back)


def unknown_commands_are_passed_over(patch: Patch) -> None:
    """A replica that does not know a newer command goes on without it."""
    original = commands_read.frames

    def frames(data: bytes, offset: int) -> Any:
        try:
            return original(data, offset)
        except UnknownCommand:
            return []

    patch.setattr(commands_read, "frames", frames)


def returned_messages_go_to_the_end(patch: Patch) -> None:
    """A requeued message is put behind the others, as if it were new."""

    def give_back(which: Any, runs: Any, *, failed: bool, now: int) -> None:
        for run in runs:
            which.put(run)

    patch.setattr(Queue, "give_back", give_back)


def windows_are_passed_by_one(patch: Patch) -> None:
    """A consumer is assigned one message more than its window."""
    original = queue_base.assign

    def assign(which: Queue, *rest: Any) -> int:
        takers = [taker for line in which.service.values() for taker in line]
        for taker in takers:
            taker.window += 1
        given = original(which, *rest)
        for taker in takers:
            taker.window -= 1
        return given

    patch.setattr(queue_base, "assign", assign)


def a_settled_range_is_one_too_long(patch: Patch) -> None:
    """Acks up to n settle n + 1 as well."""
    original = consumer.Consumer.release

    def release(taker: Any, first: int, last: int) -> Any:
        return original(taker, first, last + (last < taker.next_id - 1))

    patch.setattr(consumer.Consumer, "release", release)


# -- the sessions -------------------------------------------------------------------------------------------


def confirm_comes_before_commit(patch: Patch) -> None:
    """A publish is confirmed when it was handed to the stream."""
    original = sorter.Sorter.submit

    def submit(which: Any) -> None:
        for receipt in which._receipts:
            if receipt.ranges and not receipt.channel.gone:
                receipt.channel.amqp.confirm(receipt.ranges)
                receipt.channel.session.touch()
            receipt.ranges = []
        original(which)

    patch.setattr(sorter.Sorter, "submit", submit)


def confirm_comes_with_the_first_group(patch: Patch) -> None:
    """A run that goes to several groups is confirmed when one has it."""
    original = sorter.Receipt.answered

    def answered(receipt: Any, value: object) -> None:
        if receipt._awaited > 0:
            receipt._awaited = 1
            original(receipt, value)

    patch.setattr(sorter.Receipt, "answered", answered)


def bursts_are_sorted_whatever_queues_they_share(patch: Patch) -> None:
    """A queue that is reached in two ways gets a burst's messages way by way."""

    class Forgetful(set[int]):
        def update(self, *others: Any) -> None:
            pass

    _after(patch, sorter.Sorter, "__init__", lambda which, _: setattr(which, "_uids", Forgetful()))


def cancel_forgets_who_waits(patch: Patch) -> None:
    """The bug of seed 5: an ack that waited behind a cancel was dropped."""

    def forget_and_drop(consumer: Any) -> None:
        forget(consumer)
        if not consumer.channel.amqp.unacked_count:
            consumer.channel.holders.pop(consumer.id, None)

    patch.setattr("node.session.consume.forget", forget_and_drop)


def connections_open_at_once(patch: Patch) -> None:
    """A restarted node takes clients before it knows what was bound while it was away."""
    from node.session.session import Session

    patch.setattr(Session, "_open", lambda session, vhost: session.enter(vhost))


MUTANTS: list[tuple[Mutant, int]] = [
    (everything_is_sent_before_it_is_durable, 1),
    (failed_sync_is_tried_again, 1),
    (turns_are_durable_when_they_are_handed_over, 1),
    (boot_epoch_is_reused, 3),
    (messages_for_an_earlier_process_are_read, 3),
    (vote_is_forgotten_at_restart, 3),
    (term_is_not_stored, 1),
    (append_after_nothing_is_accepted, 2),
    (new_leaders_append_nothing, 1),
    (older_snapshot_is_installed, 48),
    (checkpoint_lacks_the_streams, 2),
    (checkpoint_lacks_the_members, 2),
    (checkpoint_rows_are_lost, 2),
    (live_bodies_are_trimmed, 2),
    (bodies_are_trimmed_before_the_checkpoint, 2),
    (snapshot_brings_no_bodies, 2),
    (any_later_batch_is_accepted, 2),
    (duplicates_are_accepted, 2),
    (streams_are_forgotten_at_failover, 5),
    (only_the_oldest_batch_is_sent_again, 3),
    (effects_run_on_replay, 3),
    (gone_streams_stay, 3),
    (memory_batches_are_not_sent_again, 2),
    (consumers_stand_in_no_order, 1),
    (apply_looks_at_the_clock, 2),
    (unknown_commands_are_passed_over, 4),
    (returned_messages_go_to_the_end, 1),
    (windows_are_passed_by_one, 3),
    (a_settled_range_is_one_too_long, 2),
    (confirm_comes_before_commit, 1),
    (confirm_comes_with_the_first_group, 5),
    (bursts_are_sorted_whatever_queues_they_share, 2),
    (cancel_forgets_who_waits, 8),
    (connections_open_at_once, 71),
]
"""Each with a seed that told once: tried first, so that a test of it is quick. 0: look from seed 1 on."""
