"""Runs as the rows of the store have them, and what can be told of plain ones without reading each.

A node that starts may have millions of runs in its queues, nearly all of them plain: they do not expire, have no
priority, and their queue does not count bytes. They stay packed until their turn comes.
"""

import struct
from collections.abc import Iterable, Iterator

from node.broker.runs import PLAIN, Run

RUN = struct.Struct(">QIIIHHBQI")
"""Log index, command offset, first record, count, returns, failures, then the traits."""
_PLAIN_RUN = struct.Struct(">QIIIHH13x")
_REFERENCE = struct.Struct(">Q8xI17x")
_COUNT_AT, _TRAITS_AT = 16, 24


def pack(runs: Iterable[Run]) -> bytes:
    """Return runs one behind the other."""
    pack_one = RUN.pack
    return b"".join([pack_one(*run[:6], *run[6]) for run in runs])


def unpack_plain(packed: bytes) -> list[Run]:
    """Return runs of which it is known that they are plain."""
    return [(a, b, c, d, e, f, PLAIN) for a, b, c, d, e, f in _PLAIN_RUN.iter_unpack(packed)]


def are_plain(packed: bytes) -> bool:
    """Whether all runs have plain traits."""
    # Byte by byte of all runs at once: reading each would take longer than all else at a start.
    zeros = bytes(run_count(packed))
    return all(packed[at :: RUN.size] == zeros for at in range(_TRAITS_AT, RUN.size))


def run_count(packed: bytes) -> int:
    """Return the number of runs."""
    return len(packed) // RUN.size


def message_count(packed: bytes) -> int:
    """Return the number of messages of all runs."""
    sums = [sum(packed[at :: RUN.size]) for at in range(_COUNT_AT, _COUNT_AT + 4)]
    return (sums[0] << 24) + (sums[1] << 16) + (sums[2] << 8) + sums[3]


def references(packed: bytes) -> Iterator[tuple[int, int]]:
    """Yield log index and messages of each run."""
    return _REFERENCE.iter_unpack(packed)
