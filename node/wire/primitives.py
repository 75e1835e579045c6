"""The elementary data types of AMQP 4.2.5: integers, strings, field tables and arrays, to and from bytes.

Off the path of messages: method arguments and, on demand, properties come through here. Decoding raises
nothing but AmqpError, whatever the bytes; encoding raises ValueError, because there a wrong value is our own
fault.

A field value keeps the type it had on the wire: the plain Python types stand for the commonest tag,
subclasses of int, float and bytes (which compare equal to the plain ones) for the others. So a table goes out
as it came in, and the arguments 1 as `b` and 1 as `l` are equal, as clients expect of a redeclaration.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import ClassVar, Final, NamedTuple, NoReturn, TypeAlias

from node.errors import AmqpSyntaxError, FrameError

TABLE_DEPTH_MAX: Final = 32
"""Tables and arrays within each other. Real headers nest 3 deep (x-death); the bound keeps recursion
harmless."""

FRAME_END: Final = 0xCE
FRAME_OVERHEAD_BYTES: Final = 8

_SHORT = struct.Struct(">H")
_LONG = struct.Struct(">I")
_LONGLONG = struct.Struct(">Q")


class Byte(int):
    """Tag b, 8 bits signed."""

    type_name: ClassVar[str] = "byte"


class UnsignedByte(int):
    """Tag B, 8 bits unsigned."""

    type_name: ClassVar[str] = "unsignedbyte"


class Short(int):
    """Tag s, 16 bits signed."""

    type_name: ClassVar[str] = "short"


class UnsignedShort(int):
    """Tag u, 16 bits unsigned."""

    type_name: ClassVar[str] = "unsignedshort"


class UnsignedInt(int):
    """Tag i, 32 bits unsigned. A plain int stands for tag I (signed) where it fits, for tag l otherwise."""

    type_name: ClassVar[str] = "unsignedint"


class Long(int):
    """Tag l (or L), 64 bits signed."""

    type_name: ClassVar[str] = "long"


class Timestamp(int):
    """Tag T, seconds since 1970, 64 bits unsigned."""

    type_name: ClassVar[str] = "timestamp"


class Float(float):
    """Tag f, 32 bits. A plain float stands for tag d."""

    type_name: ClassVar[str] = "float"


class LongstrBytes(bytes):
    """Tag S with bytes that are not UTF-8. A plain str stands for the others, plain bytes for tag x."""

    type_name: ClassVar[str] = "longstr"


class Decimal(NamedTuple):
    """Tag D: value / 10 ** scale."""

    scale: int
    value: int


FieldValue: TypeAlias = (
    "bool | int | float | str | bytes | Decimal | list[FieldValue] | dict[str, FieldValue] | None"
)
Table: TypeAlias = dict[str, FieldValue]

_INTEGERS: Final[dict[int, tuple[struct.Struct, type[int]]]] = {
    ord("b"): (struct.Struct(">b"), Byte),
    ord("B"): (struct.Struct(">B"), UnsignedByte),
    ord("s"): (struct.Struct(">h"), Short),
    ord("u"): (struct.Struct(">H"), UnsignedShort),
    ord("I"): (struct.Struct(">i"), int),
    ord("i"): (struct.Struct(">I"), UnsignedInt),
    ord("l"): (struct.Struct(">q"), Long),
    ord("L"): (struct.Struct(">q"), Long),
    ord("T"): (struct.Struct(">Q"), Timestamp),
}
_FLOATS: Final[dict[int, tuple[struct.Struct, type[float]]]] = {
    ord("f"): (struct.Struct(">f"), Float),
    ord("d"): (struct.Struct(">d"), float),
}
_INTEGER_TAGS: Final[dict[type[int], int]] = {
    kind: tag for tag, (_, kind) in _INTEGERS.items() if tag != ord("L")
}


def erlang_bytes(data: bytes) -> str:
    """Bytes as error texts show them: `<<>>`, `<<"text">>` or `<<1,2,3>>`; cut, as a reply text is short."""
    shown = data[:256]
    if not shown:
        return "<<>>"
    if all(32 <= octet < 127 for octet in shown):
        return f'<<"{shown.decode("ascii")}">>'
    return f"<<{','.join(map(str, shown))}>>"


class Reader:
    """Takes values off the front of some bytes; each method raises 501 FrameError where the bytes do not hold
    one.

    Args:
        data: all that there is; nothing beyond it is read.
        offset: where to begin.
        text_errors: "strict" where a shortstr must be UTF-8 (method arguments), "surrogateescape" where the
        bytes
            are not ours to judge and must come out again as they went in (properties).
    """

    __slots__ = ("_data", "_text_errors", "offset")

    def __init__(self, data: bytes, offset: int = 0, *, text_errors: str = "strict") -> None:
        self._data = data
        self._text_errors = text_errors
        self.offset = offset

    def fail(self) -> NoReturn:
        """Raise the error for bytes that do not add up."""
        msg = f"cannot decode {erlang_bytes(self._data)}"
        raise FrameError(msg)

    def at_end(self) -> bool:
        """Tell whether all bytes were taken."""
        return self.offset == len(self._data)

    def finish(self) -> None:
        """Raise where bytes are left over."""
        if self.offset != len(self._data):
            self.fail()

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        end = self.offset + count
        if end > len(self._data):
            self.fail()
        taken = self._data[self.offset : end]
        self.offset = end
        return taken

    def octet(self) -> int:
        """8 bits unsigned."""
        return self.take(1)[0]

    def short(self) -> int:
        """16 bits unsigned."""
        return int.from_bytes(self.take(2), "big")

    def long(self) -> int:
        """32 bits unsigned."""
        return int.from_bytes(self.take(4), "big")

    def longlong(self) -> int:
        """64 bits unsigned."""
        return int.from_bytes(self.take(8), "big")

    def shortstr(self) -> str:
        """Up to 255 bytes of UTF-8."""
        encoded = self.take(self.octet())
        try:
            return encoded.decode("utf-8", self._text_errors)
        except UnicodeDecodeError:
            msg = "Malformed UTF-8 in shortstr"
            raise FrameError(msg) from None

    def longstr(self) -> bytes:
        """Up to 4 GiB of any bytes."""
        return self.take(self.long())

    def table(self, depth: int = 1) -> Table:
        """A field table; of two equal names the later wins. 502 where it nests deeper than allowed."""
        end = self._nested_end(depth)
        table: Table = {}
        while self.offset < end:
            name = self.shortstr()
            table[name] = self.value(depth)
        if self.offset != end:
            self.fail()
        return table

    def array(self, depth: int = 1) -> list[FieldValue]:
        """A field array, bounded in depth as a table is."""
        end = self._nested_end(depth)
        array: list[FieldValue] = []
        while self.offset < end:
            array.append(self.value(depth))
        if self.offset != end:
            self.fail()
        return array

    def value(self, depth: int = 1) -> FieldValue:
        """A field value with its tag, within `depth` tables and arrays."""
        tag = self.octet()
        if tag in _INTEGERS:
            packing, integer = _INTEGERS[tag]
            return integer(packing.unpack(self.take(packing.size))[0])
        if tag in _FLOATS:
            packing, number = _FLOATS[tag]
            return number(packing.unpack(self.take(packing.size))[0])
        return self._other_value(tag, depth)

    def _other_value(self, tag: int, depth: int) -> FieldValue:
        match chr(tag):
            case "S":
                return _text_or_bytes(self.longstr())
            case "t":
                return self.octet() != 0
            case "F":
                return self.table(depth + 1)
            case "A":
                return self.array(depth + 1)
            case "x":
                return self.longstr()
            case "D":
                return Decimal(self.octet(), self.long())
            case "V":
                return None
            case _:
                return self.fail()

    def _nested_end(self, depth: int) -> int:
        if depth > TABLE_DEPTH_MAX:
            msg = f"table is nested deeper than {TABLE_DEPTH_MAX}"
            raise AmqpSyntaxError(msg)
        length = self.long()
        end = self.offset + length
        if end > len(self._data):
            self.fail()
        return end


def _text_or_bytes(data: bytes) -> str | LongstrBytes:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return LongstrBytes(data)


def encode_short(value: int) -> bytes:
    """16 bits unsigned; ValueError out of range."""
    return _pack(_SHORT, value)


def encode_long(value: int) -> bytes:
    """32 bits unsigned; ValueError out of range."""
    return _pack(_LONG, value)


def encode_longlong(value: int) -> bytes:
    """64 bits unsigned; ValueError out of range."""
    return _pack(_LONGLONG, value)


def encode_shortstr(text: str) -> bytes:
    """A shortstr; ValueError above 255 bytes."""
    encoded = text.encode("utf-8", "surrogateescape")
    if len(encoded) > 255:
        msg = f"shortstr of {len(encoded)} bytes"
        raise ValueError(msg)
    return bytes((len(encoded),)) + encoded


def encode_longstr(data: bytes) -> bytes:
    """A longstr."""
    return _pack(_LONG, len(data)) + data


def encode_table(table: Mapping[str, FieldValue]) -> bytes:
    """A field table with its length, in the order of the dict; ValueError for a value AMQP cannot carry."""
    return encode_longstr(
        b"".join([encode_shortstr(name) + encode_value(value) for name, value in table.items()])
    )


def decode_table(data: bytes) -> Table:
    """The table that `data` is, length included and nothing left over. Raises 501, 502."""
    reader = Reader(data)
    table = reader.table()
    reader.finish()
    return table


def encode_value(value: FieldValue) -> bytes:
    """A field value with its tag; ValueError for one AMQP cannot carry."""
    if isinstance(value, bool):
        return b"t\x01" if value else b"t\x00"
    if isinstance(value, int):
        return _encode_integer(value)
    if isinstance(value, float):
        return b"f" + _pack(_FLOATS[ord("f")][0], value) if isinstance(value, Float) else _double(value)
    if isinstance(value, str):
        return b"S" + encode_longstr(value.encode("utf-8", "surrogateescape"))
    if isinstance(value, bytes):
        return (b"S" if isinstance(value, LongstrBytes) else b"x") + encode_longstr(value)
    return _encode_compound(value)


def type_name(value: FieldValue) -> str:
    """The type of a field value by the name that error texts use, e.g. `longstr`, `signedint`."""
    if isinstance(value, Byte | UnsignedByte | Short | UnsignedShort | UnsignedInt | Long | Timestamp):
        return value.type_name
    if isinstance(value, Float | LongstrBytes):
        return value.type_name
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "signedint" if _fits_signed_int(value) else "long"
    if value is None:
        return "void"
    return _PLAIN_TYPE_NAMES[type(value)]


_PLAIN_TYPE_NAMES: Final[dict[type, str]] = {
    float: "double",
    str: "longstr",
    bytes: "binary",
    Decimal: "decimal",
    list: "array",
    dict: "table",
}


def _fits_signed_int(value: int) -> bool:
    return -(1 << 31) <= value < 1 << 31


def _encode_integer(value: int) -> bytes:
    kind = type(value)
    if kind not in _INTEGER_TAGS:
        kind = int
    if kind is int and not _fits_signed_int(value):
        kind = Long
    tag = _INTEGER_TAGS[kind]
    return bytes((tag,)) + _pack(_INTEGERS[tag][0], value)


def _encode_compound(value: object) -> bytes:
    if value is None:
        return b"V"
    if isinstance(value, Decimal):
        return b"D" + _pack(struct.Struct(">BI"), *value)
    if isinstance(value, list):
        return b"A" + encode_longstr(b"".join(map(encode_value, value)))
    if isinstance(value, dict):
        return b"F" + encode_table(value)
    msg = f"AMQP has no field type for {type(value).__name__}"
    raise ValueError(msg)


def _double(value: float) -> bytes:
    return b"d" + struct.pack(">d", value)


def _pack(packing: struct.Struct, *values: float) -> bytes:
    try:
        return packing.pack(*values)
    except (struct.error, OverflowError):
        msg = f"{values} out of range"
        raise ValueError(msg) from None
