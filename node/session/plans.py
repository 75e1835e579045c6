"""The ways that messages of a vhost go: each found once, and kept as long as the topology stands.

A plan is kept for all clients of a user in a vhost, by the arguments of basic.publish; arguments that lead to the
same queues share one plan, by which a burst's messages are sorted into runs.
"""

from typing import TYPE_CHECKING

from node.broker import commands
from node.broker.arguments import can_refuse, priority_max
from node.broker.values import EMPTY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from node.broker.records import QueueRecord

Way = tuple[tuple[int, tuple[int, ...]], ...]
"""(group, uids), with each group once."""

PLANS_MAX = 16_384
"""Plans kept for one user in one vhost, some 8 MB; all are forgotten when there are more."""


class Plan:
    """Where messages go. Compared by identity: two plans of one `Plans` and version never mean the same.

    Attributes:
        groups: each once. Empty: no queue takes the message.
        targets: for each group its queues, as enqueue takes them.
        uids: all the queues.
        may_refuse: one of them refuses messages when it is full.
        priority_max: the highest priority that one of them tells apart.
        is_by_priority: all of them tell all of these priorities apart, so that no order between them need be kept.
    """

    __slots__ = ("groups", "is_by_priority", "may_refuse", "priority_max", "targets", "uids")

    def __init__(self, way: Way, records: "Sequence[QueueRecord]" = ()) -> None:
        self.groups = tuple([group for group, _ in way])
        self.targets = tuple([commands.targets(uids) for _, uids in way])
        self.uids = frozenset([uid for _, uids in way for uid in uids])
        arguments = [record.arguments for record in records if record.table != EMPTY]
        self.may_refuse = any(can_refuse(table) for table in arguments)
        priorities = [priority_max(table) for table in arguments]
        self.priority_max = max(priorities, default=0)
        self.is_by_priority = (
            len(priorities) == len(records) and 0 < min(priorities, default=0) == self.priority_max
        )


class ReplyPlan(Plan):
    """The way to a client that waits for a reply. Such ways are too many to be kept, and soon lead nowhere."""

    __slots__ = ()


class Plans:
    """The plans of one user in one vhost."""

    __slots__ = ("_by_args", "_by_way", "_version")

    def __init__(self) -> None:
        self._version = -1
        self._by_args: dict[bytes, Plan] = {}
        self._by_way: dict[Way, Plan] = {}

    def known(self, version: int) -> dict[bytes, Plan]:
        """The plans made under this version of the routes, by the arguments of basic.publish; to be read only."""
        if version != self._version:
            self.forget()
            self._version = version
        return self._by_args

    def forget(self) -> None:
        """Find every way anew."""
        self._by_args.clear()
        self._by_way.clear()

    def keep(self, args: bytes, plan: Plan) -> None:
        """Remember a plan until the routes change."""
        if isinstance(plan, ReplyPlan):
            return
        if len(self._by_args) >= PLANS_MAX:
            self._by_args.clear()
        self._by_args[args] = plan

    def to(self, records: "Sequence[QueueRecord]") -> Plan:
        """The plan that leads to these queues."""
        by_group: dict[int, list[int]] = {}
        for record in records:
            by_group.setdefault(record.group, []).append(record.uid)
        way = tuple([(group, tuple(uids)) for group, uids in by_group.items()])
        plan = self._by_way.get(way)
        if plan is None:
            if len(self._by_way) >= PLANS_MAX:
                self.forget()
            plan = self._by_way[way] = Plan(way, records)
        return plan
