"""The load generator's histograms: 64 buckets to a power of two, so a figure is right within 1.6 %.

`bucket_of` in load/load.h counts, this reads. A histogram is sparse: bucket to count.
"""

from collections.abc import Iterable

SUB_BITS = 6
SUB = 1 << SUB_BITS


def bucket_of(ns: int) -> int:
    """The bucket that counts a value."""
    if ns < SUB:
        return max(ns, 0)
    shift = ns.bit_length() - 1 - SUB_BITS
    return ((shift + 1) << SUB_BITS) + ((ns >> shift) & (SUB - 1))


def bounds(bucket: int) -> tuple[int, int]:
    """The smallest value of a bucket, and of the next."""
    if bucket < SUB:
        return bucket, bucket + 1
    shift = (bucket >> SUB_BITS) - 1
    low = ((bucket & (SUB - 1)) + SUB) << shift
    return low, low + (1 << shift)


class Histogram:
    """Counts of nanoseconds."""

    def __init__(self, pairs: Iterable[tuple[int, int]] = ()) -> None:
        self.counts: dict[int, int] = {}
        for bucket, count in pairs:
            self.counts[bucket] = self.counts.get(bucket, 0) + count

    @property
    def count(self) -> int:
        """How many values."""
        return sum(self.counts.values())

    def percentile_ms(self, share: float) -> float | None:
        """The middle of the bucket that holds the value below which `share` of all lie; None without values."""
        wanted = share * self.count
        seen = 0
        for bucket in sorted(self.counts):
            seen += self.counts[bucket]
            if seen >= wanted:
                low, high = bounds(bucket)
                return (low + high - 1) / 2e6
        return None
