"""What the topology says of an exchange, a queue, a user: values that never change once made."""

from dataclasses import dataclass, field
from typing import NamedTuple

from node.broker.values import Table, decode_table

OUTSIDE_METADATA = 1 << 63
"""Uids with this bit are of queues that the metadata does not know: they end with a consumer (direct reply-to)."""


DELAYED_TYPE = "x-delayed-message"
"""The type of exchange whose messages may be delayed by the header x-delay."""


class Owner(NamedTuple):
    """The session that an exclusive queue belongs to; session ids are unique within their node."""

    node: int
    session: int


@dataclass(slots=True, frozen=True)
class QueueRecord:
    """A queue.

    Args:
        uid: rising with the order of creation, never used again, not even for the same name.
        group: the shard that holds it, or MEMORY_GROUP + node.
        durable: False for every exclusive queue.
        table: the arguments in canonical form (values.py), as declared but without x-name-prefix.
        owner: None unless exclusive.
    """

    uid: int
    vhost: str
    name: str
    group: int
    durable: bool
    auto_delete: bool
    table: bytes
    owner: Owner | None = None

    @property
    def arguments(self) -> Table:
        """The arguments, decoded."""
        return decode_table(self.table)

    @property
    def exclusive(self) -> bool:
        """Whether only its owner may use it."""
        return self.owner is not None


@dataclass(slots=True, frozen=True)
class ExchangeRecord:
    """An exchange.

    Args:
        uid: 0 for those that every vhost has from the start.
        type: one of `node.broker.exchange.MATCHERS`, or x-delayed-message.
        alternate: where messages go that it cannot route; None if nowhere.
        arguments: as declared. Not to be changed.
    """

    uid: int
    vhost: str
    name: str
    type: str
    durable: bool = True
    auto_delete: bool = False
    internal: bool = False
    arguments: Table = field(default_factory=dict, hash=False)

    @property
    def routing_type(self) -> str:
        """How it routes: its type, or that which x-delayed-message is told to be."""
        return str(self.arguments.get("x-delayed-type")) if self.type == DELAYED_TYPE else self.type

    @property
    def alternate(self) -> str | None:
        """Name of the alternate exchange."""
        name = self.arguments.get("alternate-exchange")
        return name if isinstance(name, str) else None


class BindingRecord(NamedTuple):
    """A binding, for listings."""

    vhost: str
    source: str
    destination: str
    to_exchange: bool
    routing_key: str
    arguments: Table


@dataclass(slots=True, frozen=True)
class UserRecord:
    """A user; `password_hash` is scrypt's, see passwords.py. An empty one lets nobody in."""

    uid: int
    name: str
    salt: bytes = field(repr=False)
    password_hash: bytes = field(repr=False)
    tags: tuple[str, ...] = ()


class Permission(NamedTuple):
    """What a user may do in a vhost: regular expressions, searched in the names of exchanges and queues."""

    configure: str
    write: str
    read: str
