"""A frame as bytes: what its entries and batches hold is copied once into it and once out of it.

Through the generated classes it would be copied into a message, from there into a growing buffer and from there
into the bytes. But protobuf writes a field behind a field, so bytes that are joined by hand are a frame like any other:
what `join` makes, the generated parser reads, and what is not of the form that `join` makes, `split` leaves to it.
"""

from collections.abc import Iterable

from google.protobuf.message import DecodeError

from cluster.wire import peer_pb2 as pb

_ENVELOPE_TAG = pb.Frame.ENVELOPE_FIELD_NUMBER << 3 | 2  # 2: a length, then so many bytes
_DATA_TAG = pb.Frame.DATA_FIELD_NUMBER << 3 | 2
_LENGTH_BYTES_MAX = 5
"""Of a length below 4 GiB; protobuf allows 2."""


def join(frame: pb.Frame, data: Iterable[bytes]) -> bytes:
    """The bytes of a frame with an envelope and with this data."""
    pieces = [frame.SerializeToString()]
    for held in data:
        pieces.append(_prefix(len(held)))
        pieces.append(held)
    return b"".join(pieces)


def split(raw: bytes) -> tuple[pb.Frame, list[bytes]]:
    """The frame in these bytes, and its data, of which the frame itself may be empty.

    Raises:
        ValueError: it is none.
    """
    data: list[bytes] = []
    end = _cut(raw, data)
    try:
        if end:
            return pb.Frame.FromString(raw[:end]), data
        frame = pb.Frame.FromString(raw)
    except DecodeError as error:
        raise ValueError("bytes that are no frame") from error
    return frame, list(frame.data)


def _cut(raw: bytes, data: list[bytes]) -> int:
    """Where the envelope ends behind which only data stands, which is appended to `data`; 0: this is something else."""
    if not raw or raw[0] != _ENVELOPE_TAG:
        return 0
    size = len(raw)
    _, end = _span(raw, 1)
    at = end
    while at < size:
        if raw[at] != _DATA_TAG:
            return 0
        start, at = _span(raw, at + 1)
        data.append(raw[start:at])
    return end if at == size else 0


def _span(raw: bytes, at: int) -> tuple[int, int]:
    """Start and end of what the length at `at` is the length of; the end is beyond that of `raw` if it is none."""
    length = 0
    for number, byte in enumerate(raw[at : at + _LENGTH_BYTES_MAX]):
        length |= (byte & 0x7F) << 7 * number
        if byte < 0x80:
            at += number + 1
            return at, at + length
    return at, len(raw) + 1


def _prefix(length: int) -> bytes:
    """Tag and length of a data field."""
    out = bytearray((_DATA_TAG,))
    while length > 0x7F:
        out.append(length & 0x7F | 0x80)
        length >>= 7
    out.append(length)
    return bytes(out)
