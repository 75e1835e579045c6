"""TopologyMachine, the state machine of the metadata group: all but the messages.

Group 0 is applied on every node, so that every node knows the way of every message. A declaration is answered
when the node that the client is connected to has applied it. Handlers check first and change then; what a
client did wrong is raised as the spec's exception, caught in one place, and becomes the value of its Reply.

The state at formation: vhost `/` and user guest with password guest and all permissions.
"""

# ruff: noqa: PLR0917, ARG002 - handlers are called alike, with the fields of their command in its order

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from cluster.machine import Meta, Row
from cluster.types import MEMORY_GROUP
from node.broker.arguments import (
    check_exchange_arguments,
    check_exchange_type,
    check_name_prefix,
    check_queue_arguments,
    check_same_exchange,
    check_same_queue,
    exchange_title,
    locked,
    queue_title,
)
from node.broker.effects import Reply
from node.broker.exchange import ExchangeNode, QueueNode, check_binding
from node.broker.passwords import GUEST_HASH, GUEST_SALT
from node.broker.permissions import PATTERN_SIZE_MAX
from node.broker.records import ExchangeRecord, Owner, Permission, QueueRecord
from node.broker.topology_commands import Kind, decode_commands
from node.broker.topology_effects import (
    ExchangeDeclared,
    QueueDeclared,
    QueueDeleted,
    Reason,
    UserChanged,
    VhostDeleted,
)
from node.broker.topology_rows import PermissionRow
from node.broker.topology_state import TopologyState
from node.broker.values import decode_table, encode_table
from node.broker.vhost import Vhost
from node.errors import AccessRefused, AmqpError, NotFound, PreconditionFailed

NAME_SIZE_MAX = 255
"""Characters in the name of a vhost or user: it must fit a shortstr."""

RESERVED_PREFIX = "amq."

METHODS: dict[int, tuple[int, int]] = {
    Kind.DECLARE_EXCHANGE: (40, 10),
    Kind.DELETE_EXCHANGE: (40, 20),
    Kind.BIND_EXCHANGE: (40, 30),
    Kind.UNBIND_EXCHANGE: (40, 40),
    Kind.DECLARE_QUEUE: (50, 10),
    Kind.BIND_QUEUE: (50, 20),
    Kind.DELETE_QUEUE: (50, 40),
    Kind.UNBIND_QUEUE: (50, 50),
}
"""Class and method that an error names, for the commands that a client's method asks for."""


