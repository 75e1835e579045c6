"""Where the records of a slice stand: from a machine's (entry, command, record number) to a byte offset.

A run is delivered in slices, as credit allows, and mostly in order. So for each of the runs read last the
place is kept where the slice before ended: the next one goes on from there.
"""

from typing import TYPE_CHECKING

from node.broker import commands
from node.wire import codec

if TYPE_CHECKING:
    from node.session.ports import NodePort

RUNS_MAX = 1024
"""How many runs' places are kept; the oldest is forgotten first."""


class Locator:
    """Finds records in entry data, for all consumers of a node."""

    __slots__ = ("_node", "_runs")

    def __init__(self, node: "NodePort") -> None:
        self._node = node
        self._runs: dict[tuple[int, int, int], tuple[bytes, int, int, int]] = {}

    def find(
        self, group: int, index: int, command_offset: int, record: int, count: int
    ) -> tuple[bytes, bytes, int]:
        """Find `count` records of a run, from number `record`.

        Returns:
            The entry's data, the run's exchange and routing key as two shortstrs, the first record's offset.

        Raises:
            KeyError: the entry is gone.
        """
        data = self._node.entry_data(group, index)
        key = (group, index, command_offset)
        place = self._runs.get(key)
        if place is None:
            exrk, start, total = commands.enqueue_layout(data, command_offset)
            if count == total:
                return data, exrk, start
            at, offset = 0, start
            if len(self._runs) >= RUNS_MAX:
                del self._runs[next(iter(self._runs))]
        else:
            exrk, start, at, offset = place
            if record < at:
                at, offset = 0, start
        if record > at:
            offset = codec.skip(data, offset, record - at)
        self._runs[key] = (exrk, start, record, offset)
        return data, exrk, offset

    def passed(self, group: int, index: int, command_offset: int, record: int, offset: int) -> None:
        """The caller has read up to record `record`, which starts at `offset`."""
        key = (group, index, command_offset)
        place = self._runs.get(key)
        if place is not None:
            self._runs[key] = (place[0], place[1], record, offset)
