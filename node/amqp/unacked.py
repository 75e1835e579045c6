"""Which delivery tags of a channel are unacknowledged, and which message each one stands for, as runs.

A run is (first_tag, last_tag, consumer, first_id): tags and ids rise together. Settling at the head or a
whole run costs O(1), in the middle a bisection and one insertion, whatever the number of messages (AMQP
1.8.3.13).
"""

from bisect import bisect_right
from operator import itemgetter
from typing import Final, TypeAlias

from node.errors import PreconditionFailed

Run: TypeAlias = tuple[int, int, int, int]
Deliveries: TypeAlias = list[tuple[int, int, int]]
"""(consumer, first_id, last_id), both ends included."""

_FIRST_TAG: Final = itemgetter(0)
_IDLE_RUNS_MAX: Final = 64


class UnackedWindow:
    """The unacknowledged deliveries of one channel, in the order of their tags.

    Attributes:
        count: messages in it.
        next_tag: the tag of the next delivery.
    """

    __slots__ = ("_head", "_kept", "_runs", "count", "next_tag")

    def __init__(self) -> None:
        self._runs: list[Run] = []
        self._head = 0  # runs before it are settled: taking from the front of a list is O(n)
        self._kept: list[Run] | None = None  # settled in the transaction under way; None: no transactions
        self.count = 0
        self.next_tag = 1

    @property
    def is_transactional(self) -> bool:
        """Whether what is settled is kept until it is committed."""
        return self._kept is not None

    def begin(self) -> None:
        """Keep what is settled from here on: the transaction before it, if there was one, is committed."""
        self._kept = []

    def roll_back(self) -> None:
        """Undo what was settled since `begin`: it can be settled again."""
        assert self._kept is not None, "begin has been called"
        kept, self._kept = self._kept, []
        if kept:
            runs = self._runs[self._head :] + kept
            runs.sort()
            self._runs, self._head = _joined(runs), 0
            self.count += sum([last - first + 1 for first, last, _, _ in kept])

    def record(self, consumer: int, first_id: int, count: int) -> int:
        """Append `count` deliveries of consecutive ids to one consumer; the first one's tag."""
        first_tag = self.next_tag
        self.next_tag += count
        self.count += count
        runs = self._runs
        if len(runs) > self._head:
            run_first, run_last, run_consumer, run_first_id = runs[-1]
            if (
                run_consumer == consumer
                and run_last + 1 == first_tag
                and run_first_id + first_tag - run_first == first_id
            ):
                runs[-1] = (run_first, run_last + count, consumer, run_first_id)
                return first_tag
        runs.append((first_tag, first_tag + count - 1, consumer, first_id))
        return first_tag

    def skip(self, count: int) -> int:
        """Use up `count` tags that need no acknowledgement; the first of them."""
        first_tag = self.next_tag
        self.next_tag += count
        return first_tag

    def take_through(self, tag: int) -> Deliveries:
        """Take all up to `tag`, which must be unacknowledged itself; 0 means all there are. Raises 406."""
        if tag == 0:
            if self._kept is not None:
                self._kept += self._runs[self._head :]
            return self.take_all()
        at = self._find(tag)
        if self._kept is not None:
            self._kept += self._runs[self._head : at]
        taken = [
            (consumer, first_id, first_id + last - first)
            for first, last, consumer, first_id in self._runs[self._head : at]
        ]
        self.count -= sum(last_id - first_id + 1 for _, first_id, last_id in taken)
        self._head = at
        first, _, consumer, first_id = self._runs[at]
        self._cut(at, first, tag)
        taken.append((consumer, first_id, first_id + tag - first))
        return _merged(taken)

    def take(self, first_tag: int, last_tag: int) -> tuple[Deliveries, PreconditionFailed | None]:
        """Take the tags from `first_tag` to `last_tag`, each of which should be unacknowledged.

        They stand for as many acknowledgements one after the other: where one tag is unknown, those before it
        are taken all the same, and the error is returned beside them.
        """
        taken: Deliveries = []
        tag = first_tag
        while tag <= last_tag:
            try:
                at = self._find(tag)
            except PreconditionFailed as error:
                return _merged(taken), error
            first, last, consumer, first_id = self._runs[at]
            until = min(last, last_tag)
            self._cut(at, tag, until)
            taken.append((consumer, first_id + tag - first, first_id + until - first))
            tag = until + 1
        return _merged(taken), None

    def take_all(self) -> Deliveries:
        """Take everything but what is settled already, committed or not."""
        taken = [
            (consumer, first_id, first_id + last - first)
            for first, last, consumer, first_id in self._runs[self._head :]
        ]
        self._runs.clear()
        self._head = 0
        self.count = 0
        return _merged(taken)

    def _find(self, tag: int) -> int:
        """Index of the run that holds `tag`. Raises 406 where none does."""
        at = bisect_right(self._runs, tag, lo=self._head, key=_FIRST_TAG) - 1
        if at < self._head or self._runs[at][1] < tag:
            msg = f"unknown delivery tag {tag}"
            raise PreconditionFailed(msg)
        return at

    def _cut(self, at: int, first_tag: int, last_tag: int) -> None:
        """Remove tags that lie within the run at index `at`; what remains of it on either side stays."""
        runs = self._runs
        first, last, consumer, first_id = runs[at]
        self.count -= last_tag - first_tag + 1
        if self._kept is not None:
            self._kept.append((first_tag, last_tag, consumer, first_id + first_tag - first))
        rest = (last_tag + 1, last, consumer, first_id + last_tag + 1 - first)
        if first < first_tag:
            runs[at] = (first, first_tag - 1, consumer, first_id)
            if last_tag < last:
                runs.insert(at + 1, rest)
        elif last_tag < last:
            runs[at] = rest
        elif at == self._head:
            self._head += 1
            self._drop_head()
        else:
            del runs[at]

    def _drop_head(self) -> None:
        if self._head == len(self._runs) or self._head > max(_IDLE_RUNS_MAX, len(self._runs) // 2):
            del self._runs[: self._head]
            self._head = 0


def _merged(taken: Deliveries) -> Deliveries:
    """The same deliveries with neighbours of one consumer joined."""
    if len(taken) < 2:
        return taken
    merged: Deliveries = [taken[0]]
    for consumer, first_id, last_id in taken[1:]:
        before_consumer, before_first, before_last = merged[-1]
        if before_consumer == consumer and before_last + 1 == first_id:
            merged[-1] = (consumer, before_first, last_id)
        else:
            merged.append((consumer, first_id, last_id))
    return merged


def _joined(ascending: list[Run]) -> list[Run]:
    """The same runs, with neighbours that follow on from each other joined."""
    joined = [ascending[0]]
    for run in ascending[1:]:
        first, last, consumer, first_id = joined[-1]
        if run[0] == last + 1 and run[2] == consumer and run[3] - first_id == run[0] - first:
            joined[-1] = (first, run[1], consumer, first_id)
        else:
            joined.append(run)
    return joined
