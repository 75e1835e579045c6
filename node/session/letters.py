"""Dead letters on their way: from the queue that gave them up to the queues that its dead letter exchange leads to.

The leader of a queue's group reads its letters from the machine, routes them by this node's topology and submits them
to the groups of their queues, numbered. When all have taken them it tells the queue so (`letters_done`). After a change
of leader, or when a stream begins anew, all that the queue still has is sent again: the number makes each come once.
"""

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

from node.broker import commands, commands_read
from node.broker.commands import Options
from node.broker.death import buried, is_cycle, routing_keys_of
from node.broker.effects import Refused
from node.broker.message import Opened
from node.session.plans import Plans
from node.session.rules import ensure
from node.wire import codec
from node.wire.records import pack_record, read_record

if TYPE_CHECKING:
    from node.broker.queue_state import Letter
    from node.broker.records import QueueRecord
    from node.session.plans import Plan
    from node.session.shared import Shared

OPEN_MAX = 512
"""Letters of a queue that may be under way; what the groups that take them must remember."""
OPEN_BYTES_MAX = 4 << 20
"""Bytes of the letters of a queue that may be under way; one more letter is always sent."""
RETRY_MS = 1000
"""How long a letter waits that must not get lost and that no queue takes now."""


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


class Outlet:
    """The letters of one queue of which this node leads the group."""

    def __init__(self, shared: "Shared", group: int, uid: int) -> None:
        self._shared = shared
        self._group = group
        self._uid = uid
        self._sent = 0  # number of the last letter that is under way or done
        self._open: deque[Parcel] = deque()
        self._retry_ms = 0
        self._plans = Plans()

    def begin_anew(self) -> None:
        """Forget what is under way: it is sent again, and counts once."""
        for parcel in self._open:
            parcel.is_void = True
        self._open.clear()
        self._sent = 0

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
            plan, priority, packed, offset = self._prepared(record, letter, data, offset, is_letter=is_letter)
            if not plan.groups and record.arguments.get("x-dead-letter-strategy") == "at-least-once":
                self._retry_ms = self._shared.node.now_ms() + RETRY_MS
                more = False
                break
            if parcel is None or parcel.plan is not plan or parcel.priority != priority:
                self._submit(parcel, low)
                parcel = Parcel(self, number, plan, priority)
            parcel.add(packed)
            number += 1
        self._submit(parcel, low)
        return more

    def _is_full(self, parcel: Parcel | None) -> bool:
        size_bytes = parcel.size_bytes if parcel is not None else 0
        return size_bytes + sum([one.size_bytes for one in self._open]) >= OPEN_BYTES_MAX

    def _prepared(
        self, record: "QueueRecord", letter: "Letter", data: bytes, offset: int, *, is_letter: bool
    ) -> "tuple[Plan, int, bytes, int]":
        """Where the message at `offset` goes, its priority, its record, and the offset after it."""
        topology = self._shared.node.topology
        message, end = read_record(data, offset)
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
        message_view = Opened(properties, self._shared.node.draw)
        found: dict[int, QueueRecord] = {}
        for key in keys:
            for target in topology.route(record.vhost, exchange, key, message_view) or ():
                if target.uid not in found and not is_cycle(target.name, properties):
                    found[target.uid] = target
        for target in found.values():
            ensure(self._shared, target)
        self._plans.known(topology.routes_version)
        packed = pack_record(exchange, keys[0], properties, message.body)
        return self._plans.to(list(found.values())), properties.priority or 0, packed, end

    def _submit(self, parcel: Parcel | None, low: int) -> None:
        if parcel is None:
            return
        self._open.append(parcel)
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
