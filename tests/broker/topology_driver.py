"""Drives a TopologyMachine by commands, as a host would: one entry a call, behind an origin header."""

from collections.abc import Iterable
from typing import Any

from cluster.machine import Meta
from node.broker import topology_commands as commands
from node.broker.effects import Reply
from node.broker.message import Opened
from node.broker.records import ExchangeRecord, Owner, QueueRecord
from node.broker.topology import TopologyMachine
from node.errors import AmqpError
from node.wire.properties import BasicProperties

NODE = 1
SESSION = 7
HEADER = b"origin header, 18b"


def message(headers: dict[str, Any] | None = None, **properties: Any) -> Opened:
    """A message with these headers and properties; chance gives the same each time."""
    return Opened(BasicProperties(headers=headers, **properties), bytes)


class Topology:
    """A machine with the position of its log; `run` returns the values of the replies."""

    def __init__(self) -> None:
        self.machine = TopologyMachine(NODE)
        self.index = 0
        self.effects: list[Any] = []

    def run(self, *made: tuple[bytes, ...], origin: int = NODE) -> list[Any]:
        self.index += 1
        data = HEADER + b"".join(part for parts in made for part in parts)
        self.effects = self.machine.apply(Meta(self.index, 0, origin), data, len(HEADER))
        return [effect.value for effect in self.effects if isinstance(effect, Reply)]

    def one(self, made: tuple[bytes, ...], origin: int = NODE) -> Any:
        values = self.run(made, origin=origin)
        return values[0] if values else None

    def refusal(self, made: tuple[bytes, ...], origin: int = NODE) -> str:
        value = self.one(made, origin)
        assert isinstance(value, AmqpError), value
        return f"{value.reply_code} {value.text}"

    def queue(self, name: str, **changes: Any) -> QueueRecord:
        origin = changes.pop("origin", NODE)
        self.run(queue(name, **changes), origin=origin)
        record = self.machine.queue(changes.get("vhost", "/"), name)
        assert record is not None
        return record

    def exchange(self, name: str, kind: str = "direct", **changes: Any) -> ExchangeRecord:
        self.run(exchange(name, kind, **changes))
        record = self.machine.exchange("/", name)
        assert record is not None
        return record

    def bind(self, exchange: str, queue: str, key: str = "", arguments: dict[str, Any] | None = None) -> None:
        assert self.one(commands.bind_queue(1, "/", queue, exchange, key, arguments or {}, SESSION)) is None

    def unbind(
        self, exchange: str, queue: str, key: str = "", arguments: dict[str, Any] | None = None
    ) -> None:
        assert self.one(commands.unbind_queue(1, "/", queue, exchange, key, arguments or {}, SESSION)) is None

    def link(self, source: str, destination: str, key: str = "") -> None:
        assert self.one(commands.bind_exchange(1, "/", destination, source, key, {})) is None

    def route(self, exchange: str, key: str = "", headers: dict[str, Any] | None = None) -> list[str] | None:
        records = self.machine.route("/", exchange, key, message(headers))
        return None if records is None else [record.name for record in records]

    def route_all(self, exchange: str, *keys: str, headers: dict[str, Any] | None = None) -> list[str] | None:
        records = self.machine.route_all("/", exchange, keys, message(headers))
        return None if records is None else [record.name for record in records]


def queue(name: str, **changes: Any) -> tuple[bytes, ...]:
    values: dict[str, Any] = {
        "vhost": "/",
        "durable": True,
        "exclusive": False,
        "auto_delete": False,
        "arguments": {},
        "group": 3,
        "session": SESSION,
    }
    values.update(changes)
    return commands.declare_queue(1, values.pop("vhost"), name, **values)


def exchange(name: str, kind: str = "direct", **changes: Any) -> tuple[bytes, ...]:
    values: dict[str, Any] = {"durable": True, "auto_delete": False, "internal": False, "arguments": {}}
    values.update(changes)
    return commands.declare_exchange(1, "/", name, kind, **values)


def owner(session: int = SESSION, node: int = NODE) -> Owner:
    return Owner(node, session)


def names(records: Iterable[QueueRecord | ExchangeRecord]) -> list[str]:
    return [record.name for record in records]
