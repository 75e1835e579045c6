"""The fuzz target of the codec on seeded random changes of good streams, so that it cannot rot."""

from __future__ import annotations

import random

import pytest

from tests.fuzz.fuzz_codec import SEEDS, fuzz_one


def changed(stream: bytes, draw: random.Random) -> bytes:
    """The stream with some octets changed, dropped, repeated, or runs of it moved."""
    octets = bytearray(stream)
    for _ in range(draw.randint(0, 6)):
        at = draw.randrange(len(octets) + 1)
        end = min(len(octets), at + draw.choice((1, 1, 2, 4, 20)))
        match draw.randrange(4):
            case 0:
                octets[at:end] = draw.randbytes(end - at)
            case 1:
                del octets[at:end]
            case 2:
                octets[at:at] = octets[at:end]
            case _:
                octets[at:end] = draw.choice((b"\x00", b"\xff", b"\xce", b"\x01")) * (end - at)
    return bytes(octets)


@pytest.mark.parametrize("seed", range(8))
def test_codec_keeps_its_claims_on_random_changes(seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(250):
        stream = b"".join(draw.choices(SEEDS, k=draw.randint(1, 3)))
        fuzz_one(draw.randbytes(2) + changed(stream, draw))
