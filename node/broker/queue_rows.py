"""The rows in which the store keeps the state of the queue machine, and which of them have changed.

Rows are canonical: the same state gives the same rows, whatever happened before. Keys, all big-endian:

    0                                        version of the layout
    X uid                                    an expired queue
    Q uid 0                                  queue: version, head position, config, consumers in line
    Q uid 1 chunk u64                        ready runs at positions chunk * 256 ...
    Q uid 2 chunk u64                        returned runs, newest first
    Q uid 3 origin u16 consumer u64          a consumer
    Q uid 4 origin u16 consumer u64 chunk    what it holds: delivery ids chunk * 1024 ...

A long queue that moves writes its header, the chunk at its head and the chunks at its tail; those between
stay. Counters, `live` and the sessions follow from the rows and are not saved.
"""

import struct
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice

from cluster.machine import Row
from node.broker.commands import QueueConfig
from node.broker.queue_state import Consumer, Held, Key, Queue, Run, Saved

ROW_VERSION = 1
CHUNK_SHIFT = 8
"""A chunk has 2 ** CHUNK_SHIFT runs (6 KiB): a moving queue rewrites its head at each checkpoint, so few."""

_VERSION_KEY = b"0"  # the first of all keys
_HEADER, _READY, _RETURNED, _CONSUMER, _HELD = range(5)
_EXPIRED_KEY = struct.Struct(">cQ")
_QUEUE_KEY = struct.Struct(">cQB")
_CHUNK_KEY = struct.Struct(">cQBQ")
_CONSUMER_KEY = struct.Struct(">cQBHQ")
_HELD_KEY = struct.Struct(">cQBHQQ")
_HEADER_VALUE = struct.Struct(">BQII")  # version, head position, bytes of config, lines of service
_LINE = struct.Struct(">iI")  # priority, consumers
_LINE_KEY = struct.Struct(">HQ")
_CONSUMER_VALUE = struct.Struct(">QQBiQ")  # session, window, flags, priority, next id
_RUN_VALUE = struct.Struct(">QIIIHH")
_HELD_VALUE = struct.Struct(">QQIIIHH")


class Changes:
    """What differs from the rows in the store. Of single queues, `Queue.saved` and its neighbours know."""

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

    def changed_rows(self, queues: dict[int, Queue], expired: dict[int, None]) -> list[Row]:
        """Return the rows that differ from the store, which is taken to have them from now on."""
        # A uid that was dropped and created again writes over its own deletions: one row a key.
        rows: dict[bytes, bytes | None] = dict.fromkeys(self._gone)
        if not self._is_started:
            rows[_VERSION_KEY] = bytes((ROW_VERSION,))
        for uid in self._expired:
            rows[_EXPIRED_KEY.pack(b"X", uid)] = b"" if uid in expired else None
        for uid in self._touched:
            _queue_changes(queues[uid], rows)
        self._reset()
        return list(rows.items())

    def all_rows(self, queues: dict[int, Queue], expired: dict[int, None]) -> list[tuple[bytes, bytes]]:
        """Return all rows in the order of their keys; the store is taken to have just these from now on."""
        rows = _all_rows(queues, expired)
        for queue in queues.values():
            _mark_saved(queue)
        self._reset()
        return rows

    def _reset(self) -> None:
        self._is_started = True
        self._touched, self._expired, self._gone = {}, {}, {}


def state_bytes(queues: dict[int, Queue], expired: dict[int, None]) -> bytes:
    """Return all rows as one string, each part with its length before it."""
    parts: list[bytes] = []
    for row in _all_rows(queues, expired):
        for part in row:
            parts.append(len(part).to_bytes(4, "big"))
            parts.append(part)
    return b"".join(parts)


def references(queues: Iterable[Queue]) -> Iterator[tuple[int, int]]:
    """Yield (log index, messages) for each run that a queue has ready or a consumer holds."""
    for queue in queues:
        for run in queue.ready:
            yield run[0], run[3]
        for run in queue.returned:
            yield run[0], run[3]
        for consumer in queue.consumers.values():
            for chunk in consumer.chunks.values():
                for _, run in chunk:
                    yield run[0], run[3]


