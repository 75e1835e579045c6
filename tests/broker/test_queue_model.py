"""The queue machine against a naive model that knows single messages only."""

import os
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from node.broker import commands, consumer, queue_base, queue_rows
from node.broker.commands import Parts, QueueConfig
from node.broker.effects import Cancelled, Deliver, GetResult, Refusal, Reply
from tests.broker.queue_driver import HEADER_BYTES, NODES, TICKET, Driver, enqueue

Message = tuple[int, int, int]  # log index, command offset, record
UIDS = (1, 2, 3)
CONSUMERS = range(1, 6)


@dataclass
class Taker:
    """A consumer or a holder of basic.get."""

    uid: int
    session: int
    window: float
    attached: bool
    exclusive: bool = False
    next_id: int = 1
    held: dict[int, Message] = field(default_factory=dict)


class Model:
    """Queues as lists of messages. Who gets which is taken from the machine and judged, not computed."""

    def __init__(self) -> None:
        self.ready: dict[int, list[Message]] = {}
        self.returned: set[tuple[int, Message]] = set()
        self.takers: dict[tuple[int, int], Taker] = {}
        self.expired: set[int] = set()

    def in_turn(self, uid: int) -> list[Message]:
        return sorted(self.ready[uid], key=lambda message: ((uid, message) not in self.returned, message))

    def attached(self, uid: int) -> list[Taker]:
        return [taker for taker in self.takers.values() if taker.uid == uid and taker.attached]

    def deliver(
        self, key: tuple[int, int], first_id: int, messages: list[Message], redelivered: bool
    ) -> None:
        taker = self.takers[key]
        assert first_id == taker.next_id
        for message in messages:
            self.ready[taker.uid].remove(message)  # no loss, no duplicate: it must have been ready
            assert redelivered == ((taker.uid, message) in self.returned)
            taker.held[taker.next_id] = message
            taker.next_id += 1

    def release(self, key: tuple[int, int], ids: list[int], *, back: bool) -> None:
        taker = self.takers.get(key)
        for number in ids:
            message = taker.held.pop(number, None) if taker else None
            if taker and message and back:
                self.ready[taker.uid].append(message)
                self.returned.add((taker.uid, message))
        self.forget(key)

    def forget(self, key: tuple[int, int]) -> None:
        taker = self.takers.get(key)
        if taker and not taker.attached and not taker.held:
            del self.takers[key]

    def end(self, keys: list[tuple[int, int]], auto_delete: set[int]) -> None:
        for key in keys:
            self.takers[key].attached = False
            self.release(key, list(self.takers[key].held), back=True)
            self.forget(key)
        for uid in auto_delete:
            if uid in self.ready and not self.attached(uid):
                self.drop(uid)
                self.expired.add(uid)

    def drop(self, uid: int) -> None:
        del self.ready[uid]
        for key in [key for key, taker in self.takers.items() if taker.uid == uid]:
            del self.takers[key]

    def live(self) -> Counter[int]:
        count: Counter[int] = Counter()
        for messages in [*self.ready.values(), *(taker.held.values() for taker in self.takers.values())]:
            count.update(message[0] for message in messages)
        return count


