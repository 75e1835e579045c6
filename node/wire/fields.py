"""How a method is made from its class: the annotations, in order, are the layout of the arguments.

The names of the annotations (AMQP 4.2.5: Octet, Short, ... Bit) are read as text when the class is made, so
that each field is written once and mypy sees its Python type. Consecutive bits share octets, lowest bit first
(AMQP 4.2.5.2).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from inspect import get_annotations
from typing import ClassVar, Final, TypeAlias, TypeVar, dataclass_transform

from node.errors import AmqpError, CommandInvalid
from node.wire import primitives
from node.wire.primitives import FRAME_END, Reader

Octet: TypeAlias = int
Short: TypeAlias = int
Long: TypeAlias = int
Longlong: TypeAlias = int
Bit: TypeAlias = bool
Shortstr: TypeAlias = str
Longstr: TypeAlias = bytes
Table: TypeAlias = primitives.Table

FIELD_TYPES: Final = ("Octet", "Short", "Long", "Longlong", "Bit", "Shortstr", "Longstr", "Table")

_FRAME_HEAD: Final = struct.Struct(">BHI")
_METHOD_FRAME: Final = 1


class Method:
    """What all methods have. Build them by keyword: many start with a field that nobody uses any more."""

    __slots__ = ()

    class_id: ClassVar[int] = 0
    method_id: ClassVar[int] = 0
    name: ClassVar[str] = ""
    """As the specification writes it: `queue.declare-ok`."""
    synchronous: ClassVar[bool] = False
    has_content: ClassVar[bool] = False
    layout: ClassVar[tuple[tuple[str, str], ...]] = ()
    """(field name, one of FIELD_TYPES), in the order of the arguments."""

    def encode(self) -> bytes:
        """The payload of the method frame: ids and arguments. ValueError where a value does not fit."""
        parts = [primitives.encode_short(self.class_id), primitives.encode_short(self.method_id)]
        bit = 0
        for name, kind in self.layout:
            value = getattr(self, name)
            if kind != "Bit":
                parts.append(_ENCODERS[kind](value))
                bit = 0
                continue
            if bit % 8 == 0:
                parts.append(b"\x00")
            if value:
                parts[-1] = bytes((parts[-1][0] | 1 << bit % 8,))
            bit += 1
        return b"".join(parts)


_METHODS: Final[dict[int, type[Method]]] = {}

_ENCODERS: Final[dict[str, Callable[..., bytes]]] = {
    "Octet": lambda value: primitives.encode_short(value)[1:] if value < 256 else _refuse_octet(value),
    "Short": primitives.encode_short,
    "Long": primitives.encode_long,
    "Longlong": primitives.encode_longlong,
    "Shortstr": primitives.encode_shortstr,
    "Longstr": primitives.encode_longstr,
    "Table": primitives.encode_table,
}
_DECODERS: Final[dict[str, Callable[[Reader], object]]] = {
    "Octet": Reader.octet,
    "Short": Reader.short,
    "Long": Reader.long,
    "Longlong": Reader.longlong,
    "Shortstr": Reader.shortstr,
    "Longstr": Reader.longstr,
    "Table": Reader.table,
}

M = TypeVar("M", bound=Method)


@dataclass_transform()
def amqp_method(
    name: str, class_id: int, method_id: int, *, synchronous: bool = False, has_content: bool = False
) -> Callable[[type[M]], type[M]]:
    """Make a class whose annotations are a method's fields into that method; register it under its ids."""

    def decorate(source: type[M]) -> type[M]:
        layout = tuple(get_annotations(source).items())
        assert all(kind in FIELD_TYPES for _, kind in layout), f"{name} has a field of an unknown type"
        made = dataclass(slots=True)(source)
        made.name = name
        made.class_id = class_id
        made.method_id = method_id
        made.synchronous = synchronous
        made.has_content = has_content
        made.layout = layout
        key = class_id << 16 | method_id
        assert key not in _METHODS, f"{name} has the ids of {_METHODS[key].name}"
        _METHODS[key] = made
        return made

    return decorate


def all_methods() -> tuple[type[Method], ...]:
    """Every method that was defined, in the order of definition."""
    return tuple(_METHODS.values())


def decode_method(method_id: int, args: bytes) -> Method:
    """The method with the ids `class << 16 | method` whose arguments are `args`.

    Raises:
        CommandInvalid: 503, there is no such method.
        FrameError: 501, the arguments do not add up.
        AmqpSyntaxError: 502, a table nests too deep.
    """
    made = _METHODS.get(method_id)
    if made is None:
        msg = "unimplemented method"
        raise CommandInvalid(msg, method_id >> 16, method_id & 0xFFFF)
    try:
        build: Callable[..., Method] = made
        return build(*_decode_fields(made.layout, args))
    except AmqpError as error:
        error.class_id, error.method_id = made.class_id, made.method_id
        raise


def frame(frame_type: int, channel: int, payload: bytes) -> bytes:
    """Any frame as bytes (AMQP 4.2.3)."""
    return _FRAME_HEAD.pack(frame_type, channel, len(payload)) + payload + bytes((FRAME_END,))


def method_frame(channel: int, method: Method) -> bytes:
    """A method as a whole frame."""
    return frame(_METHOD_FRAME, channel, method.encode())


def _decode_fields(layout: tuple[tuple[str, str], ...], args: bytes) -> list[object]:
    reader = Reader(args)
    values: list[object] = []
    bit = bits = 0
    for _, kind in layout:
        if kind != "Bit":
            values.append(_DECODERS[kind](reader))
            bit = 0
            continue
        if bit % 8 == 0:
            bits = reader.octet()
        values.append(bool(bits >> bit % 8 & 1))
        bit += 1
    reader.finish()
    return values


def _refuse_octet(value: int) -> bytes:
    msg = f"octet {value} out of range"
    raise ValueError(msg)
