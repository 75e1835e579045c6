"""A message that arrives frame by frame is the same run however its body was cut."""

import random
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from node.amqp.content import PIECE_BYTES_MIN, Assembly, AssemblyBudget

ARGS = b"\x01x\x01k\x00"
BODY = random.Random(1).randbytes(5 * PIECE_BYTES_MIN)


def header(body_bytes: int) -> bytes:
    return b"\0\x3c\0\0" + body_bytes.to_bytes(8, "big") + b"\0\0"


def begun(body_bytes: int) -> Assembly:
    assembly = Assembly(ARGS, AssemblyBudget(1 << 20))
    assert not assembly.add_header(header(body_bytes))
    return assembly


@given(st.sets(st.integers(1, len(BODY) - 1) | st.integers(1, 40), max_size=40))
def test_run_does_not_depend_on_the_cuts(cuts: set[int]) -> None:
    """Frames of any size, in any order of sizes."""
    edges = [0, *sorted(cuts), len(BODY)]
    assembly = begun(len(BODY))
    complete = [assembly.add_body(BODY[lo:hi]) for lo, hi in pairwise(edges)]
    assert complete == [False] * len(cuts) + [True]
    whole = begun(len(BODY))
    assert whole.add_body(BODY)
    assert assembly.run() == whole.run()
    assert whole.run()[2].endswith(BODY)


def test_tiny_frames_are_no_object_each() -> None:
    """A body that comes octet by octet takes the memory of its octets."""
    assembly = begun(len(BODY))
    for at in range(len(BODY)):
        assembly.add_body(BODY[at : at + 1])
    assert len(assembly._pieces) == 1