class QueueRules(RuleBasedStateMachine):
    """Random commands from two nodes; small chunks and bounds, so that their edges are met."""

    def __init__(self) -> None:
        super().__init__()
        # Teardown also follows an example that ended before `start`.
        self.limits = queue_rows.CHUNK_SHIFT, consumer.HELD_SHIFT, queue_base.ASSIGN_SLICES_MAX

    @initialize(shifts=st.tuples(st.integers(0, 3), st.integers(0, 4)), slices=st.sampled_from([2, 999]))
    def start(self, shifts: tuple[int, int], slices: int) -> None:
        queue_rows.CHUNK_SHIFT, consumer.HELD_SHIFT = shifts
        queue_base.ASSIGN_SLICES_MAX = slices
        self.steps, self.checkpoint_every = 0, 1 + shifts[0]
        self.driver = Driver()
        self.model = Model()
        self.auto_delete: set[int] = set()
        for uid in UIDS:
            self.create(uid, auto_delete=uid == 3)

    def teardown(self) -> None:
        queue_rows.CHUNK_SHIFT, consumer.HELD_SHIFT, queue_base.ASSIGN_SLICES_MAX = self.limits

    @rule(uid=st.sampled_from(UIDS), auto_delete=st.booleans())
    def create(self, uid: int, auto_delete: bool) -> None:
        new = uid not in self.model.ready and uid not in self.model.expired
        if new:
            self.model.ready[uid] = []
            self.auto_delete = self.auto_delete - {uid} | ({uid} if auto_delete else set())
        self.send(commands.create_queue(TICKET, uid, QueueConfig(auto_delete=auto_delete).encode()))

    @rule(
        uids=st.lists(st.sampled_from(UIDS), min_size=1, unique=True),
        counts=st.lists(st.integers(1, 9), min_size=1),
    )
    def enqueue(self, uids: list[int], counts: list[int]) -> None:
        batch = [enqueue(uids, count) for count in counts]
        offset = HEADER_BYTES
        for count, parts in zip(counts, batch, strict=True):
            for uid in uids:
                if uid in self.model.ready:
                    index = self.driver.index + 1
                    self.model.ready[uid] += [(index, offset, record) for record in range(count)]
            offset += sum(map(len, parts))
        missing = sum(uid not in self.model.ready for uid in uids)
        assert self.send(*batch) == [missing] * len(batch)

    @rule(
        origin=st.sampled_from(NODES),
        consumer=st.sampled_from(CONSUMERS),
        session=st.integers(1, 2),
        uid=st.sampled_from(UIDS),
        prefetch=st.integers(0, 6),
        exclusive=st.sampled_from([False, False, False, True]),
        priority=st.sampled_from([0, 0, 1]),
    )
    def attach(
        self,
        *,
        origin: int,
        consumer: int,
        session: int,
        uid: int,
        prefetch: int,
        exclusive: bool,
        priority: int,
    ) -> None:
        there = self.model.attached(uid)
        expected = None
        if uid not in self.model.ready:
            expected = Refusal.NO_QUEUE
        elif (origin, consumer) in self.model.takers:
            expected = Refusal.DUPLICATE
        elif (exclusive and there) or any(taker.exclusive for taker in there):
            expected = Refusal.EXCLUSIVE_USE
        else:
            window = prefetch or float("inf")
            self.model.takers[origin, consumer] = Taker(
                uid, session, window, attached=True, exclusive=exclusive
            )
        command = commands.attach(
            TICKET,
            session,
            consumer,
            uid,
            prefetch=prefetch,
            no_ack=False,
            exclusive=exclusive,
            priority=priority,
        )
        assert self.send(command, origin=origin) == [expected]

    @rule(origin=st.sampled_from(NODES), consumer=st.sampled_from(CONSUMERS))
    def detach(self, origin: int, consumer: int) -> None:
        self.drain()
        taker = self.model.takers.get((origin, consumer))
        if taker and taker.attached:
            taker.attached = False
            self.model.forget((origin, consumer))
            self.model.end([], self.auto_delete & {taker.uid})
        self.send(commands.detach(TICKET, consumer), origin=origin)

    @rule(
        origin=st.sampled_from(NODES),
        consumer=st.sampled_from(CONSUMERS),
        ranges=st.lists(st.tuples(st.integers(7, 20), st.integers(0, 8)), min_size=1, max_size=3),
        kind=st.sampled_from(["settle", "discard", "give_back", "give_back", "failed"]),
        data=st.data(),
    )
    def release(
        self, origin: int, consumer: int, ranges: list[tuple[int, int]], kind: str, data: Any
    ) -> None:
        self.drain()
        taker = self.model.takers.get((origin, consumer))
        base = data.draw(st.sampled_from(sorted(taker.held))) if taker and taker.held else 0
        pairs = [(max(base + first - 10, 0), base + first - 10 + size) for first, size in ranges]
        pairs = [(first, last) for first, last in pairs if last >= 0]
        command = {
            "settle": lambda: commands.settle(consumer, pairs),
            "discard": lambda: commands.discard(consumer, pairs),
            "give_back": lambda: commands.give_back(consumer, pairs, failed=False),
            "failed": lambda: commands.give_back(consumer, pairs, failed=True),
        }[kind]()
        ids = [number for first, last in pairs for number in range(first, last + 1)]
        self.model.release((origin, consumer), ids, back=kind in ("give_back", "failed"))
        self.send(command, origin=origin)

    @rule(
        origin=st.sampled_from(NODES),
        consumer=st.integers(4, 8),
        session=st.integers(1, 2),
        uid=st.sampled_from(UIDS),
    )
    def get(self, origin: int, consumer: int, session: int, uid: int) -> None:
        key = (origin, consumer)
        taker = self.model.takers.get(key)
        self.drain()
        (value,) = self.send(commands.get(TICKET, session, consumer, uid), origin=origin, getting=True)
        if uid not in self.model.ready:
            assert value is Refusal.NO_QUEUE
        elif taker and (taker.attached or taker.uid != uid):
            assert value is Refusal.DUPLICATE
        elif not self.model.ready[uid]:
            assert value is None
        else:
            assert isinstance(value, GetResult)
            self.model.takers.setdefault(key, Taker(uid, session, 0, attached=False))
            slice_ = value.slice
            message = (slice_.index, slice_.command_offset, slice_.first_record)
            assert message == self.model.in_turn(uid)[0]
            self.model.deliver(key, slice_.first_id, [message], slice_.redelivered)
            assert value.remaining == len(self.model.ready[uid])
        self.judge_work()

    @rule(uid=st.sampled_from(UIDS))
    def purge(self, uid: int) -> None:
        expected: int | Refusal = Refusal.NO_QUEUE
        self.drain()
        if uid in self.model.ready:
            expected, self.model.ready[uid] = len(self.model.ready[uid]), []
        assert self.send(commands.purge(TICKET, uid)) == [expected]

    @rule(uid=st.sampled_from(UIDS), if_unused=st.booleans(), if_empty=st.booleans())
    def delete(self, uid: int, if_unused: bool, if_empty: bool) -> None:
        self.drain()
        expected: int | Refusal = 0
        if uid in self.model.expired:
            self.model.expired.remove(uid)
        elif uid not in self.model.ready:
            expected = Refusal.NO_QUEUE
        elif if_unused and self.model.attached(uid):
            expected = Refusal.IN_USE
        elif if_empty and self.model.ready[uid]:
            expected = Refusal.NOT_EMPTY
        else:
            expected = len(self.model.ready[uid])
            self.model.drop(uid)
        assert self.send(commands.delete_queue(TICKET, uid, if_unused=if_unused, if_empty=if_empty)) == [
            expected
        ]

    @rule(origin=st.sampled_from(NODES), session=st.integers(0, 2))
    def end(self, origin: int, session: int) -> None:
        """Session 0: the whole node."""
        takers = self.model.takers
        self.drain()
        keys = [key for key in takers if key[0] == origin and session in (0, takers[key].session)]
        lost = {takers[key].uid for key in keys if takers[key].attached}
        self.model.end(keys, self.auto_delete & lost)
        if session:
            assert self.send(commands.close_session(TICKET, session), origin=origin) == [None]
        else:
            self.judge(self.driver.origin_gone(origin))

    @rule()
    def restart(self) -> None:
        """Node 1 starts again from its store; then both nodes must still agree."""
        self.driver.checkpoint()
        self.driver.machines[1] = self.driver.restored()
        assert self.driver.machine.checkpoint(full=False) == []

    @rule(uid=st.sampled_from(UIDS))
    def detach_all(self, uid: int) -> None:
        """What is returned then stays in the queue."""
        for key, taker in list(self.model.takers.items()):
            if taker.uid == uid and taker.attached:
                self.detach(*key)

    def checkpoint(self) -> None:
        self.driver.checkpoint()
        restored = self.driver.restored()
        assert restored.state_bytes() == self.driver.machine.state_bytes()
        assert restored.live() == self.driver.machine.live()
        assert restored.duties() == self.driver.machine.duties()
        assert restored.checkpoint(full=True) == sorted(self.driver.store.items())

    @rule()
    def full_checkpoint(self) -> None:
        rows = self.driver.machine.checkpoint(full=True)
        self.driver.store = {key: value for key, value in rows if value is not None}

    def drain(self) -> None:
        """Finish put-off assignments, so that the model knows what is ready before the next command."""
        while self.driver.machine.duties().unfinished:
            self.send(commands.tick())

    def send(self, *batch: Parts, origin: int = 1, getting: bool = False) -> list[Any]:
        data = bytes(HEADER_BYTES) + b"".join(b"".join(parts) for parts in batch)
        effects = self.driver.run_everywhere(data, origin)
        self.judge(effects, working=not getting)
        return [effect.value for effect in effects[origin] if isinstance(effect, Reply)]

    def judge(self, effects: dict[int, list[Any]], *, working: bool = True) -> None:
        turns = {uid: self.model.in_turn(uid) for uid in self.model.ready}
        taken: Counter[int] = Counter()
        for node in NODES:
            for effect in effects[node]:
                if isinstance(effect, Deliver):
                    taker = self.model.takers[node, effect.consumer]
                    order = []
                    for index, offset, first, count, first_id, redelivered, _ in effect.slices:
                        messages = [(index, offset, first + n) for n in range(count)]
                        self.model.deliver((node, effect.consumer), first_id, messages, redelivered)
                        order += messages
                    places = [turns[taker.uid].index(message) for message in order]
                    assert places == sorted(places)  # FIFO for each consumer
                    assert taker.attached
                    assert len(taker.held) <= taker.window
                    taken[taker.uid] += len(order)
                elif isinstance(effect, Cancelled):
                    assert (node, effect.consumer) not in self.model.takers
        for uid, turn in turns.items():  # what went is what was first
            assert self.model.in_turn(uid) == turn[taken[uid] :]
        if working:
            self.judge_work()

    def judge_work(self) -> None:
        if not self.driver.machine.duties().unfinished:
            for uid, ready in self.model.ready.items():
                assert not ready or all(len(taker.held) >= taker.window for taker in self.model.attached(uid))

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "driver"):
            return
        self.steps += 1
        if not self.steps % self.checkpoint_every:
            self.checkpoint()
        machine, model = self.driver.machine, self.model
        assert sorted(machine.queue_uids()) == sorted(model.ready)
        assert machine.duties().expired == sorted(model.expired)
        assert dict(machine.live()) == dict(model.live())
        for uid, ready in model.ready.items():
            held = sum(len(taker.held) for taker in model.takers.values() if taker.uid == uid)
            assert machine.counts(uid) == (len(ready), held, len(model.attached(uid)))
        assert machine.state_bytes() == self.driver.machines[2].state_bytes()


TestQueueRules = QueueRules.TestCase
TestQueueRules.settings = settings(
    max_examples=int(os.environ.get("QUEUE_EXAMPLES", "120")), stateful_step_count=40, deadline=None
)
