"""Building queues from the rows that `queue_rows` made of them."""

from collections import deque
from collections.abc import Iterable

from node.broker import packed
from node.broker import queue_rows as rows_
from node.broker.commands import QueueConfig
from node.broker.consumer import Consumer, Key
from node.broker.queue_state import Letter, Queue, Reason
from node.broker.runs import PLAIN, Run, Traits
from node.broker.sources import Source

State = tuple[dict[int, Queue], list[int]]
"""Queues by uid, uids of expired queues."""


class Reader:
    """Takes the rows in the order of their keys."""

    def __init__(self) -> None:
        self._queues: dict[int, Queue] = {}
        self._expired: list[int] = []
        self._lines: list[tuple[Queue, int, list[Key]]] = []
        self._active: list[tuple[Queue, Key]] = []
        self._traits: dict[Traits, Traits] = {PLAIN: PLAIN}  # equal ones that do not expire are kept once

    def read(self, rows: Iterable[tuple[bytes, bytes]]) -> State:
        """Build the state from all rows; no rows give nothing. See `read`."""
        # In the order of the keys a queue comes before its runs and a consumer before what it holds.
        for number, (key, value) in enumerate(sorted(rows)):
            if not number:
                _check_version(key, value)
            elif key[:1] == b"X":
                self._expired.append(rows_.EXPIRED_KEY.unpack(key)[1])
            elif key[:1] == b"Q":
                self._read_queue_row(key, value)
            else:
                raise _not_ours(key)
        for queue, priority, members in self._lines:
            queue.service[priority] = deque(queue.consumers[member] for member in members)
            for consumer in queue.service[priority]:
                consumer.is_in_service = True
        for queue, active in self._active:
            queue.active = queue.consumers[active]
        for queue in self._queues.values():
            rows_.mark_saved(queue)
        return self._queues, self._expired

    def _read_queue_row(self, key: bytes, value: bytes) -> None:
        _, uid, section = rows_.QUEUE_KEY.unpack_from(key)
        if section == rows_.HEADER:
            self._read_header(uid, value)
            return
        queue = self._queues[uid]
        match section:
            case rows_.READY | rows_.RETURNED:
                self._read_lane(queue, section, key, value)
            case rows_.CONSUMER:
                _read_consumer(queue, key, value)
            case rows_.HELD:
                self._read_held(queue, key, value)
            case rows_.DELAYED:
                queue.delayed.add(rows_.DELAYED_KEY.unpack(key)[3], self._run(packed.RUN.unpack(value)))
                queue.is_timed = True
            case rows_.LETTER:
                reason, ts, *fields = rows_.LETTER_VALUE.unpack(value)
                letter = Letter(Reason(reason), ts, self._run(tuple(fields)))
                queue.letters.append((rows_.NUMBER_KEY.unpack(key)[3], letter))
            case rows_.DEDUP:
                queue.window.read_chunk(rows_.NUMBER_KEY.unpack(key)[3], value)
            case rows_.SOURCE:
                queue.sources[rows_.NUMBER_KEY.unpack(key)[3]] = _source(value)
            case _:
                raise _not_ours(key)

    def _read_header(self, uid: int, value: bytes) -> None:
        version, ever, next_letter, used_ts, origin, active, config_bytes, lanes, lines = (
            rows_.HEADER_VALUE.unpack_from(value)
        )
        if version != rows_.ROW_VERSION:
            msg = f"row of queue {uid} has version {version}, this is {rows_.ROW_VERSION}"
            raise ValueError(msg)
        at = rows_.HEADER_VALUE.size + config_bytes
        queue = Queue(uid, QueueConfig.decode(value[rows_.HEADER_VALUE.size : at]))
        self._queues[uid] = queue
        queue.attached_ever, queue.next_letter, queue.used_ts = ever, next_letter, used_ts
        if origin:
            self._active.append((queue, (origin, active)))
        for _ in range(lanes + 1):
            priority, head = rows_.LANE_HEAD.unpack_from(value, at)
            queue.lane(priority).head = head
            at += rows_.LANE_HEAD.size
        for _ in range(lines):
            priority, size = rows_.LINE.unpack_from(value, at)
            at += rows_.LINE.size
            stop = at + size * rows_.LINE_KEY.size
            self._lines.append((queue, priority, list(rows_.LINE_KEY.iter_unpack(value[at:stop]))))
            at = stop

    def _read_lane(self, queue: Queue, section: int, key: bytes, value: bytes) -> None:
        lane = queue.lane(rows_.LANE_KEY.unpack(key)[3])
        if section == rows_.READY and not lane.tail and packed.are_plain(value):
            lane.put_packed(value)
            queue.ready_count += packed.message_count(value)
            return
        runs = [self._run(fields) for fields in packed.RUN.iter_unpack(value)]
        if section == rows_.READY:
            lane.put_all(runs)
        else:
            lane.returned.extend(runs)
        for run in runs:
            queue.ready_count += run[3]
            queue.ready_bytes += run[3] * run[6][2]
            queue.is_timed = queue.is_timed or run[6][1] > 0

    def _read_held(self, queue: Queue, key: bytes, value: bytes) -> None:
        _, _, _, origin, number, chunk = rows_.HELD_KEY.unpack(key)
        consumer = queue.consumers[origin, number]
        held = [(fields[0], self._run(fields[1:])) for fields in rows_.HELD_VALUE.iter_unpack(value)]
        consumer.chunks[chunk] = held
        for _, run in held:
            consumer.unacked += run[3]
            queue.unacked_count += run[3]
            queue.is_timed = queue.is_timed or run[6][1] > 0

    def _run(self, fields: tuple[int, ...]) -> Run:
        traits = (fields[6], fields[7], fields[8])
        if not traits[1]:
            traits = self._traits.setdefault(traits, traits)
        return (fields[0], fields[1], fields[2], fields[3], fields[4], fields[5], traits)


