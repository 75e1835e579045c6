"""One virtual host: its exchanges, queues and bindings as a graph, and the way of a message through it.

Structure only: whether something is allowed was decided before (topology.py), what is saved goes to `rows`.
Every operation costs what it touches: deleting a queue takes time in the number of its own bindings.
"""

from collections.abc import Iterable, Sequence

from node.broker.exchange import Binding, ExchangeNode, QueueNode, match_all
from node.broker.message import Message
from node.broker.records import ExchangeRecord, QueueRecord
from node.broker.topology_rows import Rows, Table

ROUTES_WEIGHT_MAX = 1 << 18
"""Bound of the cached routes of a vhost, in queues named plus routes kept: some 16 MiB."""

PREDECLARED = (
    ("amq.direct", "direct"),
    ("amq.fanout", "fanout"),
    ("amq.headers", "headers"),
    ("amq.match", "headers"),
    ("amq.topic", "topic"),
)


class Version:
    """A number that rises with every change, so that caches know they are stale."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def rise(self) -> None:
        """What was read before may be wrong from now on."""
        self.value += 1


class Vhost:
    """A virtual host. `version` rises with every change that can alter a route that led somewhere."""

    __slots__ = ("_cached", "_links", "_rows", "_version", "_weight", "exchanges", "name", "queues", "uid")

    def __init__(self, uid: int, name: str, rows: Rows, version: Version) -> None:
        self.uid = uid
        self.name = name
        self.queues: dict[str, QueueNode] = {}
        self.exchanges: dict[str, ExchangeNode] = {}
        self._rows = rows
        self._version = version
        self._cached: dict[ExchangeNode, None] = {}
        self._weight = 0  # of all cached routes
        # Bindings to exchanges and alternate exchanges: while there are any, a route can depend on other
        # exchanges than its own.
        self._links = 0
        self.exchanges[""] = ExchangeNode(ExchangeRecord(0, name, "", "direct"))
        for exchange, kind in PREDECLARED:
            self.exchanges[exchange] = ExchangeNode(ExchangeRecord(0, name, exchange, kind))

    def add_queue(self, record: QueueRecord) -> QueueNode:
        """Add a queue whose name is free."""
        node = self.queues[record.name] = QueueNode(record)
        self._rows.put(Table.QUEUE, record.uid, record)
        self._reach()
        return node

    def remove_queue(self, node: QueueNode) -> None:
        """Remove a queue, its bindings, and the auto-delete exchanges that are left without one."""
        del self.queues[node.record.name]
        self._rows.drop(Table.QUEUE, node.record.uid)
        bindings = list(node.incoming.values())
        for binding in bindings:
            self._remove_binding(binding)
        self._forget(None)
        self._auto_delete(bindings)

    def add_exchange(self, record: ExchangeRecord) -> ExchangeNode:
        """Add an exchange whose name is free."""
        node = self.exchanges[record.name] = ExchangeNode(record)
        self._rows.put(Table.EXCHANGE, record.uid, record)
        self._links += record.alternate is not None
        self._reach()
        return node

    def remove_exchange(self, node: ExchangeNode) -> None:
        """Remove an exchange, its bindings, and the auto-delete exchanges that are left without one."""
        self._auto_delete(self._take_out(node))

    def clear(self) -> None:
        """Remove every exchange and binding; the queues have gone before."""
        for node in list(self.exchanges.values()):
            for binding in list(node.outgoing.values()):
                self._remove_binding(binding)
        for node in list(self.exchanges.values()):
            if node.record.uid:
                self._take_out(node)

    def bind(
        self,
        uid: int,
        source: ExchangeNode,
        destination: QueueNode | ExchangeNode,
        key: str,
        arguments: bytes,
    ) -> bool:
        """Add a binding; False if it was there."""
        binding = Binding(uid, source, destination, key, arguments)
        if binding.key in source.outgoing:
            return False
        source.outgoing[binding.key] = binding
        destination.incoming[uid] = binding
        source.matcher.add(binding)
        self._links += binding.to_exchange
        self._rows.put(Table.BINDING, uid, binding)
        self._forget(source)
        return True

    def unbind(self, binding: Binding) -> None:
        """Remove a binding, and its source if that was the last one of an auto-delete exchange."""
        self._remove_binding(binding)
        self._auto_delete([binding])

    def route(self, exchange: str, routing_key: str, message: Message) -> tuple[QueueRecord, ...] | None:
        """The queues that a message reaches, each once, by uid; None if there is no such exchange."""
        if not exchange:
            queue = self.queues.get(routing_key)
            return queue.route if queue is not None else ()
        node = self.exchanges.get(exchange)
        if node is None:
            return None
        key = "" if node.record.type == "fanout" and not self._links else routing_key
        route = node.routes.get(key)
        if route is not None:
            return route
        route, is_cacheable = self._walk(node, (routing_key,), message)
        if is_cacheable:
            self._keep(node, key, route)
        return route

    def route_all(
        self, exchange: str, routing_keys: Sequence[str], message: Message
    ) -> tuple[QueueRecord, ...] | None:
        """As `route`, for a message with several routing keys."""
        if not exchange:
            found = {key: self.queues[key].record for key in routing_keys if key in self.queues}
            return tuple(sorted(found.values(), key=lambda record: record.uid))
        node = self.exchanges.get(exchange)
        return self._walk(node, routing_keys, message)[0] if node is not None else None

    def _walk(
        self, start: ExchangeNode, routing_keys: Sequence[str], message: Message
    ) -> tuple[tuple[QueueRecord, ...], bool]:
        """Follow the bindings from exchange to exchange; each is visited once, so that cycles end."""
        found: dict[int, QueueRecord] = {}
        visited = {start: True}
        work = [start]
        is_cacheable = True
        while work:
            node = work.pop()
            is_cacheable = is_cacheable and node.matcher.is_cacheable
            following: list[ExchangeNode | QueueNode] = []
            if node.record.name:
                following = [
                    binding.destination for binding in match_all(node.matcher, routing_keys, message)
                ]
            else:  # the default exchange, as an alternate
                following = [self.queues[key] for key in routing_keys if key in self.queues]
            alternate = node.record.alternate
            if not following and alternate is not None and alternate in self.exchanges:
                following = [self.exchanges[alternate]]
            for target in following:
                if isinstance(target, QueueNode):
                    found[target.record.uid] = target.record
                elif target not in visited:
                    visited[target] = True
                    work.append(target)
        return tuple(found[uid] for uid in sorted(found)), is_cacheable

    def _keep(self, node: ExchangeNode, key: str, route: tuple[QueueRecord, ...]) -> None:
        weight = len(route) + 4
        if self._weight + weight > ROUTES_WEIGHT_MAX:
            self._forget_all()
        node.routes[key] = route
        self._cached[node] = None
        self._weight += weight

    def _reach(self) -> None:
        """A name leads somewhere that led nowhere before.

        A message could only find that out by this name, and nobody keeps that it went nowhere; only from exchange to
        exchange can it have gone astray halfway.
        """
        if self._links:
            self._forget(None)

    def _forget(self, node: ExchangeNode | None) -> None:
        """Drop the cached routes that a change at `node` (None: at a queue by its name) can have altered."""
        self._version.rise()
        if self._links:
            self._forget_all()
        elif node is not None and node.routes:
            self._weight -= sum(len(route) + 4 for route in node.routes.values())
            node.routes.clear()
            del self._cached[node]

    def _forget_all(self) -> None:
        for node in self._cached:
            node.routes.clear()
        self._cached.clear()
        self._weight = 0

    def _remove_binding(self, binding: Binding) -> None:
        del binding.source.outgoing[binding.key]
        del binding.destination.incoming[binding.uid]
        binding.source.matcher.remove(binding)
        self._rows.drop(Table.BINDING, binding.uid)
        self._forget(binding.source)
        self._links -= binding.to_exchange

    def _take_out(self, node: ExchangeNode) -> list[Binding]:
        """Remove an exchange; returns the bindings that led to it, which are gone too."""
        for binding in list(node.outgoing.values()):
            self._remove_binding(binding)
        bindings = list(node.incoming.values())
        for binding in bindings:
            self._remove_binding(binding)
        self._forget(node)
        del self.exchanges[node.record.name]
        self._rows.drop(Table.EXCHANGE, node.record.uid)
        self._links -= node.record.alternate is not None
        return bindings

    def _auto_delete(self, removed: Iterable[Binding]) -> None:
        """Remove the auto-delete exchanges that lost their last binding, and what they leave without one."""
        work = [binding.source for binding in removed]
        while work:
            node = work.pop()
            is_here = self.exchanges.get(node.record.name) is node
            if node.record.auto_delete and not node.outgoing and is_here:
                work.extend(binding.source for binding in self._take_out(node))
