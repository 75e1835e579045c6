"""The queue machine: all queues of one group, as a pure function of the group's log.

A message passes here twice: `enqueue` puts its run into queues and, where a consumer has credit, assigns it
in the same step (the delivery is an effect for the consumer's own node); `settle` ends it. The machine never
sees bodies: it names a message by log index, command offset and record number, and says with `live` which
entries must be kept. Commands arrive exactly once and in order for each origin: nothing de-duplicates here.
`apply` is total: what a client can cause is answered with a `Refusal` or ignored, and only a command kind
from a newer version raises.
"""

from collections.abc import Callable, Iterable, KeysView, Mapping

from cluster.machine import Meta, Row
from node.broker import commands, queue_rows
from node.broker.commands import Kind, MalformedCommand
from node.broker.effects import Cancelled, Deliver, GetResult, QueueEffect, Refusal, Reply, Slice
from node.broker.queue_assignment import assign
from node.broker.queue_reports import ConsumerInfo, Duties
from node.broker.queue_state import Consumer, Key, Queue, Run

NO_ACK_WINDOW = 2000
"""Messages that a no-ack consumer may have on their way to its socket."""
UNLIMITED_WINDOW = 1 << 62
"""The window of prefetch 0: no limit that anybody could reach."""
ASSIGN_SLICES_MAX = 8192
"""Slices assigned in one `apply`, some 20 ms of work; the rest waits for the next (`Duties.unfinished`)."""


