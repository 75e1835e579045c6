"""The rows in which the store keeps the state of the queue machine, and which of them have changed.

Rows are canonical: the same state gives the same rows, whatever happened before. Keys, all big-endian:

    0                                        version of the layout
    X uid                                    an expired queue
    Q uid 0                                  queue: version, numbers, config, lanes, consumers in line
    Q uid 1 priority u8 chunk u64            ready runs at positions chunk * 256 ...
    Q uid 2 priority u8 chunk u64            returned runs, newest first
    Q uid 3 origin u16 consumer u64          a consumer
    Q uid 4 origin u16 consumer u64 chunk    what it holds: delivery ids chunk * 1024 ...
    Q uid 5 due u64 index u64 offset first   a delayed run
    Q uid 6 number u64                       dead letters that wait to be forwarded
    Q uid 7 chunk u64                        deduplication ids at positions chunk * 256 ...
    Q uid 8 source u64                       which dead letters of another queue came here

A long queue that moves writes its header, the chunk at its head and the chunks at its tail; those between
stay. Counters, `live`, timers and the sessions follow from the rows and are not saved. `queue_rows_read` reads them.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

from cluster.machine import Row
from node.broker.consumer import Consumer, Held, Key
from node.broker.lane import Lane, SavedLane
from node.broker.packed import pack
from node.broker.queue_state import DelayedKey, Letter, Queue
from node.broker.runs import Run, add_to_live
from node.broker.sources import Source

ROW_VERSION = 2
CHUNK_SHIFT = 8
"""A chunk has 2 ** CHUNK_SHIFT runs (10 KiB): a moving queue rewrites its head at each checkpoint, so few."""

VERSION_KEY = b"0"  # the first of all keys
HEADER, READY, RETURNED, CONSUMER, HELD, DELAYED, LETTER, DEDUP, SOURCE = range(9)
EXPIRED_KEY = struct.Struct(">cQ")
QUEUE_KEY = struct.Struct(">cQB")
LANE_KEY = struct.Struct(">cQBBQ")
NUMBER_KEY = struct.Struct(">cQBQ")  # of a letter, a chunk of deduplication ids, a source
CONSUMER_KEY = struct.Struct(">cQBHQ")
HELD_KEY = struct.Struct(">cQBHQQ")
DELAYED_KEY = struct.Struct(">cQBQQII")
HEADER_VALUE = struct.Struct(">BQQQHQIBI")
"""Version, consumers ever attached, next letter, used, active consumer's origin and id, bytes of config, lanes,
lines of service."""
LANE_HEAD = struct.Struct(">BQ")  # priority, head position
LINE = struct.Struct(">iI")  # priority, consumers
LINE_KEY = struct.Struct(">HQ")
CONSUMER_VALUE = struct.Struct(">QQBiQQQ")  # session, window, flags, priority, next id, timeout, number
GIVEN = struct.Struct(">QQ")
HELD_VALUE = struct.Struct(">QQIIIHHBQI")
LETTER_VALUE = struct.Struct(">BQQIIIHHBQI")
RANGE = struct.Struct(">QQ")

Rows = dict[bytes, bytes | None]


class Changes:
    """What differs from the rows in the store. Of single queues, they themselves know."""

    def __init__(self, *, is_started: bool = False) -> None:
        self._is_started = is_started  # the version row is in the store
        self._touched: dict[int, None] = {}
        self._expired: dict[int, None] = {}
        self._gone: dict[bytes, None] = {}

    def touch(self, uid: int) -> None:
        """Note a change in a queue."""
        self._touched[uid] = None

    def expire(self, uid: int) -> None:
        """Note that a queue became expired, or is no longer."""
        self._expired[uid] = None

    def drop(self, queue: Queue) -> None:
        """Note that a queue is gone, with all its rows."""
        self._gone.update(dict.fromkeys(_saved_keys(queue)))
        self._touched.pop(queue.uid, None)

    def changed_rows(self, queues: Mapping[int, Queue], expired: Mapping[int, None]) -> list[Row]:
        """Return the rows that differ from the store, which is taken to have them from now on."""
        # A uid that was dropped and created again writes over its own deletions: one row a key.
        rows: Rows = dict.fromkeys(self._gone)
        if not self._is_started:
            rows[VERSION_KEY] = bytes((ROW_VERSION,))
        for uid in self._expired:
            rows[EXPIRED_KEY.pack(b"X", uid)] = b"" if uid in expired else None
        for uid in self._touched:
            _queue_changes(queues[uid], rows)
        self._reset()
        return list(rows.items())

    def all_rows(self, queues: Mapping[int, Queue], expired: Mapping[int, None]) -> list[tuple[bytes, bytes]]:
        """Return all rows in the order of their keys; the store is taken to have just these from now on."""
        rows = _all_rows(queues, expired)
        for queue in queues.values():
            mark_saved(queue)
        self._reset()
        return rows

    def _reset(self) -> None:
        self._is_started = True
        self._touched, self._expired, self._gone = {}, {}, {}


def state_bytes(queues: Mapping[int, Queue], expired: Mapping[int, None]) -> bytes:
    """Return all rows as one string, each part with its length before it."""
    parts: list[bytes] = []
    for row in _all_rows(queues, expired):
        for part in row:
            parts.append(len(part).to_bytes(4, "big"))
            parts.append(part)
    return b"".join(parts)


def live_counts(queues: Iterable[Queue]) -> dict[int, int]:
    """Return the messages that queues keep alive, by log index."""
    live: dict[int, int] = {}
    for queue in queues:
        for lane in queue.lanes.values():
            lane.add_to_live(live)
        add_to_live(live, [run for _, run in queue.delayed])
        add_to_live(live, [letter.run for _, letter in queue.letters])
        for consumer in queue.consumers.values():
            for chunk in consumer.chunks.values():
                add_to_live(live, [run for _, run in chunk])
    return live


# --- all rows ----------------------------------------------------------------------------------------


def _all_rows(queues: Mapping[int, Queue], expired: Mapping[int, None]) -> list[tuple[bytes, bytes]]:
    rows = [(VERSION_KEY, bytes((ROW_VERSION,)))]
    rows += [(EXPIRED_KEY.pack(b"X", uid), b"") for uid in expired]
    for queue in queues.values():
        rows += _rows_of(queue)
    rows.sort()
    return rows


def _rows_of(queue: Queue) -> Iterator[tuple[bytes, bytes]]:
    uid = queue.uid
    yield QUEUE_KEY.pack(b"Q", uid, HEADER), _header_value(queue)
    for lane in queue.lanes.values():
        yield from _ready_rows(uid, lane.priority, list(lane.runs()), lane.head)
        yield from _returned_rows(uid, lane, 0)
    for key, consumer in queue.consumers.items():
        yield CONSUMER_KEY.pack(b"Q", uid, CONSUMER, *key), _consumer_value(consumer)
        for number, chunk in consumer.chunks.items():
            yield HELD_KEY.pack(b"Q", uid, HELD, *key, number), _held_value(chunk)
    for due, run in queue.delayed:
        yield DELAYED_KEY.pack(b"Q", uid, DELAYED, due, *run[:3]), pack((run,))
    for first, letter in queue.letters:
        yield NUMBER_KEY.pack(b"Q", uid, LETTER, first), _letter_value(letter)
    for number in range(*queue.window.chunk_range()):
        yield NUMBER_KEY.pack(b"Q", uid, DEDUP, number), queue.window.chunk(number)
    for source_uid, source in queue.sources.items():
        yield NUMBER_KEY.pack(b"Q", uid, SOURCE, source_uid), _source_value(source)


# --- changed rows ------------------------------------------------------------------------------------


def _queue_changes(queue: Queue, rows: Rows) -> None:
    uid = queue.uid
    rows[QUEUE_KEY.pack(b"Q", uid, HEADER)] = _header_value(queue)
    for lane in queue.lanes.values():
        _lane_changes(uid, lane, rows)
    for key in queue.dirty_consumers:
        _consumer_changes(queue, key, rows)
    for delayed_key, run in queue.dirty_delayed.items():
        rows[DELAYED_KEY.pack(b"Q", uid, DELAYED, *delayed_key)] = pack((run,)) if run else None
    for first, letter in queue.dirty_letters.items():
        rows[NUMBER_KEY.pack(b"Q", uid, LETTER, first)] = _letter_value(letter) if letter else None
    for source_uid in queue.dirty_sources:
        source = queue.sources.get(source_uid)
        rows[NUMBER_KEY.pack(b"Q", uid, SOURCE, source_uid)] = _source_value(source) if source else None
    _dedup_changes(queue, rows)
    _mark_saved_parts(queue)


def _lane_changes(uid: int, lane: Lane, rows: Rows) -> None:
    _ready_changes(uid, lane, rows)
    saved_rows = _chunks(lane.saved.returned)
    for number in range(_chunks(len(lane.returned)), saved_rows):
        rows[LANE_KEY.pack(b"Q", uid, RETURNED, lane.priority, number)] = None
    if lane.returned_kept < max(lane.saved.returned, len(lane.returned)):
        rows.update(_returned_rows(uid, lane, lane.returned_kept >> CHUNK_SHIFT))


def _ready_changes(uid: int, lane: Lane, rows: Rows) -> None:
    saved, head, priority = lane.saved, lane.head, lane.priority
    low, high = _ready_chunks(lane)
    for number in range(saved.ready_low, saved.ready_high):
        if not low <= number < high:
            rows[LANE_KEY.pack(b"Q", uid, READY, priority, number)] = None
    if low == high:
        return
    tail = lane.end
    first_new = max(low, saved.tail >> CHUNK_SHIFT) if tail > saved.tail else high
    if first_new < high:
        start = max(head, first_new << CHUNK_SHIFT)
        rows.update(_ready_rows(uid, priority, lane.last_runs(tail - start), start))
    if lane.is_head_taken and low < first_new:
        size = ((low + 1) << CHUNK_SHIFT) - head
        rows.update(_ready_rows(uid, priority, list(islice(lane.runs(), size)), head))


def _consumer_changes(queue: Queue, key: Key, rows: Rows) -> None:
    consumer = queue.consumers.get(key)
    chunks = consumer.chunks if consumer is not None else {}
    saved = queue.saved_consumers.get(key)
    for number in saved or ():
        if number not in chunks:
            rows[HELD_KEY.pack(b"Q", queue.uid, HELD, *key, number)] = None
    if consumer is not None:
        rows[CONSUMER_KEY.pack(b"Q", queue.uid, CONSUMER, *key)] = _consumer_value(consumer)
        for number in consumer.dirty_chunks:
            if number in chunks:
                rows[HELD_KEY.pack(b"Q", queue.uid, HELD, *key, number)] = _held_value(chunks[number])
        consumer.dirty_chunks = {}
        queue.saved_consumers[key] = dict.fromkeys(chunks)
    elif saved is not None:
        rows[CONSUMER_KEY.pack(b"Q", queue.uid, CONSUMER, *key)] = None
        del queue.saved_consumers[key]


def _dedup_changes(queue: Queue, rows: Rows) -> None:
    window = queue.window
    if window.tail == window.saved_tail:
        return
    low, high = window.chunk_range()
    for number in range(window.saved_low, min(window.saved_high, low)):
        rows[NUMBER_KEY.pack(b"Q", queue.uid, DEDUP, number)] = None
    for number in range(max(low, window.saved_high - 1), high):
        rows[NUMBER_KEY.pack(b"Q", queue.uid, DEDUP, number)] = window.chunk(number)


# --- values ------------------------------------------------------------------------------------------


def _header_value(queue: Queue) -> bytes:
    config = queue.config.encode()
    active = queue.active.key if queue.active is not None else (0, 0)
    parts = [
        HEADER_VALUE.pack(
            ROW_VERSION,
            queue.attached_ever,
            queue.next_letter,
            queue.used_ts,
            *active,
            len(config),
            len(queue.lanes) - 1,
            len(queue.service),
        ),
        config,
    ]
    parts += [LANE_HEAD.pack(lane.priority, lane.head) for lane in queue.in_order]
    for priority in sorted(queue.service, reverse=True):
        line = queue.service[priority]
        parts.append(LINE.pack(priority, len(line)))
        parts += [LINE_KEY.pack(*consumer.key) for consumer in line]
    return b"".join(parts)


def _ready_rows(uid: int, priority: int, runs: list[Run], position: int) -> list[tuple[bytes, bytes]]:
    """Rows of the runs from `position` on; both ends of the list must be those of a chunk or of the lane."""
    rows = []
    start = 0
    while start < len(runs):
        number = (position + start) >> CHUNK_SHIFT
        stop = ((number + 1) << CHUNK_SHIFT) - position
        rows.append((LANE_KEY.pack(b"Q", uid, READY, priority, number), pack(runs[start:stop])))
        start = stop
    return rows


def _returned_rows(uid: int, lane: Lane, first: int) -> list[tuple[bytes, bytes]]:
    returned, size = lane.returned, 1 << CHUNK_SHIFT
    return [
        (
            LANE_KEY.pack(b"Q", uid, RETURNED, lane.priority, number),
            pack(returned[number * size : number * size + size]),
        )
        for number in range(first, _chunks(len(returned)))
    ]


def _consumer_value(consumer: Consumer) -> bytes:
    flags = consumer.attached | consumer.no_ack << 1 | consumer.exclusive << 2
    head = CONSUMER_VALUE.pack(
        consumer.session[1],
        consumer.window,
        flags,
        consumer.priority,
        consumer.next_id,
        consumer.timeout_ms,
        consumer.number,
    )
    consumer.deadline()  # forgets what it no longer holds, so that equal states give equal rows
    return head + b"".join([GIVEN.pack(*mark) for mark in consumer.given])


def _held_value(chunk: list[Held]) -> bytes:
    pack_one = HELD_VALUE.pack
    return b"".join([pack_one(first_id, *run[:6], *run[6]) for first_id, run in chunk])


def _letter_value(letter: Letter) -> bytes:
    return LETTER_VALUE.pack(letter.reason, letter.ts, *letter.run[:6], *letter.run[6])


def _source_value(source: Source) -> bytes:
    return b"".join(
        [RANGE.pack(source.low, len(source.taken)), *[RANGE.pack(*pair) for pair in source.taken]]
    )


# --- what the store has ------------------------------------------------------------------------------


def _chunks(runs: int) -> int:
    return (runs + (1 << CHUNK_SHIFT) - 1) >> CHUNK_SHIFT


def _ready_chunks(lane: Lane) -> tuple[int, int]:
    end = lane.end
    return (lane.head >> CHUNK_SHIFT, _chunks(end)) if end > lane.head else (0, 0)


def _mark_saved_parts(queue: Queue) -> None:
    for lane in queue.lanes.values():
        saved = lane.saved
        saved.ready_low, saved.ready_high = _ready_chunks(lane)
        saved.tail = lane.end
        saved.returned = lane.returned_kept = len(lane.returned)
        lane.is_head_taken = False
    queue.window.mark_saved()
    queue.dirty_consumers, queue.dirty_letters, queue.dirty_delayed, queue.dirty_sources = {}, {}, {}, {}


def mark_saved(queue: Queue) -> None:
    """The store has this queue as it is, and nothing else of it."""
    queue.saved_consumers = {}
    for key, consumer in queue.consumers.items():
        consumer.dirty_chunks = {}
        queue.saved_consumers[key] = dict.fromkeys(consumer.chunks)
    for lane in queue.lanes.values():
        lane.saved = SavedLane()
    _mark_saved_parts(queue)


def _saved_keys(queue: Queue) -> Iterator[bytes]:
    """Yield the keys of all rows that the store may have of a queue."""
    uid = queue.uid
    yield QUEUE_KEY.pack(b"Q", uid, HEADER)
    for lane in queue.lanes.values():
        for number in range(lane.saved.ready_low, lane.saved.ready_high):
            yield LANE_KEY.pack(b"Q", uid, READY, lane.priority, number)
        for number in range(_chunks(lane.saved.returned)):
            yield LANE_KEY.pack(b"Q", uid, RETURNED, lane.priority, number)
    for key, chunks in queue.saved_consumers.items():
        yield CONSUMER_KEY.pack(b"Q", uid, CONSUMER, *key)
        for number in chunks:
            yield HELD_KEY.pack(b"Q", uid, HELD, *key, number)
    delayed: dict[DelayedKey, None] = {(due, *run[:3]): None for due, run in queue.delayed}
    for delayed_key in {**delayed, **queue.dirty_delayed}:
        yield DELAYED_KEY.pack(b"Q", uid, DELAYED, *delayed_key)
    for first in {**dict(queue.letters), **queue.dirty_letters}:
        yield NUMBER_KEY.pack(b"Q", uid, LETTER, first)
    for source_uid in {**queue.sources, **queue.dirty_sources}:
        yield NUMBER_KEY.pack(b"Q", uid, SOURCE, source_uid)
    for number in range(queue.window.saved_low, queue.window.saved_high):
        yield NUMBER_KEY.pack(b"Q", uid, DEDUP, number)