def read(rows: Iterable[tuple[bytes, bytes]]) -> State:
    """Build the state from all rows; no rows give nothing.

    Raises:
        ValueError: a row of another version or that is none of ours.
    """
    return Reader().read(rows)


def _check_version(key: bytes, value: bytes) -> None:
    if key != rows_.VERSION_KEY or value != bytes((rows_.ROW_VERSION,)):
        msg = f"rows of a queue machine of version {value!r}, this is {rows_.ROW_VERSION}"
        raise ValueError(msg)


def _not_ours(key: bytes) -> ValueError:
    return ValueError(f"row {key!r} is not of a queue machine")


def _source(value: bytes) -> Source:
    low, count = rows_.RANGE.unpack_from(value)
    pairs = [rows_.RANGE.unpack_from(value, rows_.RANGE.size * (number + 1)) for number in range(count)]
    return Source(low, [(first, last) for first, last in pairs])


def _read_consumer(queue: Queue, key: bytes, value: bytes) -> None:
    _, _, _, origin, number = rows_.CONSUMER_KEY.unpack(key)
    session, window, flags, priority, next_id, timeout_ms, order = rows_.CONSUMER_VALUE.unpack_from(value)
    consumer = Consumer(
        (origin, number),
        (origin, session),
        window,
        attached=bool(flags & 1),
        no_ack=bool(flags & 2),
        exclusive=bool(flags & 4),
        priority=priority,
        timeout_ms=timeout_ms,
        number=order,
        next_id=next_id,
    )
    consumer.given.extend(
        (first_id, ts) for first_id, ts in rows_.GIVEN.iter_unpack(value[rows_.CONSUMER_VALUE.size :])
    )
    queue.consumers[consumer.key] = consumer
    queue.attached_count += consumer.attached
    if timeout_ms:
        queue.is_timed = queue.has_timeouts = True
