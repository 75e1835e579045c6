"""A step of a sequence: one method on one channel of one connection, the same for both brokers.

What a broker makes up by itself (names of queues, consumer tags) is written as `amq.gen#0`, the first such name of the
sequence; deliveries are named by `pick`, because their tags are told at run time only.
"""

from dataclasses import dataclass, fields

from node.wire.methods import BasicPublish, Method
from node.wire.properties import BasicProperties


@dataclass(slots=True)
class Step:
    """`pick`: settle the nth of what is unacked on the channel, or an unknown tag if there is none.

    `wait_ms`: wait so long after sending, for what time does.
    """

    method: Method
    connection: int = 0
    channel: int = 1
    properties: BasicProperties | None = None
    body: bytes = b""
    pick: int | None = None
    wait_ms: int = 0

    def __str__(self) -> str:
        parts = [f"{self.connection}.{self.channel} {shown(self.method)}"]
        if isinstance(self.method, BasicPublish):
            parts.append(f"{self.body!r} {shown(self.properties or BasicProperties())}")
        if self.pick is not None:
            parts.append(f"pick {self.pick}")
        if self.wait_ms:
            parts.append(f"then wait {self.wait_ms} ms")
        return ", ".join(parts)


def shown(thing: Method | BasicProperties) -> str:
    """A method or properties with those fields that are not as usual."""
    usual = type(thing)()
    values = ((field.name, getattr(thing, field.name)) for field in fields(thing))
    told = [f"{name}={value!r}" for name, value in values if value != getattr(usual, name)]
    return f"{type(thing).__name__}({', '.join(told)})"
