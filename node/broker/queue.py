"""The queue machine: all queues of one group, as a pure function of the group's log.

A message passes here twice: `enqueue` puts its run into queues and, where a consumer has credit, assigns it
in the same step (the delivery is an effect for the consumer's own node); `settle` ends it. The machine never
sees bodies: it names a message by log index, command offset and record number, and says with `live` which
entries must be kept. Commands arrive exactly once and in order for each origin: nothing de-duplicates here.
`apply` is total: what a client can cause is answered with a `Refusal` or ignored, and only a command kind
from a newer version raises.
"""

from collections.abc import Callable, KeysView
from typing import NamedTuple

from cluster.machine import Meta
from node.broker import commands_read
from node.broker.commands import UNLIMITED_WINDOW, UNSENT, Kind, MalformedCommand, Options
from node.broker.consumer import Consumer, Key
from node.broker.effects import GetResult, QueueEffect, Refusal, Refused, Slice
from node.broker.queue_base import Duties, QueueBase
from node.broker.queue_intake import admit
from node.broker.queue_state import Queue, Reason
from node.broker.runs import PLAIN, Run
from node.broker.sources import Range, Source

__all__ = ["NO_ACK_WINDOW", "UNLIMITED_WINDOW", "ConsumerInfo", "Duties", "QueueMachine"]

NO_ACK_WINDOW = 2000
"""Messages that a no-ack consumer may have on their way to its socket."""


class ConsumerInfo(NamedTuple):
    """An attached consumer as the admin sees it.

    Args:
        prefetch: 0: no limit.
        is_active: False: it waits until another one leaves (single active consumer).
    """

    origin: int
    session: int
    consumer: int
    prefetch: int
    no_ack: bool
    exclusive: bool
    priority: int
    unacked: int
    is_active: bool


