"""What the topology says: the read side of the metadata group, for sessions and administration.

Reading changes nothing but caches. It needs no majority: it is as current as what this node has applied.
"""

from collections.abc import Iterator, KeysView, Sequence
from itertools import chain

from node.broker.arguments import exchange_title, locked, queue_title
from node.broker.exchange import QueueNode
from node.broker.message import Message
from node.broker.permissions import Patterns, refusal
from node.broker.records import BindingRecord, ExchangeRecord, Owner, Permission, QueueRecord, UserRecord
from node.broker.topology_rows import PermissionRow, Rows
from node.broker.values import decode_table
from node.broker.vhost import Version, Vhost
from node.errors import AccessRefused, NotAllowed, NotFound, SoftError

DECISIONS_MAX = 65_536
"""Kept answers to "may this user do that"; a publisher asks again with each run."""


class TopologyView:
    """The state of the topology, and how to read it. Only topology_state.py changes it."""

    def __init__(self) -> None:
        self._rows = Rows()
        self._vhosts: dict[str, Vhost] = {}
        self._queues: dict[int, QueueNode] = {}
        self._by_group: dict[int, dict[int, None]] = {}  # group, uid
        self._owned: dict[int, dict[int, dict[int, QueueNode]]] = {}  # node, session, uid
        self._users: dict[str, UserRecord] = {}
        self._permissions: dict[str, dict[str, PermissionRow]] = {}  # user, vhost
        self._last_uid = 0
        self._version = Version()
        self._patterns = Patterns()
        self._decisions: dict[tuple[str, str, str, str], bool] = {}

    # exchanges, queues, bindings

    def has_vhost(self, vhost: str) -> bool:
        """Whether there is such a vhost."""
        return vhost in self._vhosts

    def vhosts(self) -> list[str]:
        """Names of all vhosts, in order of creation."""
        return list(self._vhosts)

    @property
    def routes_version(self) -> int:
        """Rises with every change of what `route`, `exchange` or `check_access` answer, with one exception.

        It may stay where they named nothing before: who was told that there is no queue, or no exchange, asks anew.
        Otherwise each declaration would have every publisher of the node look for its routes again.
        """
        return self._version.value

    def exchange(self, vhost: str, name: str) -> ExchangeRecord | None:
        """The exchange of this name; '' is the default exchange."""
        found = self._vhosts.get(vhost)
        node = found.exchanges.get(name) if found is not None else None
        return node.record if node is not None else None

    def exchanges(self, vhost: str) -> Iterator[ExchangeRecord]:
        """All exchanges of a vhost, the default exchange first."""
        found = self._vhosts.get(vhost)
        return (node.record for node in (found.exchanges.values() if found is not None else ()))

    def queue(self, vhost: str, name: str) -> QueueRecord | None:
        """The queue of this name."""
        found = self._vhosts.get(vhost)
        node = found.queues.get(name) if found is not None else None
        return node.record if node is not None else None

    def queue_by_uid(self, uid: int) -> QueueRecord | None:
        """The queue with this uid, in whatever vhost."""
        node = self._queues.get(uid)
        return node.record if node is not None else None

    def uids_in(self, group: int) -> KeysView[int]:
        """The uids of the queues that live in a group, in no order. A live view, for comparisons and counts."""
        return self._by_group.get(group, {}).keys()

    @property
    def queue_count(self) -> int:
        """How many queues there are, in all vhosts."""
        return len(self._queues)

    def queues(self, vhost: str | None = None) -> Iterator[QueueRecord]:
        """All queues of a vhost, or of all vhosts, by uid."""
        if vhost is None:
            return (node.record for node in self._queues.values())
        found = self._vhosts.get(vhost)
        return (node.record for node in (found.queues.values() if found is not None else ()))

    def bindings(self, vhost: str) -> Iterator[BindingRecord]:
        """All bindings of a vhost by source; first those that every queue has to the default exchange."""
        found = self._vhosts.get(vhost)
        if found is None:
            return iter(())
        implied = (BindingRecord(vhost, "", name, False, name, {}) for name in found.queues)
        explicit = (
            BindingRecord(
                vhost,
                node.record.name,
                binding.destination.record.name,
                binding.to_exchange,
                binding.routing_key,
                decode_table(binding.arguments),
            )
            for node in found.exchanges.values()
            for binding in node.outgoing.values()
        )
        return chain(implied, explicit)

    def route(
        self, vhost: str, exchange: str, routing_key: str, message: Message
    ) -> tuple[QueueRecord, ...] | None:
        """The queues that a message reaches, each once, by uid; () if none.

        None if there is no such exchange. `headers` is called once for each headers exchange on the way.
        Internal exchanges and permissions are the caller's to check.
        """
        found = self._vhosts.get(vhost)
        return found.route(exchange, routing_key, message) if found is not None else None

    def route_all(
        self, vhost: str, exchange: str, routing_keys: Sequence[str], message: Message
    ) -> tuple[QueueRecord, ...] | None:
        """As `route`, for a message with several routing keys (CC, BCC); not kept."""
        found = self._vhosts.get(vhost)
        return found.route_all(exchange, routing_keys, message) if found is not None else None

    # the checks that apply makes, for answers that need no command

    def find_queue(self, vhost: str, name: str, owner: Owner) -> QueueRecord | SoftError:
        """The queue, if there is one and `owner` may use it (passive declare, consume, get, purge, delete);
        404, 405.
        """
        record = self.queue(vhost, name)
        if record is None:
            return NotFound(f"no {queue_title(vhost, name)}")
        if record.owner is not None and record.owner != owner:
            return locked(record)
        return record

    def find_exchange(self, vhost: str, name: str) -> ExchangeRecord | SoftError:
        """The exchange, if there is one (passive declare, publish); 404."""
        return self.exchange(vhost, name) or NotFound(f"no {exchange_title(vhost, name)}")

    # users

    def user(self, name: str) -> UserRecord | None:
        """The user of this name. Check the password with passwords.verify_password."""
        return self._users.get(name)

    def users(self) -> Iterator[UserRecord]:
        """All users, in order of creation."""
        return iter(self._users.values())

    def permission(self, user: str, vhost: str) -> Permission | None:
        """What the user may do in the vhost; None: not even enter."""
        row = self._permissions.get(user, {}).get(vhost)
        return row.permission if row is not None else None

    def check_vhost_access(self, user: str, vhost: str) -> NotAllowed | None:
        """530 where connection.open must be refused."""
        if vhost not in self._vhosts:
            return NotAllowed(f"vhost {vhost} not found")
        if self.permission(user, vhost) is None:
            return NotAllowed(f"access to vhost '{vhost}' refused for user '{user}'")
        return None

    def check_access(self, user: str, vhost: str, action: str, kind: str, name: str) -> AccessRefused | None:
        """403 where the user may not do that.

        Args:
            action: configure, write or read.
            kind: queue or exchange.
            name: '' is the default exchange, which patterns know as amq.default.
        """
        name = name or "amq.default"
        question = (user, vhost, action, name)
        allowed = self._decisions.get(question)
        if allowed is None:
            permission = self.permission(user, vhost)
            pattern = getattr(permission, action) if permission is not None else ""
            allowed = self._patterns.allows(pattern, name)
            if len(self._decisions) >= DECISIONS_MAX:
                self._decisions.clear()
            self._decisions[question] = allowed
        return None if allowed else refusal(action, kind, name, vhost, user)
