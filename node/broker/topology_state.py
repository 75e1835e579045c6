"""The state of the topology and its elementary changes: each keeps all indexes and the saved rows in step.

Nothing is judged here, and nobody is told: that is topology.py's part. Restoring goes through the same
changes as applying, so that a restored state cannot differ in shape from one that grew.
"""

from collections.abc import Iterable
from typing import Any

from cluster.machine import Meta
from node.broker.errors import UnknownCommand
from node.broker.exchange import QueueNode
from node.broker.records import ExchangeRecord, Owner, Permission, QueueRecord, UserRecord
from node.broker.topology_rows import FORMAT_VERSION, HeaderRow, PermissionRow, Table, decode_rows
from node.broker.topology_view import TopologyView
from node.broker.values import decode_table
from node.broker.vhost import Vhost
from node.errors import NotFound


class TopologyState(TopologyView):
    """What the commands change. Every `_put` and `_drop` expects what topology.py has checked."""

    def _restore(self, rows: Iterable[tuple[bytes, bytes]]) -> bool:
        """Forget everything and become what the rows describe; False, and empty, if there are none."""
        decoded = decode_rows(rows)
        version = self._version
        TopologyView.__init__(self)
        self._version = version  # caches outside must not take the old for the new
        self._version.rise()
        for table, uid, fields in decoded:
            self._restore_row(table, uid, fields)
        self._rows.settle()
        return bool(decoded)

    def _restore_row(self, table: Table, uid: int, fields: list[Any]) -> None:
        match table:
            case Table.HEADER:
                if fields[0] > FORMAT_VERSION:
                    raise UnknownCommand(f"metadata rows of version {fields[0]}")
                self._last_uid = fields[1]
                self._rows.put(table, uid, HeaderRow(*fields))
            case Table.VHOST:
                self._put_vhost(uid, fields[0])
            case Table.USER:
                self._put_user(uid, *fields)
            case Table.PERMISSION:
                user, vhost, *patterns = fields
                self._put_permission(PermissionRow(uid, user, vhost, Permission(*patterns)))
            case Table.EXCHANGE:
                vhost, name, kind, durable, auto_delete, internal, raw = fields
                table_ = decode_table(raw)
                self._vhosts[vhost].add_exchange(
                    ExchangeRecord(uid, vhost, name, kind, durable, auto_delete, internal, table_)
                )
            case Table.QUEUE:
                vhost, name, group, durable, auto_delete, arguments, exclusive, node, session = fields
                owner = Owner(node, session) if exclusive else None
                self._put_queue(QueueRecord(uid, vhost, name, group, durable, auto_delete, arguments, owner))
            case Table.BINDING:
                vhost, source, to_exchange, destination, key, arguments = fields
                host = self._vhosts[vhost]
                target = (host.exchanges if to_exchange else host.queues)[destination]
                host.bind(uid, host.exchanges[source], target, key, arguments)

    def _new_uid(self, meta: Meta) -> int:
        """Entry index << 16 | ordinal; an entry with more than 65,536 new things borrows from the next
        index.
        """
        self._last_uid = max(self._last_uid + 1, meta.index << 16)
        self._rows.put(Table.HEADER, 0, HeaderRow(FORMAT_VERSION, self._last_uid))
        return self._last_uid

    def _put_queue(self, record: QueueRecord) -> None:
        node = self._vhosts[record.vhost].add_queue(record)
        self._queues[record.uid] = node
        self._by_group.setdefault(record.group, {})[record.uid] = None
        if record.owner is not None:
            sessions = self._owned.setdefault(record.owner.node, {})
            sessions.setdefault(record.owner.session, {})[record.uid] = node

    def _drop_queue(self, node: QueueNode) -> None:
        record = node.record
        self._vhosts[record.vhost].remove_queue(node)
        del self._queues[record.uid]
        uids = self._by_group[record.group]
        del uids[record.uid]
        if not uids:
            del self._by_group[record.group]
        if record.owner is not None:
            sessions = self._owned[record.owner.node]
            del sessions[record.owner.session][record.uid]
            if not sessions[record.owner.session]:
                del sessions[record.owner.session]
            if not sessions:
                del self._owned[record.owner.node]

    def _put_vhost(self, uid: int, name: str) -> None:
        self._vhosts[name] = Vhost(uid, name, self._rows, self._version)
        self._version.rise()
        self._rows.put(Table.VHOST, uid, name)

    def _drop_vhost(self, host: Vhost) -> None:
        for node in list(host.queues.values()):
            self._drop_queue(node)
        host.clear()
        for user in self._permissions:
            self._drop_permission(user, host.name)
        del self._vhosts[host.name]
        self._version.rise()
        self._rows.drop(Table.VHOST, host.uid)

    def _vhost(self, name: str) -> Vhost:
        host = self._vhosts.get(name)
        if host is None:
            raise NotFound(f"no vhost '{name}'")
        return host

    def _put_user(self, uid: int, name: str, salt: bytes, password_hash: bytes, tags: str) -> None:
        names = tuple(tag for tag in tags.split(",") if tag)
        record = self._users[name] = UserRecord(uid, name, salt, password_hash, names)
        self._permissions.setdefault(name, {})
        self._rows.put(Table.USER, uid, record)

    def _drop_user(self, record: UserRecord) -> None:
        for vhost in list(self._permissions[record.name]):
            self._drop_permission(record.name, vhost)
        del self._permissions[record.name]
        del self._users[record.name]
        self._rows.drop(Table.USER, record.uid)

    def _put_permission(self, row: PermissionRow) -> None:
        self._permissions[row.user][row.vhost] = row
        self._forget_decisions()
        self._rows.put(Table.PERMISSION, row.uid, row)

    def _drop_permission(self, user: str, vhost: str) -> bool:
        row = self._permissions[user].pop(vhost, None)
        if row is None:
            return False
        self._forget_decisions()
        self._rows.drop(Table.PERMISSION, row.uid)
        return True

    def _forget_decisions(self) -> None:
        self._decisions.clear()
        self._version.rise()

    def _user(self, name: str) -> UserRecord:
        record = self._users.get(name)
        if record is None:
            raise NotFound(f"no user '{name}'")
        return record
