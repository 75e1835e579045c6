"""The checksum of all that the store keeps: 32 bits of XXH3, several times cheaper than CRC-32 (ADR 18)."""

import zlib

import xxhash

_MASK = 0xFFFFFFFF

Buffer = bytes | memoryview


def checksum(*parts: Buffer) -> int:
    """Of what stands in the parts, and of where one ends and the next begins."""
    value = 0
    for part in parts:
        value = xxhash.xxh3_64_intdigest(part, value) & _MASK
    return value


def matches(value: int, *parts: Buffer) -> bool:
    """Whether a checksum that was read is that of the parts, or their CRC-32, which rows of format 4 and below have."""
    return value == checksum(*parts) or value == _crc32(*parts)


def _crc32(*parts: Buffer) -> int:
    value = 0
    for part in parts:
        value = zlib.crc32(part, value)
    return value