class QueueMachine(QueueBase):
    """See the module. Implements `cluster.machine.StateMachine`."""

    version = 2

    def __init__(self, local_node: int) -> None:
        super().__init__(local_node)
        self._handlers: dict[int, Callable[[Meta, bytes, int, int, int], None]] = {
            Kind.ENQUEUE: self._enqueue,
            Kind.ENQUEUE_WITH: self._enqueue_with,
            Kind.CREATE_QUEUE: self._create_queue,
            Kind.DELETE_QUEUE: self._delete_queue,
            Kind.PURGE: self._purge,
            Kind.ATTACH: self._attach,
            Kind.DETACH: self._detach,
            Kind.SETTLE: self._settle,
            Kind.GIVE_BACK: self._give_back,
            Kind.DISCARD: self._discard,
            Kind.GET: self._get,
            Kind.CLOSE_SESSION: self._close_session,
            Kind.TICK: self._tick,
            Kind.FENCE: self._fence,
            Kind.LETTERS_DONE: self._letters_done,
            Kind.FORGET_SOURCE: self._forget_source,
            Kind.RESIZE: self._resize,
            # Of the memories of nodes only: see `memory_queues`.
            Kind.PROBE: self._tick,
            Kind.ANSWER: self._tick,
        }

    # --- StateMachine ---

    def apply(self, meta: Meta, data: bytes, offset: int) -> list[QueueEffect]:
        """Run the commands in `data[offset:]`; returns the effects for the local node, in order.

        Raises:
            UnknownCommand: before anything was changed.
        """
        batch = commands_read.frames(data, offset)
        self._begin(meta)
        for kind, command_offset, body, end in batch:
            try:
                self._handlers[kind](meta, data, command_offset, body, end)
            except MalformedCommand:  # raised by decoding, so nothing has changed
                continue
        return self._end()

    def origin_gone(self, meta: Meta) -> list[QueueEffect]:
        """End all sessions of the process that was `meta.origin`."""
        self._begin(meta)
        self._end_sessions(sorted(key for key in self._sessions if key[0] == meta.origin), failed=False)
        return self._end()

    def serves(self) -> bool:
        """Whether a consumer or a basic.get of this node holds or awaits messages."""
        return self._local_sessions > 0

    # --- read side ---

    def has_queue(self, uid: int) -> bool:
        """Whether the queue is here and not expired."""
        return uid in self._queues

    def counts(self, uid: int) -> tuple[int, int, int]:
        """Return (ready, unacked, attached consumers); zeros for a queue that is not here."""
        queue = self._queues.get(uid)
        return (queue.ready_count, queue.unacked_count, queue.attached_count) if queue else (0, 0, 0)

    def waiting(self, uid: int) -> tuple[int, int]:
        """Return (delayed messages, dead letters that are not forwarded yet) of a queue."""
        queue = self._queues.get(uid)
        if queue is None:
            return 0, 0
        return queue.delayed.count, sum([letter.run[3] for _, letter in queue.letters])

    def queue_uids(self) -> KeysView[int]:
        """Return the uids of all queues, a live view in no order; expired ones are not among them."""
        return self._queues.keys()

    def consumers(self, uid: int) -> list[ConsumerInfo]:
        """Return the attached consumers of a queue, by origin and id."""
        queue = self._queues.get(uid)
        if queue is None:
            return []
        return [
            ConsumerInfo(
                origin=key[0],
                session=consumer.session[1],
                consumer=key[1],
                prefetch=0 if consumer.window == UNLIMITED_WINDOW else consumer.window,
                no_ack=consumer.no_ack,
                exclusive=consumer.exclusive,
                priority=consumer.priority,
                unacked=consumer.unacked,
                is_active=not queue.policy.single_active or queue.active is consumer,
            )
            for key, consumer in sorted(queue.consumers.items(), key=lambda item: item[0])
            if consumer.attached
        ]

    # --- messages ---

    def _enqueue(self, meta: Meta, data: bytes, command_offset: int, body: int, end: int) -> None:
        ticket, count, uids = commands_read.decode_enqueue(data, body, end)
        if len(uids) > 1:
            uids = tuple(dict.fromkeys(uids))
        queues = [queue for uid in uids if (queue := self._queues.get(uid)) is not None]
        refused: list[Range] = []
        if queues:
            index = meta.index
            sizes = _sizes(queues, data, command_offset)
            run = (index, command_offset, 0, count, 0, 0, PLAIN)
            self._live[index] = self._live.get(index, 0) + count * len(queues)
            touch = self._changes.touch
            for queue in queues:
                touch(queue.uid)
                if queue.takes_as_is:
                    queue.put(run)
                    if queue.service or queue.is_timed:
                        self._follow_up(queue)
                else:
                    refused += admit(queue, run, None, sizes, meta.ts, self._follow_up)
        self._reply(meta, ticket, _taken(refused) or len(uids) - len(queues))

    def _enqueue_with(self, meta: Meta, data: bytes, command_offset: int, body: int, end: int) -> None:
        ticket, count, uids, options = commands_read.decode_enqueue_with(data, body, end)
        uids = tuple(dict.fromkeys(uids))
        queues = [queue for uid in uids if (queue := self._queues.get(uid)) is not None]
        refused: list[Range] = []
        if queues:
            index = meta.index
            sizes = _sizes(queues, data, command_offset)
            for queue in queues:
                self._changes.touch(queue.uid)
                for first, last in self._new_to(queue, options, count):
                    run = (index, command_offset, first, last - first + 1, 0, 0, PLAIN)
                    self._live[index] = self._live.get(index, 0) + run[3]
                    turned_away = admit(queue, run, options, sizes, meta.ts, self._follow_up)
                    refused += turned_away
                    if options.source_uid:
                        _forget_letters(queue, options, turned_away)
        self._reply(meta, ticket, _taken(refused) or len(uids) - len(queues))

    def _new_to(self, queue: Queue, options: Options, count: int) -> list[Range]:
        """The messages of a command that did not come to the queue before, as ranges."""
        uid = options.source_uid
        if not uid:
            return [(0, count - 1)]
        source = queue.sources.get(uid)
        if source is None:
            source = queue.sources[uid] = Source()
            self._fed.setdefault(uid, {})[queue.uid] = None
        queue.dirty_sources[uid] = None
        first = options.source_seq
        return [
            (start - first, last - first) for start, last in source.accept(options.source_low, first, count)
        ]

    def _settle(self, meta: Meta, data: bytes, _offset: int, body: int, end: int) -> None:
        number, ranges = commands_read.decode_settle(data, body, end)
        found = self._consumers.get((meta.origin, number))
        if found is None:
            return
        consumer, queue = found
        self._unrefer(self._release(consumer, queue, ranges))
        self._let_go(consumer, queue)
        self._follow_up(queue)

    def _discard(self, meta: Meta, data: bytes, _offset: int, body: int, end: int) -> None:
        number, ranges = commands_read.decode_settle(data, body, end)
        found = self._consumers.get((meta.origin, number))
        if found is None:
            return
        consumer, queue = found
        queue.bury(self._release(consumer, queue, ranges), Reason.REJECTED, meta.ts)
        self._let_go(consumer, queue)
        self._follow_up(queue)

    def _give_back(self, meta: Meta, data: bytes, _offset: int, body: int, end: int) -> None:
        number, failed, ranges = commands_read.decode_give_back(data, body, end)
        found = self._consumers.get((meta.origin, number))
        if found is None:
            return
        consumer, queue = found
        runs = self._release(consumer, queue, ranges)
        if failed == UNSENT:
            queue.undo(runs)
        else:
            queue.give_back(runs, failed=bool(failed), now=meta.ts)
        self._let_go(consumer, queue)
        self._follow_up(queue)

    def _release(self, consumer: Consumer, queue: Queue, ranges: tuple[int, ...]) -> list[Run]:
        before = consumer.unacked
        runs = consumer.release(ranges[0], ranges[1]) if len(ranges) == 2 else []
        if len(ranges) > 2:
            for first, last in zip(ranges[::2], ranges[1::2], strict=True):
                runs += consumer.release(first, last)
        if runs:
            queue.unacked_count -= before - consumer.unacked
            queue.dirty_consumers[consumer.key] = None
            self._changes.touch(queue.uid)
        return runs

    def _let_go(self, consumer: Consumer, queue: Queue) -> None:
        """After a release: serve the consumer again, or forget it if nothing is left of it."""
        if consumer.attached:
            queue.serve(consumer)
        elif not consumer.unacked:
            self._forget(consumer, queue)

    def _get(self, meta: Meta, data: bytes, _offset: int, body: int, end: int) -> None:
        ticket, session, number, uid = commands_read.decode_get(data, body, end)
        queue = self._queues.get(uid)
        if queue is None:
            self._reply(meta, ticket, Refusal.NO_QUEUE)
            return
        key = (meta.origin, number)
        holder, home = self._consumers.get(key, (None, queue))
        if home is not queue or (holder is not None and holder.attached):
            self._reply(meta, ticket, Refusal.DUPLICATE)
            return
        queue.used_ts = meta.ts
        self._changes.touch(uid)
        self._follow_up(queue)
        if not queue.ready_count:
            self._reply(meta, ticket)
            return
        if holder is None:
            holder = Consumer(key, (meta.origin, session), window=0, attached=False)
            queue.consumers[key] = holder
            self._remember(holder, queue)
        run = queue.take(1)
        queue.unacked_count += 1
        first_id = holder.hold(run)
        queue.dirty_consumers[key] = None
        attempts = run[5] if queue.policy.counts_attempts else 0
        found = Slice(run[0], run[1], run[2], 1, first_id, run[4] > 0, attempts)
        # What has expired behind it is at the head now, and is not counted.
        self._follow_up(queue)
        self._reply(meta, ticket, GetResult(found, queue.ready_count))

    # --- consumers and sessions ---

    def _attach(self, meta: Meta, data: bytes, _offset: int, body: int, end: int) -> None:
        ticket, session, number, uid, prefetch, flags, priority, timeout_ms = commands_read.decode_attach(
            data, body, end
        )
        no_ack, exclusive = bool(flags & 1), bool(flags & 2)
        key = (meta.origin, number)
        queue = self._queues.get(uid)
        if queue is None:
            self._reply(meta, ticket, Refusal.NO_QUEUE)
        elif key in self._consumers:
            self._reply(meta, ticket, Refusal.DUPLICATE)
        elif queue.has_exclusive() or (exclusive and queue.attached_count):
            self._reply(meta, ticket, Refusal.EXCLUSIVE_USE)
        else:
            window = NO_ACK_WINDOW if no_ack else prefetch or UNLIMITED_WINDOW
            consumer = Consumer(
                key,
                (meta.origin, session),
                window,
                attached=True,
                no_ack=no_ack,
                exclusive=exclusive,
                priority=priority,
                timeout_ms=0 if no_ack else timeout_ms or queue.policy.consumer_timeout_ms,
            )
            if consumer.timeout_ms:
                queue.is_timed = queue.has_timeouts = True
            self._changes.touch(uid)
            self._remember(consumer, queue)
            self._reply(meta, ticket)
            queue.attach(consumer)
            self._follow_up(queue)

    def _resize(self, meta: Meta, data: bytes, _offset: int, body: int, end: int) -> None:
        number, window = commands_read.decode_pair(data, body, end)
        consumer, queue = self._consumers.get((meta.origin, number), (None, None))
        if consumer is not None and queue is not None and consumer.attached and not consumer.no_ack:
            queue.resize(consumer, min(window, UNLIMITED_WINDOW))
            self._changes.touch(queue.uid)
            self._follow_up(queue)

    def _detach(self, meta: Meta, data: bytes, _offset: int, body: int, end: int) -> None:
        ticket, number = commands_read.decode_pair(data, body, end)
        consumer, queue = self._consumers.get((meta.origin, number), (None, None))
        if consumer is not None and queue is not None and consumer.attached:
            queue.detach(consumer)
            self._changes.touch(queue.uid)
            if not self._ends_unused(queue):
                self._let_go(consumer, queue)
                queue.serve_next()
                self._follow_up(queue)
        self._reply(meta, ticket)

    def _close_session(self, meta: Meta, data: bytes, _offset: int, body: int, end: int) -> None:
        ticket, session = commands_read.decode_pair(data, body, end)
        # The client ended holding them, perhaps because of them: this counts as a failure (so does RabbitMQ).
        self._end_sessions([(meta.origin, session)], failed=True)
        self._reply(meta, ticket)

    def _end_sessions(self, sessions: list[Key], *, failed: bool) -> None:
        """Detach all consumers first, so that none of them is given what another returns; then return all."""
        keys = sorted(key for session in sessions for key in self._sessions.get(session, ()))
        touched: dict[int, list[Consumer]] = {}
        for key in keys:
            consumer, queue = self._consumers[key]
            touched.setdefault(queue.uid, []).append(consumer)
        for uid in sorted(touched):
            queue = self._queues[uid]
            had_consumers = queue.attached_count > 0
            runs: list[Run] = []
            for consumer in touched[uid]:
                if consumer.attached:
                    queue.detach(consumer)
                runs += consumer.release(1, consumer.next_id)
                self._forget(consumer, queue)
            queue.unacked_count -= sum(run[3] for run in runs)
            queue.give_back(runs, failed=failed, now=self._now)
            self._changes.touch(uid)
            if not (had_consumers and self._ends_unused(queue)):
                queue.serve_next()
                self._follow_up(queue)

    # --- queues ---

    def _create_queue(self, meta: Meta, data: bytes, _offset: int, body: int, end: int) -> None:
        ticket, uid, config = commands_read.decode_create_queue(data, body, end)
        # An expired queue is not created again: it is on its way out of the topology.
        if uid not in self._queues and uid not in self._expired:
            self._queues[uid] = Queue(uid, config)
        queue = self._queues.get(uid)
        if queue is not None:
            # To declare a queue is to use it.
            queue.used_ts = meta.ts
            self._changes.touch(uid)
            self._follow_up(queue)
        self._reply(meta, ticket)

    def _delete_queue(self, meta: Meta, data: bytes, _offset: int, body: int, end: int) -> None:
        ticket, uid, if_unused, if_empty = commands_read.decode_delete_queue(data, body, end)
        queue = self._queues.get(uid)
        if uid in self._expired:
            del self._expired[uid]
            self._changes.expire(uid)
            self._reply(meta, ticket, 0)
        elif queue is None:
            self._reply(meta, ticket, Refusal.NO_QUEUE)
        elif if_unused and queue.attached_count:
            self._reply(meta, ticket, Refusal.IN_USE)
        elif if_empty and queue.ready_count:
            self._reply(meta, ticket, Refusal.NOT_EMPTY)
        else:
            ready = queue.ready_count
            self._drop(queue)
            self._reply(meta, ticket, ready)

    def _purge(self, meta: Meta, data: bytes, _offset: int, body: int, end: int) -> None:
        ticket, uid = commands_read.decode_pair(data, body, end)
        queue = self._queues.get(uid)
        if queue is None:
            self._reply(meta, ticket, Refusal.NO_QUEUE)
            return
        purged = queue.ready_count
        self._unrefer(queue.drop_ready())
        self._changes.touch(uid)
        self._follow_up(queue)
        self._reply(meta, ticket, purged)

    def _letters_done(self, _meta: Meta, data: bytes, _offset: int, body: int, end: int) -> None:
        uid, last = commands_read.decode_pair(data, body, end)
        queue = self._queues.get(uid)
        if queue is None:
            return
        queue.letters_done(last)
        if not queue.letters:
            self._lettered.pop(uid, None)
        self._changes.touch(uid)
        self._follow_up(queue)

    def _forget_source(self, _meta: Meta, data: bytes, _offset: int, body: int, end: int) -> None:
        uid = commands_read.decode_one(data, body, end)
        for target in self._fed.pop(uid, {}):
            queue = self._queues[target]
            del queue.sources[uid]
            queue.dirty_sources[uid] = None
            self._changes.touch(target)

    def _fence(self, meta: Meta, data: bytes, _offset: int, body: int, end: int) -> None:
        self._reply(meta, commands_read.decode_one(data, body, end))

    def _tick(self, _meta: Meta, _data: bytes, _offset: int, _body: int, _end: int) -> None:
        """Nothing: what a tick is for, `_begin` has done."""


def _sizes(queues: list[Queue], data: bytes, command_offset: int) -> list[int]:
    """The bytes of each body of a command, where a queue counts them."""
    for queue in queues:
        if queue.counts_bytes:
            return commands_read.body_sizes(data, *commands_read.enqueue_layout(data, command_offset))
    return []


def _forget_letters(queue: Queue, options: Options, refused: list[Range]) -> None:
    """Letters that a full queue refuses are not taken: their own queue may keep them and send them again."""
    source, shift = queue.sources[options.source_uid], options.source_seq
    for first, last in refused:
        source.refuse(first + shift, last + shift)


def _taken(refused: list[Range]) -> Refused | None:
    """What an enqueue replies where queues refused messages: each once, in order."""
    if not refused:
        return None
    merged: list[Range] = []
    for first, last in sorted(refused):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return Refused(tuple(merged))
