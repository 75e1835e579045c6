"""Dead letters on their way: from the queue that gave them up to the queues that its dead letter exchange leads to.

The leader of a queue's group reads its letters from the machine, routes them by this node's topology and submits them
to the groups of their queues, numbered. When all have taken them it tells the queue so (`letters_done`). After a change
of leader, or when a stream begins anew, all that the queue still has is sent again: the number makes each come once.
"""

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from cluster.types import METADATA_GROUP
from node.broker import commands, commands_read
from node.broker.commands import Options
from node.broker.death import buried, is_cycle, routing_keys_of
from node.broker.effects import Refused
from node.broker.message import Opened
from node.session.plans import Plans
from node.session.rules import ensure
from node.wire import codec
from node.wire.records import Record, joined_record, pack_record, parts_of, read_record

if TYPE_CHECKING:
    from node.broker.queue_state import Letter, Reason
    from node.broker.records import QueueRecord
    from node.session.plans import Plan
    from node.session.shared import Shared

OPEN_MAX = 512
"""Letters of a queue that may be under way; what the groups that take them must remember."""
OPEN_BYTES_MAX = 4 << 20
"""Bytes of the letters of a queue that may be under way; one more letter is always sent."""
RETRY_MS = 1000
"""How long a letter waits that must not get lost and that no queue takes now."""


KEPT_MAX = 1024
"""Kinds of messages of which a queue's outlet remembers what becomes of them: most look alike."""


class Prepared(NamedTuple):
    """What becomes of messages that are alike but for their bodies.

    Args:
        plan: where they go, perhaps nowhere.
        priority: theirs.
        head: exchange and routing key by which they go, as in a record.
        properties: what they say then, encoded.
        is_lasting: False: the next one may go another way.
    """

    plan: "Plan"
    priority: int
    head: bytes
    properties: bytes
    is_lasting: bool


class Parcel:
    """Consecutive letters that go the same way. Waits for the groups that take them."""

    session = None

    def __init__(self, outlet: "Outlet", first: int, plan: "Plan", priority: int) -> None:
        self.outlet = outlet
        self.first = self.last = first
        self.plan = plan
        self.priority = priority
        self.packed: list[bytes] = []
        self.size_bytes = 0
        self.awaited = 0
        self.is_refused = False
        self.is_void = False  # True: its letters are sent again, whatever becomes of it

    def add(self, packed: bytes) -> None:
        """One more letter."""
        self.last = self.first + len(self.packed)
        self.packed.append(packed)
        self.size_bytes += len(packed)

    def answered(self, value: object) -> None:
        """A group has taken them, or a full queue has not."""
        self.awaited -= 1
        self.is_refused = self.is_refused or isinstance(value, Refused)
        if not self.awaited and not self.is_void:
            self.outlet.settle()

    def expired(self) -> None:
        """Letters have no deadline."""
        raise AssertionError

    def abandoned(self) -> None:
        """The stream to a group began anew: send again what the queue has."""
        if not self.is_void:
            self.outlet.begin_anew()


class Doubt:
    """Waits until the topology of this node is no older than the letters for which it knows no queue."""

    session = None

    def __init__(self, outlet: "Outlet", last: int) -> None:
        self._outlet = outlet
        self._last = last

    def answered(self, _value: object) -> None:
        """It is."""
        self._outlet.is_current(self._last)

    def expired(self) -> None:
        """To drop a letter because the cluster is slow would be wrong."""
        raise AssertionError

    def abandoned(self) -> None:
        """Ask again."""
        self._outlet.is_current(0)