# --- writing -----------------------------------------------------------------------------------------


def _all_rows(queues: dict[int, Queue], expired: dict[int, None]) -> list[tuple[bytes, bytes]]:
    rows = [(_VERSION_KEY, bytes((ROW_VERSION,)))]
    rows += [(_EXPIRED_KEY.pack(b"X", uid), b"") for uid in expired]
    for queue in queues.values():
        uid = queue.uid
        rows.append((_QUEUE_KEY.pack(b"Q", uid, _HEADER), _header_value(queue)))
        rows += _ready_rows(uid, list(queue.ready), queue.head)
        rows += _returned_rows(queue, 0)
        for key, consumer in queue.consumers.items():
            rows.append((_CONSUMER_KEY.pack(b"Q", uid, _CONSUMER, *key), _consumer_value(consumer)))
            for number, chunk in consumer.chunks.items():
                rows.append((_HELD_KEY.pack(b"Q", uid, _HELD, *key, number), _held_value(chunk)))
    rows.sort()
    return rows


def _queue_changes(queue: Queue, rows: dict[bytes, bytes | None]) -> None:
    rows[_QUEUE_KEY.pack(b"Q", queue.uid, _HEADER)] = _header_value(queue)
    _ready_changes(queue, rows)
    saved_rows = _chunks(queue.saved.returned)
    for number in range(_chunks(len(queue.returned)), saved_rows):
        rows[_CHUNK_KEY.pack(b"Q", queue.uid, _RETURNED, number)] = None
    if queue.returned_kept < max(queue.saved.returned, len(queue.returned)):
        rows.update(_returned_rows(queue, queue.returned_kept >> CHUNK_SHIFT))
    for key in queue.dirty_consumers:
        _consumer_changes(queue, key, rows)
    _mark_saved_runs(queue)


def _ready_changes(queue: Queue, rows: dict[bytes, bytes | None]) -> None:
    saved, uid, head = queue.saved, queue.uid, queue.head
    low, high = _ready_chunks(queue)
    for number in range(saved.ready_low, saved.ready_high):
        if not low <= number < high:
            rows[_CHUNK_KEY.pack(b"Q", uid, _READY, number)] = None
    if low == high:
        return
    tail = head + len(queue.ready)
    first_new = max(low, saved.tail >> CHUNK_SHIFT) if tail > saved.tail else high
    if first_new < high:
        start = max(head, first_new << CHUNK_SHIFT)
        runs = list(islice(reversed(queue.ready), tail - start))
        runs.reverse()
        rows.update(_ready_rows(uid, runs, start))
    if queue.is_head_taken and low < first_new:
        size = ((low + 1) << CHUNK_SHIFT) - head
        rows.update(_ready_rows(uid, list(islice(queue.ready, size)), head))


def _consumer_changes(queue: Queue, key: Key, rows: dict[bytes, bytes | None]) -> None:
    consumer = queue.consumers.get(key)
    chunks = consumer.chunks if consumer is not None else {}
    saved = queue.saved.consumers.get(key)
    for number in saved or ():
        if number not in chunks:
            rows[_HELD_KEY.pack(b"Q", queue.uid, _HELD, *key, number)] = None
    if consumer is not None:
        rows[_CONSUMER_KEY.pack(b"Q", queue.uid, _CONSUMER, *key)] = _consumer_value(consumer)
        for number in consumer.dirty_chunks:
            if number in chunks:
                rows[_HELD_KEY.pack(b"Q", queue.uid, _HELD, *key, number)] = _held_value(chunks[number])
        consumer.dirty_chunks = {}
        queue.saved.consumers[key] = dict.fromkeys(chunks)
    elif saved is not None:
        rows[_CONSUMER_KEY.pack(b"Q", queue.uid, _CONSUMER, *key)] = None
        del queue.saved.consumers[key]


