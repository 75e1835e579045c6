"""Exchanges at work: which bindings a message follows, for each exchange type.

A matcher holds the bindings of one exchange, so that adding and removing one takes the same time whatever
their number. Walking from exchange to exchange, and caching, is done by vhost.py.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from node.broker.message import Message
from node.broker.records import ExchangeRecord, QueueRecord
from node.broker.spread import ConsistentHashMatcher, ModulusHashMatcher, RandomMatcher, check_weight
from node.broker.topic import TopicTrie
from node.broker.values import EMPTY, Table, decode_table, term
from node.errors import PreconditionFailed
from node.wire.primitives import type_name

BindingKey = tuple[bool, str, str, bytes]
"""What tells the bindings of an exchange apart: to an exchange?, destination, routing key, arguments."""


class QueueNode:
    """A queue within the topology, with the bindings that lead to it."""

    __slots__ = ("incoming", "record", "route")

    def __init__(self, record: QueueRecord) -> None:
        self.record = record
        self.incoming: dict[int, Binding] = {}
        self.route = (record,)


class ExchangeNode:
    """An exchange within the topology, with the bindings that leave it and those that lead to it.

    Args:
        routes: routing key -> queues, a cache; "" is the only key of a fanout exchange.
    """

    __slots__ = ("incoming", "matcher", "outgoing", "record", "routes")

    def __init__(self, record: ExchangeRecord) -> None:
        self.record = record
        self.matcher: Matcher = MATCHERS[record.routing_type](record.arguments)
        self.outgoing: dict[BindingKey, Binding] = {}
        self.incoming: dict[int, Binding] = {}
        self.routes: dict[str, tuple[QueueRecord, ...]] = {}


class Binding:
    """A binding: from an exchange to a queue or an exchange. `arguments` is in canonical form (values.py)."""

    __slots__ = ("arguments", "destination", "routing_key", "source", "uid")

    def __init__(
        self,
        uid: int,
        source: ExchangeNode,
        destination: QueueNode | ExchangeNode,
        routing_key: str,
        arguments: bytes,
    ) -> None:
        self.uid = uid
        self.source = source
        self.destination = destination
        self.routing_key = routing_key
        self.arguments = arguments

    @property
    def to_exchange(self) -> bool:
        """Whether it leads to an exchange."""
        return isinstance(self.destination, ExchangeNode)

    @property
    def key(self) -> BindingKey:
        """Its name among the bindings of its source."""
        return (self.to_exchange, self.destination.record.name, self.routing_key, self.arguments)


class Matcher(Protocol):
    """The bindings of one exchange, arranged for its type."""

    is_cacheable: bool

    def add(self, binding: Binding) -> None:
        """Take a binding in."""

    def remove(self, binding: Binding) -> None:
        """Let a binding go that was taken in."""

    def match(self, routing_key: str, message: Message) -> Iterable[Binding]:
        """The bindings that a message follows, in a fixed order."""


class DirectMatcher:
    """The routing key is the binding key (AMQP 3.1.3.1)."""

    __slots__ = ("_by_key",)
    is_cacheable = True

    def __init__(self, _arguments: Table) -> None:
        self._by_key: dict[str, dict[int, Binding]] = {}

    def add(self, binding: Binding) -> None:
        """Take a binding in."""
        self._by_key.setdefault(binding.routing_key, {})[binding.uid] = binding

    def remove(self, binding: Binding) -> None:
        """Let a binding go."""
        bound = self._by_key[binding.routing_key]
        del bound[binding.uid]
        if not bound:
            del self._by_key[binding.routing_key]

    def match(self, routing_key: str, message: Message) -> Iterable[Binding]:  # noqa: ARG002 - as Matcher
        """Those with this very key."""
        bound = self._by_key.get(routing_key)
        return bound.values() if bound else ()


class FanoutMatcher:
    """Every binding matches (AMQP 3.1.3.2)."""

    __slots__ = ("_bound",)
    is_cacheable = True

    def __init__(self, _arguments: Table) -> None:
        self._bound: dict[int, Binding] = {}

    def add(self, binding: Binding) -> None:
        """Take a binding in."""
        self._bound[binding.uid] = binding

    def remove(self, binding: Binding) -> None:
        """Let a binding go."""
        del self._bound[binding.uid]

    def match(self, routing_key: str, message: Message) -> Iterable[Binding]:  # noqa: ARG002 - as Matcher
        """All."""
        return self._bound.values()


class TopicMatcher:
    """The binding key is a pattern of words (AMQP 3.1.3.3)."""

    __slots__ = ("_trie",)
    is_cacheable = True

    def __init__(self, _arguments: Table) -> None:
        self._trie: TopicTrie[Binding] = TopicTrie()

    def add(self, binding: Binding) -> None:
        """Take a binding in."""
        self._trie.add(binding.routing_key, binding.uid, binding)

    def remove(self, binding: Binding) -> None:
        """Let a binding go."""
        self._trie.remove(binding.routing_key, binding.uid)

    def match(self, routing_key: str, message: Message) -> Iterable[Binding]:  # noqa: ARG002 - as Matcher
        """Those whose pattern the key matches."""
        return self._trie.match(routing_key)


def match_all(matcher: Matcher, routing_keys: Sequence[str], message: Message) -> list[Binding]:
    """The bindings that a message with further routing keys (CC, BCC) follows.

    Types that compare a key with binding keys look at all of them, the others at the first.
    """
    keys = routing_keys if isinstance(matcher, DirectMatcher | TopicMatcher) else routing_keys[:1]
    return [binding for key in keys for binding in matcher.match(key, message)]


class HeadersMatcher:
    """The binding's arguments are compared with the message's headers (AMQP 3.1.3.4)."""

    __slots__ = ("_bound",)
    is_cacheable = False

    def __init__(self, _arguments: Table) -> None:
        self._bound: dict[int, tuple[Binding, HeadersPattern]] = {}

    def add(self, binding: Binding) -> None:
        """Take a binding in; its arguments were checked with `check_x_match`."""
        self._bound[binding.uid] = (binding, HeadersPattern(decode_table(binding.arguments)))

    def remove(self, binding: Binding) -> None:
        """Let a binding go."""
        del self._bound[binding.uid]

    def match(self, routing_key: str, message: Message) -> Iterable[Binding]:  # noqa: ARG002 - as Matcher
        """Those whose pattern the headers match."""
        if not self._bound:
            return ()
        table = message.headers()
        return [binding for binding, pattern in self._bound.values() if pattern.matches(table)]


class HeadersPattern:
    """What a binding to a headers exchange asks of the headers of a message.

    `all` is met by no condition at all, `any` is not. A condition without a value (void) asks only that the
    header is there. Names that begin with x- count only in the -with-x modes, x-match itself never.
    """

    __slots__ = ("_conditions", "_is_any")

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        mode = arguments.get("x-match", "all")
        self._is_any = mode in ("any", "any-with-x")
        with_x = mode in ("all-with-x", "any-with-x")
        self._conditions = [
            (key, _comparable(value))
            for key, value in arguments.items()
            if key != "x-match" and (with_x or not key.startswith("x-"))
        ]

    def matches(self, headers: Mapping[str, Any]) -> bool:
        """Whether headers meet the conditions."""
        is_any = self._is_any
        for key, value in self._conditions:
            met = key in headers and (value is None or _comparable(headers[key]) == value)
            if met == is_any:
                return is_any
        return not is_any


def _comparable(value: Any) -> Any:
    """A value as headers are compared: numbers by their value, texts by their bytes, whatever their types; a boolean
    is no number.
    """
    if isinstance(value, bool):
        return (value,)
    return value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value


X_MATCH_MODES = ("all", "any", "all-with-x", "any-with-x")


def check_binding(exchange_type: str, key: str, arguments: bytes) -> None:
    """Raise 406 where a binding means nothing to an exchange of this type, 50x for what is no table."""
    if exchange_type == "x-consistent-hash":
        check_weight(key)
    if arguments == EMPTY:
        return
    mode = decode_table(arguments).get("x-match", "all")
    if exchange_type != "headers":
        return
    if not isinstance(mode, str):
        kind = type_name(mode)
        raise PreconditionFailed(f"Invalid x-match field type {kind} (value {term(mode)}); expected longstr")
    if mode not in X_MATCH_MODES:
        raise PreconditionFailed(
            f"Invalid x-match field value {term(mode)}; expected all, any, all-with-x, or any-with-x"
        )


MATCHERS: dict[str, Callable[[Table], Matcher]] = {
    "direct": DirectMatcher,
    "fanout": FanoutMatcher,
    "topic": TopicMatcher,
    "headers": HeadersMatcher,
    "x-consistent-hash": ConsistentHashMatcher,
    "x-modulus-hash": ModulusHashMatcher,
    "x-random": RandomMatcher,
    "x-local-random": RandomMatcher,
}
"""By type; given the arguments of the exchange."""
