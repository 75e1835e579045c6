"""Exchanges that give each message to one of their bindings: by a hash, or by chance.

x-consistent-hash: by weights, and so that a binding that comes or goes moves only its own share (rendezvous hashing:
each binding draws a number from the hash, the greatest wins). x-modulus-hash: evenly, everything moves. x-random and
x-local-random: by chance; every node has every queue, so none is more local than another.
"""

import math
import zlib
from collections.abc import Iterable
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from node.broker.message import Message
from node.broker.values import Table, show
from node.errors import PreconditionFailed

if TYPE_CHECKING:
    from node.broker.exchange import Binding

HASH_PROPERTIES = ("message_id", "correlation_id", "timestamp")

_MIX_1, _MIX_2, _ALL_BITS = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, (1 << 64) - 1


class ConsistentHashMatcher:
    """The binding key is the weight: how many shares of the messages the binding gets.

    Args:
        arguments: of the exchange: hash-header or hash-property, instead of the routing key.
    """

    __slots__ = ("_bound", "_header", "_property", "is_cacheable")

    def __init__(self, arguments: Table) -> None:
        self._bound: dict[int, tuple[Binding, int]] = {}
        self._header = arguments.get("hash-header")
        self._property = arguments.get("hash-property")
        self.is_cacheable = self._header is None and self._property is None

    def add(self, binding: "Binding") -> None:
        """Take a binding in; its key was checked with `check_weight`."""
        self._bound[binding.uid] = (binding, int(binding.routing_key))

    def remove(self, binding: "Binding") -> None:
        """Let a binding go."""
        del self._bound[binding.uid]

    def match(self, routing_key: str, message: Message) -> Iterable["Binding"]:
        """The one whose number is the greatest."""
        if not self._bound:
            return ()
        value: Any = routing_key
        if self._header is not None:
            value = message.headers().get(self._header, "")
        elif self._property is not None:
            value = getattr(message.properties(), self._property)
        digest = blake2b(_bytes(value), digest_size=8).digest()
        seed = int.from_bytes(digest, "big")
        best = max(self._bound, key=lambda uid: (_share(seed, uid, self._bound[uid][1]), uid))
        return (self._bound[best][0],)


class ModulusHashMatcher:
    """The hash of the routing key, modulo the number of bindings, in the order in which they were made."""

    __slots__ = ("_bound",)
    is_cacheable = True

    def __init__(self, _arguments: Table) -> None:
        self._bound: dict[int, Binding] = {}

    def add(self, binding: "Binding") -> None:
        """Take a binding in."""
        self._bound[binding.uid] = binding

    def remove(self, binding: "Binding") -> None:
        """Let a binding go."""
        del self._bound[binding.uid]

    def match(self, routing_key: str, message: Message) -> Iterable["Binding"]:  # noqa: ARG002 - as Matcher
        """One of them."""
        if not self._bound:
            return ()
        return (self._bound[sorted(self._bound)[zlib.crc32(_bytes(routing_key)) % len(self._bound)]],)


class RandomMatcher:
    """Any of the bindings, another one for each message."""

    __slots__ = ("_bound",)
    is_cacheable = False

    def __init__(self, _arguments: Table) -> None:
        self._bound: list[Binding] = []

    def add(self, binding: "Binding") -> None:
        """Take a binding in."""
        self._bound.append(binding)

    def remove(self, binding: "Binding") -> None:
        """Let a binding go."""
        self._bound.remove(binding)

    def match(self, routing_key: str, message: Message) -> Iterable["Binding"]:  # noqa: ARG002 - as Matcher
        """One of them."""
        return (self._bound[message.chance(len(self._bound))],) if self._bound else ()


def check_weight(key: str) -> None:
    """Raise 406 for a binding key that is no weight."""
    try:
        weight = int(key)
    except ValueError:
        raise PreconditionFailed(f"The binding key must be an integer: {key}") from None
    if weight <= 0:
        raise PreconditionFailed("The binding key must be greater than 0")


def check_hash_arguments(arguments: Table) -> None:
    """Raise 406 where an exchange is told to hash what it cannot, or two things."""
    if "hash-header" in arguments and "hash-property" in arguments:
        raise PreconditionFailed("hash-header and hash-property are mutually exclusive")
    name = arguments.get("hash-property", HASH_PROPERTIES[0])
    if name not in HASH_PROPERTIES:
        raise PreconditionFailed(f"Unsupported property: {show(name)}")


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogateescape")


def _share(seed: int, uid: int, weight: int) -> float:
    """A number that is the greatest of several as often as `weight` is part of their sum."""
    mixed = (seed ^ uid * 0x9E3779B97F4A7C15) & _ALL_BITS
    mixed = (mixed ^ mixed >> 30) * _MIX_1 & _ALL_BITS
    mixed = (mixed ^ mixed >> 27) * _MIX_2 & _ALL_BITS
    mixed ^= mixed >> 31
    return -weight / math.log((mixed + 1) / (_ALL_BITS + 2))