def _ready_rows(uid: int, runs: list[Run], position: int) -> list[tuple[bytes, bytes]]:
    """Rows of the runs from `position` on; both ends of the list must be those of a chunk or of the queue."""
    rows = []
    start = 0
    while start < len(runs):
        number = (position + start) >> CHUNK_SHIFT
        stop = ((number + 1) << CHUNK_SHIFT) - position
        rows.append((_CHUNK_KEY.pack(b"Q", uid, _READY, number), _runs_value(runs[start:stop])))
        start = stop
    return rows


def _returned_rows(queue: Queue, first: int) -> list[tuple[bytes, bytes]]:
    returned, size = queue.returned, 1 << CHUNK_SHIFT
    return [
        (
            _CHUNK_KEY.pack(b"Q", queue.uid, _RETURNED, number),
            _runs_value(returned[number * size : number * size + size]),
        )
        for number in range(first, _chunks(len(returned)))
    ]


def _header_value(queue: Queue) -> bytes:
    config = queue.config.encode()
    parts = [_HEADER_VALUE.pack(ROW_VERSION, queue.head, len(config), len(queue.service)), config]
    for priority in sorted(queue.service, reverse=True):
        line = queue.service[priority]
        parts.append(_LINE.pack(priority, len(line)))
        parts += [_LINE_KEY.pack(*consumer.key) for consumer in line]
    return b"".join(parts)


def _consumer_value(consumer: Consumer) -> bytes:
    flags = consumer.attached | consumer.no_ack << 1 | consumer.exclusive << 2
    return _CONSUMER_VALUE.pack(
        consumer.session[1], consumer.window, flags, consumer.priority, consumer.next_id
    )


def _runs_value(runs: list[Run]) -> bytes:
    pack = _RUN_VALUE.pack
    return b"".join([pack(*run) for run in runs])


def _held_value(chunk: list[Held]) -> bytes:
    pack = _HELD_VALUE.pack
    return b"".join([pack(first_id, *run) for first_id, run in chunk])


# --- what the store has ------------------------------------------------------------------------------


def _chunks(runs: int) -> int:
    return (runs + (1 << CHUNK_SHIFT) - 1) >> CHUNK_SHIFT


def _ready_chunks(queue: Queue) -> tuple[int, int]:
    if not queue.ready:
        return 0, 0
    return queue.head >> CHUNK_SHIFT, _chunks(queue.head + len(queue.ready))


def _mark_saved_runs(queue: Queue) -> None:
    saved = queue.saved
    saved.ready_low, saved.ready_high = _ready_chunks(queue)
    saved.tail = queue.head + len(queue.ready)
    saved.returned = queue.returned_kept = len(queue.returned)
    queue.is_head_taken = False
    queue.dirty_consumers = {}


def _mark_saved(queue: Queue) -> None:
    queue.saved = Saved()
    for key, consumer in queue.consumers.items():
        consumer.dirty_chunks = {}
        queue.saved.consumers[key] = dict.fromkeys(consumer.chunks)
    _mark_saved_runs(queue)


def _saved_keys(queue: Queue) -> Iterator[bytes]:
    uid, saved = queue.uid, queue.saved
    yield _QUEUE_KEY.pack(b"Q", uid, _HEADER)
    for number in range(saved.ready_low, saved.ready_high):
        yield _CHUNK_KEY.pack(b"Q", uid, _READY, number)
    for number in range(_chunks(saved.returned)):
        yield _CHUNK_KEY.pack(b"Q", uid, _RETURNED, number)
    for key, chunks in saved.consumers.items():
        yield _CONSUMER_KEY.pack(b"Q", uid, _CONSUMER, *key)
        for number in chunks:
            yield _HELD_KEY.pack(b"Q", uid, _HELD, *key, number)


# --- reading -----------------------------------------------------------------------------------------