class Outlet:
    """The letters of one queue of which this node leads the group."""

    def __init__(self, shared: "Shared", group: int, uid: int) -> None:
        self._shared = shared
        self._group = group
        self._uid = uid
        self._sent = 0  # number of the last letter that is under way or done
        self._open: deque[Parcel] = deque()
        self._open_bytes = 0
        self._current = 0  # letters up to this number are no younger than the topology of this node
        self._is_asking = False  # whether it is current
        self._retry_ms = 0
        self._plans = Plans()
        self._version = -1
        self._kept: dict[tuple[bytes, bytes, Reason, int, bool], Prepared] = {}

    def begin_anew(self) -> None:
        """Forget what is under way: it is sent again, and counts once."""
        for parcel in self._open:
            parcel.is_void = True
        self._open.clear()
        self._open_bytes = self._sent = 0

    def forward(self, letters: "Iterable[tuple[int, Letter]]") -> None:
        """Send what is not under way, as far as the bounds allow."""
        node = self._shared.node
        if node.now_ms() < self._retry_ms:
            return
        record = node.topology.queue_by_uid(self._uid)
        low = 0
        for first, letter in letters:
            low = low or first
            last = first + letter.run[3] - 1
            if last <= self._sent:
                continue
            if record is None:
                # Its deletion is on the way to the group, and takes them along.
                return
            if not self._send(record, letter, max(first, self._sent + 1), first, low):
                return

    def _send(self, record: "QueueRecord", letter: "Letter", number: int, first: int, low: int) -> bool:
        """Send the messages of a run from letter `number` on; False: no more for now."""
        index, command_offset, first_record, count = letter.run[:4]
        data = self._shared.node.entry_data(self._group, index)
        start, _ = commands_read.enqueue_layout(data, command_offset)
        is_letter = commands_read.is_letter(data, command_offset)
        offset = codec.skip(data, start, first_record + number - first)
        parcel: Parcel | None = None
        more = True
        while more and number < first + count:
            if number - low >= OPEN_MAX or self._is_full(parcel):
                more = False
                break
            prepared, packed, offset = self._prepared(record, letter, data, offset, is_letter=is_letter)
            plan = prepared.plan
            if not plan.groups and not self._may_drop(record, number, first + count - 1):
                more = False
                break
            if parcel is None or parcel.plan is not plan or parcel.priority != prepared.priority:
                self._submit(parcel, low)
                parcel = Parcel(self, number, plan, prepared.priority)
            parcel.add(packed)
            number += 1
        self._submit(parcel, low)
        return more

    def _is_full(self, parcel: Parcel | None) -> bool:
        return self._open_bytes + (parcel.size_bytes if parcel is not None else 0) >= OPEN_BYTES_MAX

    def _may_drop(self, record: "QueueRecord", number: int, last: int) -> bool:
        """Whether a letter for which there is no queue is to be dropped now: else it is looked at again later."""
        node = self._shared.node
        if record.arguments.get("x-dead-letter-strategy") == "at-least-once":
            self._retry_ms = node.now_ms() + RETRY_MS
            return False
        if number > self._current and not self._is_asking:
            # A binding made elsewhere may not have come here yet.
            self._is_asking = True
            ticket = self._shared.tickets.issue(Doubt(self, last), METADATA_GROUP, has_deadline=False)
            node.barrier(METADATA_GROUP, ticket)
        return number <= self._current

    def is_current(self, last: int) -> None:
        """The topology is no older than the letters up to `last`; 0: that cannot be said."""
        self._is_asking = False
        self._current = max(self._current, last)

    def _prepared(
        self, record: "QueueRecord", letter: "Letter", data: bytes, offset: int, *, is_letter: bool
    ) -> tuple[Prepared, bytes, int]:
        """What becomes of the message at `offset`, its new record, and the offset after it."""
        version = self._shared.node.topology.routes_version
        if version != self._version or len(self._kept) >= KEPT_MAX:
            self._kept.clear()
            self._plans.known(version)
            self._version = version
        head, properties, body, end = parts_of(data, offset)
        key = (head, properties, letter.reason, letter.ts // 1000, is_letter)
        prepared = self._kept.get(key)
        if prepared is None:
            message, _ = read_record(data, offset)
            prepared = self._prepare(record, letter, message, is_letter=is_letter)
            if prepared.is_lasting:
                self._kept[key] = prepared
        return prepared, joined_record(prepared.head, prepared.properties, body), end

    def _prepare(
        self, record: "QueueRecord", letter: "Letter", message: Record, *, is_letter: bool
    ) -> Prepared:
        """Where a message goes that died, and what it says then."""
        node = self._shared.node
        arguments = record.arguments
        exchange = str(arguments.get("x-dead-letter-exchange", ""))
        own_key = arguments.get("x-dead-letter-routing-key")
        before = message.properties
        came_by = routing_keys_of(message.routing_key, before)
        keys = [own_key] if isinstance(own_key, str) else came_by
        properties = buried(
            before,
            letter,
            queue=record.name,
            exchange=message.exchange,
            routing_keys=came_by,
            is_letter=is_letter,
            has_key=isinstance(own_key, str),
        )
        view = Opened(properties, node.draw)
        found: dict[int, QueueRecord] = {}
        for key in keys:
            for target in node.topology.route(record.vhost, exchange, key, view) or ():
                if target.uid not in found and not is_cycle(target.name, properties):
                    found[target.uid] = target
        for target in found.values():
            ensure(self._shared, target)
        packed = pack_record(exchange, keys[0], properties, b"")
        head, encoded, _, _ = parts_of(packed, 0)
        plan = self._plans.to(list(found.values()))
        return Prepared(plan, properties.priority or 0, head, encoded, is_lasting=not view.is_drawn)

    def _submit(self, parcel: Parcel | None, low: int) -> None:
        if parcel is None:
            return
        self._open.append(parcel)
        self._open_bytes += parcel.size_bytes
        self._sent = parcel.last
        plan = parcel.plan
        parcel.awaited = len(plan.groups)
        options = Options(
            priority=parcel.priority, source_uid=self._uid, source_low=low, source_seq=parcel.first
        )
        count = len(parcel.packed)
        for group, targets in zip(plan.groups, plan.targets, strict=True):
            ticket = self._shared.tickets.issue(parcel, group, has_deadline=False)
            command = commands.enqueue_with(ticket, targets, count, parcel.packed, options)
            self._shared.node.submit(group, command)
        parcel.packed = []
        if not plan.groups:
            self.settle()

    def settle(self) -> None:
        """Tell the queue of the letters that have arrived, in order."""
        last = 0
        while self._open and not self._open[0].awaited:
            parcel = self._open[0]
            if parcel.is_refused and self._keeps_letters():
                self.begin_anew()
                self._retry_ms = self._shared.node.now_ms() + RETRY_MS
                break
            last = parcel.last
            self._open_bytes -= parcel.size_bytes
            self._open.popleft()
        if last:
            self._shared.node.submit(self._group, commands.letters_done(self._uid, last))

    def _keeps_letters(self) -> bool:
        record = self._shared.node.topology.queue_by_uid(self._uid)
        return record is not None and record.arguments.get("x-dead-letter-strategy") == "at-least-once"


class Outlets:
    """The outlets of all queues with letters of which this node leads the group."""

    def __init__(self, shared: "Shared") -> None:
        self._shared = shared
        self._by_group: dict[int, dict[int, Outlet]] = {}

    def forward(self, group: int, uids: list[int]) -> None:
        """Send the letters of these queues: all of the group that have some."""
        machine = self._shared.node.machine(group)
        assert machine is not None, "this node leads the group"
        known = self._by_group.get(group, {})
        kept = {uid: known.get(uid) or Outlet(self._shared, group, uid) for uid in uids}
        self._by_group[group] = kept
        if not self._shared.catch_up.need():
            return  # this is called again with the next tick
        for uid, outlet in kept.items():
            outlet.forward(machine.letters(uid))

    def leave(self, group: int) -> None:
        """Another node leads the group now, or no queue of it has letters."""
        for outlet in self._by_group.pop(group, {}).values():
            outlet.begin_anew()

    @property
    def groups(self) -> list[int]:
        """The groups with letters under way."""
        return list(self._by_group)