class QueueMachine:
    """See the module. Implements `cluster.machine.StateMachine`.

    State is the same on every replica; only the effects depend on `local_node`.
    """

    version = 1

    def __init__(self, local_node: int) -> None:
        self._local_node = local_node
        self._queues: dict[int, Queue] = {}
        self._expired: dict[int, None] = {}
        self._consumers: dict[Key, tuple[Consumer, Queue]] = {}
        self._sessions: dict[Key, dict[Key, None]] = {}
        self._local_sessions = 0
        self._live: dict[int, int] = {}
        self._dead: list[int] = []
        self._unfinished: dict[int, None] = {}
        self._effects: list[QueueEffect] = []
        self._deliveries: dict[int, list[Slice]] = {}
        self._slices_left = 0
        self._changes = queue_rows.Changes()
        self._handlers: dict[int, Callable[[Meta, bytes, int, int, int], None]] = {
            Kind.ENQUEUE: self._enqueue,
            Kind.CREATE_QUEUE: self._create_queue,
            Kind.DELETE_QUEUE: self._delete_queue,
            Kind.PURGE: self._purge,
            Kind.ATTACH: self._attach,
            Kind.DETACH: self._detach,
            Kind.SETTLE: self._settle,
            Kind.GIVE_BACK: self._give_back,
            # Without dead-letter targets a refused message is gone, as a settled one is.
            Kind.DISCARD: self._settle,
            Kind.GET: self._get,
            Kind.CLOSE_SESSION: self._close_session,
            Kind.TICK: self._tick,
            Kind.FENCE: self._fence,
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
        batch = commands.frames(data, offset)
        self._begin()
        for kind, command_offset, body, end in batch:
            try:
                self._handlers[kind](meta, data, command_offset, body, end)
            except MalformedCommand:  # raised by decoding, so nothing has changed
                continue
        return self._end()

    def origin_gone(self, meta: Meta) -> list[QueueEffect]:
        """End all sessions of the process that was `meta.origin`."""
        self._begin()
        self._end_sessions(sorted(key for key in self._sessions if key[0] == meta.origin), failed=False)
        return self._end()

    def serves(self) -> bool:
        """Whether a consumer or a basic.get of this node holds or awaits messages."""
        return self._local_sessions > 0

    def live(self) -> Mapping[int, int]:
        """Return log index -> number of (queue, message) pairs that are ready or held. Not a copy."""
        return self._live

    def take_dead(self) -> list[int]:
        """Return the indexes that left `live` since the last call, in the order in which they did."""
        # An index may come back within its own entry (enqueue, purge, enqueue), never later.
        dead = [index for index in dict.fromkeys(self._dead) if index not in self._live]
        self._dead = []
        return dead

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
        queues, expired = queue_rows.read(stored)
        self._queues, self._expired = queues, dict.fromkeys(expired)
        self._consumers, self._sessions, self._live, self._dead = {}, {}, {}, []
        self._local_sessions = 0
        for queue in queues.values():
            for consumer in queue.consumers.values():
                self._remember(consumer, queue)
        for index, count in queue_rows.references(queues.values()):
            self._live[index] = self._live.get(index, 0) + count
        self._unfinished = {
            queue.uid: None for queue in queues.values() if queue.ready_count and queue.service
        }
        self._changes = queue_rows.Changes(is_started=bool(stored))

    def state_bytes(self) -> bytes:
        """Return the whole state in canonical form: equal on replicas that applied the same log."""
        return queue_rows.state_bytes(self._queues, self._expired)

    # --- read side ---

    def has_queue(self, uid: int) -> bool:
        """Whether the queue is here and not expired."""
        return uid in self._queues

    def counts(self, uid: int) -> tuple[int, int, int]:
        """Return (ready, unacked, attached consumers); zeros for a queue that is not here."""
        queue = self._queues.get(uid)
        return (queue.ready_count, queue.unacked_count, queue.attached_count) if queue else (0, 0, 0)

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
            )
            for key, consumer in sorted(queue.consumers.items(), key=lambda item: item[0])
            if consumer.attached
        ]

    @property
    def has_duties(self) -> bool:
        """Whether `duties` would name anything."""
        return bool(self._expired or self._unfinished)

    def duties(self) -> Duties:
        """Return what the leader should see to."""
        return Duties(sorted(self._expired), bool(self._unfinished))

    # --- one turn ---

    def _begin(self) -> None:
        self._effects = []
        self._deliveries = {}
        if self._unfinished:
            self._slices_left = ASSIGN_SLICES_MAX
            for uid in sorted(self._unfinished):
                self._assign(self._queues[uid])
        # The batch has its own share, so that a long backlog does not hold up the other queues.
        self._slices_left = ASSIGN_SLICES_MAX

    def _end(self) -> list[QueueEffect]:
        effects, self._effects = self._effects, []
        return effects

    def _reply(self, meta: Meta, ticket: int, value: int | Refusal | GetResult | None = None) -> None:
        if ticket and meta.origin == self._local_node:
            self._effects.append(Reply(ticket, value))

    def _assign(self, queue: Queue) -> None:
        """Serve the consumers of a queue; follows every change that may leave it with messages and credit."""
        if not (queue.ready_count and queue.service):
            self._unfinished.pop(queue.uid, None)
            return
        self._changes.touch(queue.uid)
        if self._slices_left > 0:
            self._slices_left -= assign(queue, self._slices_left, self._assigned)
        if queue.ready_count and queue.service:
            self._unfinished[queue.uid] = None
        else:
            self._unfinished.pop(queue.uid, None)

    def _assigned(self, consumer: Consumer, run: Run, first_id: int) -> None:
        origin, number = consumer.key
        if origin != self._local_node:
            return
        slices = self._deliveries.get(number)
        if slices is None:
            slices = self._deliveries[number] = []
            self._effects.append(Deliver(number, slices))
        slices.append(Slice(run[0], run[1], run[2], run[3], first_id, run[4] > 0))

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

    # --- messages ---

    def _enqueue(self, meta: Meta, data: bytes, command_offset: int, body: int, end: int) -> None:
        ticket, count, uids = commands.decode_enqueue(data, body, end)
        if len(uids) > 1:
            uids = tuple(dict.fromkeys(uids))
        queues = [queue for uid in uids if (queue := self._queues.get(uid)) is not None]
        if queues:
            index = meta.index
            self._live[index] = self._live.get(index, 0) + count * len(queues)
            run = (index, command_offset, 0, count, 0, 0)
            touch = self._changes.touch
            for queue in queues:
                queue.put(run)
                touch(queue.uid)
                if queue.service:
                    self._assign(queue)
        self._reply(meta, ticket, len(uids) - len(queues))

    def _settle(self, meta: Meta, data: bytes, _offset: int, body: int, end: int) -> None:
        number, ranges = commands.decode_settle(data, body, end)
        found = self._consumers.get((meta.origin, number))
        if found is None:
            return
        consumer, queue = found
        self._unrefer(self._release(consumer, queue, ranges))
        self._let_go(consumer, queue)
        self._assign(queue)

    def _give_back(self, meta: Meta, data: bytes, _offset: int, body: int, end: int) -> None:
        number, failed, ranges = commands.decode_give_back(data, body, end)
        found = self._consumers.get((meta.origin, number))
        if found is None:
            return
        consumer, queue = found
        queue.give_back(self._release(consumer, queue, ranges), failed=failed)
        self._let_go(consumer, queue)
        self._assign(queue)

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
        ticket, session, number, uid = commands.decode_get(data, body, end)
        queue = self._queues.get(uid)
        if queue is None:
            self._reply(meta, ticket, Refusal.NO_QUEUE)
            return
        key = (meta.origin, number)
        holder, home = self._consumers.get(key, (None, queue))
        if home is not queue or (holder is not None and holder.attached):
            self._reply(meta, ticket, Refusal.DUPLICATE)
            return
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
        self._changes.touch(uid)
        found = Slice(run[0], run[1], run[2], 1, first_id, run[4] > 0)
        self._reply(meta, ticket, GetResult(found, queue.ready_count))
        self._assign(queue)

    # --- consumers and sessions ---

    def _attach(self, meta: Meta, data: bytes, _offset: int, body: int, end: int) -> None:
        ticket, session, number, uid, prefetch, flags, priority = commands.decode_attach(data, body, end)
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
            )
            queue.consumers[key] = consumer
            queue.attached_count += 1
            queue.dirty_consumers[key] = None
            self._changes.touch(uid)
            self._remember(consumer, queue)
            self._reply(meta, ticket)
            queue.serve(consumer)
            self._assign(queue)

    def _resize(self, meta: Meta, data: bytes, _offset: int, body: int, end: int) -> None:
        number, prefetch = commands.decode_pair(data, body, end)
        consumer, queue = self._consumers.get((meta.origin, number), (None, None))
        if consumer is not None and queue is not None and consumer.attached and not consumer.no_ack:
            # As attach would have kept it: rows have 64 bits for a window, commands of attach 32.
            queue.resize(consumer, min(prefetch, commands.PREFETCH_MAX) or UNLIMITED_WINDOW)
            self._changes.touch(queue.uid)
            self._assign(queue)

    def _detach(self, meta: Meta, data: bytes, _offset: int, body: int, end: int) -> None:
        ticket, number = commands.decode_pair(data, body, end)
        consumer, queue = self._consumers.get((meta.origin, number), (None, None))
        if consumer is not None and queue is not None and consumer.attached:
            queue.detach(consumer)
            self._changes.touch(queue.uid)
            if not self._expire(queue):
                self._let_go(consumer, queue)
                self._assign(queue)
        self._reply(meta, ticket)

    def _close_session(self, meta: Meta, data: bytes, _offset: int, body: int, end: int) -> None:
        ticket, session = commands.decode_pair(data, body, end)
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
            queue.give_back(runs, failed=failed)
            self._changes.touch(uid)
            if not (had_consumers and self._expire(queue)):
                self._assign(queue)

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

    # --- queues ---

    def _create_queue(self, meta: Meta, data: bytes, _offset: int, body: int, end: int) -> None:
        ticket, uid, config = commands.decode_create_queue(data, body, end)
        # An expired queue is not created again: it is on its way out of the topology.
        if uid not in self._queues and uid not in self._expired:
            self._queues[uid] = Queue(uid, config)
            self._changes.touch(uid)
        self._reply(meta, ticket)

    def _delete_queue(self, meta: Meta, data: bytes, _offset: int, body: int, end: int) -> None:
        ticket, uid, if_unused, if_empty = commands.decode_delete_queue(data, body, end)
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
        ticket, uid = commands.decode_pair(data, body, end)
        queue = self._queues.get(uid)
        if queue is None:
            self._reply(meta, ticket, Refusal.NO_QUEUE)
            return
        purged = queue.ready_count
        self._unrefer(queue.drop_ready())
        self._unfinished.pop(uid, None)
        self._changes.touch(uid)
        self._reply(meta, ticket, purged)

    def _expire(self, queue: Queue) -> bool:
        """End an auto-delete queue that has just lost its last consumer; returns whether it is so."""
        if queue.attached_count or not queue.config.auto_delete:
            return False
        self._drop(queue)
        self._expired[queue.uid] = None
        self._changes.expire(queue.uid)
        return True

    def _drop(self, queue: Queue) -> None:
        self._unrefer(queue.drop_ready())
        for key in sorted(queue.consumers):
            consumer = queue.consumers[key]
            self._unrefer(consumer.release(1, consumer.next_id))
            if consumer.attached and key[0] == self._local_node:
                self._effects.append(Cancelled(key[1]))
            self._forget(consumer, queue)
        del self._queues[queue.uid]
        self._unfinished.pop(queue.uid, None)
        self._changes.drop(queue)

    def _fence(self, meta: Meta, data: bytes, _offset: int, body: int, end: int) -> None:
        self._reply(meta, commands.decode_one(data, body, end))

    def _tick(self, _meta: Meta, _data: bytes, _offset: int, _body: int, _end: int) -> None:
        """Nothing: what a tick is for, `_begin` has done."""