def read(rows: Iterable[tuple[bytes, bytes]]) -> tuple[dict[int, Queue], list[int]]:
    """Build the queues and the uids of expired ones from all rows; no rows give nothing.

    Raises:
        ValueError: a row of another version or that is none of ours.
    """
    queues: dict[int, Queue] = {}
    expired: list[int] = []
    lines: list[tuple[Queue, int, list[Key]]] = []
    # In the order of the keys a queue comes before its runs and a consumer before what it holds.
    for number, (key, value) in enumerate(sorted(rows)):
        if not number:
            _check_version(key, value)
        elif key[:1] == b"X":
            expired.append(_EXPIRED_KEY.unpack(key)[1])
        elif key[:1] == b"Q":
            _read_queue_row(queues, lines, key, value)
        else:
            msg = f"row {key!r} is not of a queue machine"
            raise ValueError(msg)
    for queue, priority, members in lines:
        queue.service[priority] = deque(queue.consumers[member] for member in members)
        for consumer in queue.service[priority]:
            consumer.is_in_service = True
    for queue in queues.values():
        _mark_saved(queue)
    return queues, expired


def _check_version(key: bytes, value: bytes) -> None:
    if key != _VERSION_KEY or value != bytes((ROW_VERSION,)):
        msg = f"rows of a queue machine of version {value!r}, this is {ROW_VERSION}"
        raise ValueError(msg)


def _read_queue_row(
    queues: dict[int, Queue], lines: list[tuple[Queue, int, list[Key]]], key: bytes, value: bytes
) -> None:
    _, uid, section = _QUEUE_KEY.unpack_from(key)
    if section == _HEADER:
        queues[uid] = _read_header(uid, value, lines)
        return
    queue = queues[uid]
    if section in (_READY, _RETURNED):
        runs: list[Run] = list(_RUN_VALUE.iter_unpack(value))
        (queue.ready if section == _READY else queue.returned).extend(runs)
        queue.ready_count += sum([run[3] for run in runs])
    elif section == _CONSUMER:
        consumer = _read_consumer(key, value)
        queue.consumers[consumer.key] = consumer
        queue.attached_count += consumer.attached
    elif section == _HELD:
        _, _, _, origin, number, chunk = _HELD_KEY.unpack(key)
        consumer = queue.consumers[origin, number]
        held = consumer.chunks[chunk] = [(row[0], row[1:]) for row in _HELD_VALUE.iter_unpack(value)]
        count = sum([run[3] for _, run in held])
        consumer.unacked += count
        queue.unacked_count += count
    else:
        msg = f"row {key!r} is not of a queue machine"
        raise ValueError(msg)


def _read_header(uid: int, value: bytes, lines: list[tuple[Queue, int, list[Key]]]) -> Queue:
    version, head, config_bytes, line_count = _HEADER_VALUE.unpack_from(value)
    if version != ROW_VERSION:
        msg = f"row of queue {uid} has version {version}, this is {ROW_VERSION}"
        raise ValueError(msg)
    offset = _HEADER_VALUE.size + config_bytes
    queue = Queue(uid, QueueConfig.decode(value[_HEADER_VALUE.size : offset]), head=head)
    for _ in range(line_count):
        priority, size = _LINE.unpack_from(value, offset)
        offset += _LINE.size
        stop = offset + size * _LINE_KEY.size
        members: list[Key] = list(_LINE_KEY.iter_unpack(value[offset:stop]))
        lines.append((queue, priority, members))
        offset = stop
    return queue


def _read_consumer(key: bytes, value: bytes) -> Consumer:
    _, _, _, origin, number = _CONSUMER_KEY.unpack(key)
    session, window, flags, priority, next_id = _CONSUMER_VALUE.unpack(value)
    return Consumer(
        (origin, number),
        (origin, session),
        window,
        attached=bool(flags & 1),
        no_ack=bool(flags & 2),
        exclusive=bool(flags & 4),
        priority=priority,
        next_id=next_id,
    )