class TopologyMachine(TopologyState):
    """Group 0 on one node.

    Args:
        local_node: whose sessions get replies. It has no influence on the state.
    """

    version = 1

    def __init__(self, local_node: int) -> None:
        super().__init__()
        self._local_node = local_node
        self.is_needed = False
        """Whether a session of this node routes by this replica; no part of the state."""
        self._effects: list[Any] = []
        self._handlers: dict[int, Callable[..., Any]] = {
            Kind.DECLARE_EXCHANGE: self._declare_exchange,
            Kind.DELETE_EXCHANGE: self._delete_exchange,
            Kind.BIND_QUEUE: self._bind_queue,
            Kind.UNBIND_QUEUE: self._unbind_queue,
            Kind.BIND_EXCHANGE: self._bind_exchange,
            Kind.UNBIND_EXCHANGE: self._unbind_exchange,
            Kind.DECLARE_QUEUE: self._declare_queue,
            Kind.DELETE_QUEUE: self._delete_queue,
            Kind.CLOSE_SESSION: self._close_session,
            Kind.ADD_VHOST: self._add_vhost,
            Kind.DELETE_VHOST: self._delete_vhost,
            Kind.ADD_USER: self._add_user,
            Kind.DELETE_USER: self._delete_user,
            Kind.SET_PERMISSIONS: self._set_permissions,
            Kind.CLEAR_PERMISSIONS: self._clear_permissions,
        }
        self._form()

    # cluster.machine.StateMachine

    def apply(self, meta: Meta, data: bytes, offset: int) -> list[Any]:
        """Run the commands in `data[offset:]`. Raises UnknownCommand before any of them has run."""
        is_local = meta.origin == self._local_node
        self._effects = []
        for kind, (ticket, *fields) in decode_commands(data, offset):
            try:
                value = self._handlers[kind](meta, *fields)
            except AmqpError as error:
                error.class_id, error.method_id = METHODS.get(kind, (0, 0))
                value = error.with_traceback(None)
            if ticket and is_local:
                self._effects.append(Reply(ticket, value))
        return self._take_effects()

    def origin_gone(self, meta: Meta) -> list[Any]:
        """Delete the exclusive queues of all sessions of `meta.origin`."""
        sessions = self._owned.get(meta.origin, {})
        for node in [node for owned in sessions.values() for node in owned.values()]:
            self._end_queue(node, Reason.ORIGIN_GONE)
        return self._take_effects()

    def serves(self) -> bool:
        """Whether somebody here routes by this replica and wants it current."""
        return self.is_needed

    def live(self) -> Mapping[int, int]:
        """No entry's data is needed once it is applied."""
        return {}

    def take_dead(self) -> list[int]:
        """Nothing was live."""
        return []

    def checkpoint(self, *, full: bool) -> list[Row]:
        """The rows that changed since the last call. A full one repeats nothing less in the next."""
        return self._rows.all() if full else self._rows.take_changes()

    def restore(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Become the state that the rows describe; no rows at all are the state at formation."""
        if not self._restore(rows):
            self._form()

    def _take_effects(self) -> list[Any]:
        effects, self._effects = self._effects, []
        return effects

    def _form(self) -> None:
        start = Meta(0, 0, 0)
        self._add_vhost(start, "/")
        self._add_user(start, "guest", GUEST_SALT, GUEST_HASH, "administrator")
        self._set_permissions(start, "guest", "/", ".*", ".*", ".*")
        self._effects = []

    # exchanges

    def _declare_exchange(
        self,
        meta: Meta,
        vhost: str,
        name: str,
        exchange_type: str,
        durable: bool,
        auto_delete: bool,
        internal: bool,
        arguments: bytes,
    ) -> ExchangeDeclared:
        host = self._vhost(vhost)
        check_exchange_type(exchange_type)
        _check_not_default(name)
        table = decode_table(arguments)
        wanted = ExchangeRecord(0, vhost, name, exchange_type, durable, auto_delete, internal, table)
        node = host.exchanges.get(name)
        if node is not None:
            check_same_exchange(node.record, wanted)
            return ExchangeDeclared(node.record, created=False)
        _check_not_reserved("exchange", name)
        check_exchange_arguments(vhost, name, exchange_type, table)
        record = replace(wanted, uid=self._new_uid(meta))
        host.add_exchange(record)
        return ExchangeDeclared(record, created=True)

    def _delete_exchange(self, meta: Meta, vhost: str, name: str, if_unused: bool) -> None:
        host = self._vhost(vhost)
        _check_not_default(name)
        if name.startswith(RESERVED_PREFIX):
            raise AccessRefused(f"deletion of system {exchange_title(vhost, name)} not allowed")
        node = host.exchanges.get(name)
        if node is None:
            return
        if if_unused and node.outgoing:
            raise PreconditionFailed(f"{exchange_title(vhost, name)} in use")
        host.remove_exchange(node)

    # bindings

    def _bind_queue(
        self, meta: Meta, vhost: str, queue: str, exchange: str, key: str, arguments: bytes, session: int
    ) -> None:
        host = self._vhost(vhost)
        _check_not_default(exchange)
        source = _find_exchange(host, exchange)
        target = host.queues.get(queue)
        if target is None:
            raise NotFound(f"no {queue_title(vhost, queue)}")
        _check_owner(target, Owner(meta.origin, session))
        self._bind(meta, host, source, target, key, arguments)

    def _bind_exchange(
        self, meta: Meta, vhost: str, destination: str, source: str, key: str, arguments: bytes
    ) -> None:
        host = self._vhost(vhost)
        _check_not_default(source)
        _check_not_default(destination)
        node = _find_exchange(host, source)
        self._bind(meta, host, node, _find_exchange(host, destination), key, arguments)

    def _bind(
        self,
        meta: Meta,
        host: Vhost,
        source: ExchangeNode,
        target: QueueNode | ExchangeNode,
        key: str,
        arguments: bytes,
    ) -> None:
        check_binding(source.record.routing_type, key, arguments)
        host.bind(self._new_uid(meta), source, target, key, arguments)

    def _unbind_queue(
        self, meta: Meta, vhost: str, queue: str, exchange: str, key: str, arguments: bytes, session: int
    ) -> None:
        host = self._vhost(vhost)
        _check_not_default(exchange)
        binding = (False, queue, key, arguments)
        node, target = host.exchanges.get(exchange), host.queues.get(queue)
        if target is not None and node is not None and binding in node.outgoing:
            # What is not bound is unbound already, whoever asks.
            _check_owner(target, Owner(meta.origin, session))
        _unbind(host, exchange, binding)

    def _unbind_exchange(
        self, meta: Meta, vhost: str, destination: str, source: str, key: str, arguments: bytes
    ) -> None:
        host = self._vhost(vhost)
        _check_not_default(source)
        _check_not_default(destination)
        _unbind(host, source, (True, destination, key, arguments))

    # queues

    def _declare_queue(
        self,
        meta: Meta,
        vhost: str,
        name: str,
        durable: bool,
        exclusive: bool,
        auto_delete: bool,
        server_named: bool,
        arguments: bytes,
        group: int,
        session: int,
    ) -> QueueDeclared:
        host = self._vhost(vhost)
        if not server_named:
            _check_not_reserved("queue", name)
        table = decode_table(arguments)
        owner = Owner(meta.origin, session) if exclusive else None
        node = host.queues.get(name)
        if node is not None:
            check_same_queue(node.record, table, durable=durable, auto_delete=auto_delete, owner=owner)
            return QueueDeclared(node.record, created=False)
        check_name_prefix(table)
        check_queue_arguments(vhost, name, table, durable=durable, exclusive=exclusive)
        if "x-name-prefix" in table:
            arguments = encode_table({key: table[key] for key in table if key != "x-name-prefix"})
        place = MEMORY_GROUP + meta.origin if exclusive else group
        flags = (durable and not exclusive, auto_delete)
        record = QueueRecord(self._new_uid(meta), vhost, name, place, *flags, arguments, owner)
        self._put_queue(record)
        return QueueDeclared(record, created=True)

    def _delete_queue(self, meta: Meta, uid: int) -> None:
        node = self._queues.get(uid)
        if node is not None:
            self._end_queue(node, Reason.DELETED)

    def _close_session(self, meta: Meta, session: int) -> None:
        for node in list(self._owned.get(meta.origin, {}).get(session, {}).values()):
            self._end_queue(node, Reason.SESSION_CLOSED)

    def _end_queue(self, node: QueueNode, reason: Reason) -> None:
        self._drop_queue(node)
        self._effects.append(QueueDeleted(node.record, reason))

    # vhosts

    def _add_vhost(self, meta: Meta, name: str) -> None:
        _check_size("vhost", name)
        if name not in self._vhosts:
            self._put_vhost(self._new_uid(meta), name)

    def _delete_vhost(self, meta: Meta, name: str) -> None:
        host = self._vhost(name)
        for queue in list(host.queues.values()):
            self._end_queue(queue, Reason.VHOST_DELETED)
        self._drop_vhost(host)
        self._effects.append(VhostDeleted(name))

    # users

    def _add_user(self, meta: Meta, name: str, salt: bytes, password_hash: bytes, tags: str) -> None:
        _check_size("user", name)
        current = self._users.get(name)
        uid = current.uid if current is not None else self._new_uid(meta)
        self._put_user(uid, name, salt, password_hash, tags)
        self._effects.append(UserChanged(name, deleted=False))

    def _delete_user(self, meta: Meta, name: str) -> None:
        self._drop_user(self._user(name))
        self._effects.append(UserChanged(name, deleted=True))

    def _set_permissions(
        self, meta: Meta, user: str, vhost: str, configure: str, write: str, read: str
    ) -> None:
        self._user(user)
        self._vhost(vhost)
        # Whether they compile is for those who make commands (permissions.py); here only what all replicas
        # agree on.
        if max(len(configure), len(write), len(read)) > PATTERN_SIZE_MAX:
            raise PreconditionFailed(f"permission pattern longer than {PATTERN_SIZE_MAX} characters")
        current = self._permissions[user].get(vhost)
        uid = current.uid if current is not None else self._new_uid(meta)
        self._put_permission(PermissionRow(uid, user, vhost, Permission(configure, write, read)))
        self._effects.append(UserChanged(user, deleted=False))

    def _clear_permissions(self, meta: Meta, user: str, vhost: str) -> None:
        self._user(user)
        if self._drop_permission(user, vhost):
            self._effects.append(UserChanged(user, deleted=False))


def _find_exchange(host: Vhost, name: str) -> ExchangeNode:
    node = host.exchanges.get(name)
    if node is None:
        raise NotFound(f"no {exchange_title(host.name, name)}")
    return node


def _unbind(host: Vhost, source: str, key: tuple[bool, str, str, bytes]) -> None:
    node = host.exchanges.get(source)
    binding = node.outgoing.get(key) if node is not None else None
    if binding is not None:
        host.unbind(binding)


def _check_owner(queue: QueueNode, owner: Owner) -> None:
    if queue.record.owner is not None and queue.record.owner != owner:
        raise locked(queue.record)


def _check_not_default(exchange: str) -> None:
    if not exchange:
        raise AccessRefused("operation not permitted on the default exchange")


def _check_not_reserved(kind: str, name: str) -> None:
    if name.startswith(RESERVED_PREFIX):
        raise AccessRefused(f"{kind} name '{name}' contains reserved prefix 'amq.*'")


def _check_size(kind: str, name: str) -> None:
    if not 0 < len(name) <= NAME_SIZE_MAX:
        raise PreconditionFailed(f"{kind} name must have 1 to {NAME_SIZE_MAX} characters")
