"""The loop around a node's pure core: all that happened since the last turn becomes one turn.

A turn is planned once, at the end of the current pass of the event loop, so whatever sockets, links and the
writer brought in that pass is answered together: one write to the disk, one envelope a peer. No timer waits
for more; a busy node gathers more because its turns take longer.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from cluster.envelope import Envelope
from cluster.ports import GroupWrite
from cluster.raft.spares import COMMIT_MS_MAX

logger = logging.getLogger(__name__)

TICK_S = 0.05
LATE_S = (COMMIT_MS_MAX + 1) / 1000
"""After a turn that wrote something, until it is looked at whether its commit is late."""


class Turn(Protocol):
    """What a core wants done."""

    number: int
    writes: list[GroupWrite]
    envelopes: dict[int, Envelope]
    outputs: list[Any]
    more: bool
    resets: list[int]
    endings: list[tuple[int, int, str]]


class Core(Protocol):
    """A node without IO; see node.core."""

    def receive(self, envelope: Envelope) -> None:
        """An envelope of a peer arrived."""

    def persisted(self, number: int) -> None:
        """Turns up to this one are durable."""

    def peer_up(self, node: int, boot: int) -> None:
        """A link stands."""

    def peer_down(self, node: int, *, refused: bool) -> None:
        """A link broke."""

    def tick(self, now_ms: int) -> None:
        """Time has passed."""

    def ask_all_if_late(self, now_ms: int) -> bool:
        """See that nothing waits for a slow peer; whether to call it again after `LATE_S`."""

    def has_news(self) -> bool:
        """Whether `flush` would do or tell anything."""

    def flush(self, now_ms: int) -> Any:
        """Return a `Turn`."""


class Clock:
    """The time that a core sees: the wall's at the start, then only what has really passed."""

    def __init__(self) -> None:
        self._offset_ns = time.time_ns() - time.monotonic_ns()

    def now_ms(self) -> int:
        """Milliseconds since the epoch; never falls, whatever is done to the wall clock."""
        return (time.monotonic_ns() + self._offset_ns) // 1_000_000


class Driver:
    """Runs one core in the current event loop."""

    def __init__(
        self,
        core: Core,
        clock: Clock,
        write: Callable[[int, Sequence[GroupWrite]], None],
        send: Callable[[Mapping[int, Envelope]], None],
        carry_out: Callable[[list[Any]], None],
        *,
        on_failure: Callable[[Exception], None] | None = None,
    ) -> None:
        """Take over a core.

        Args:
            write: hands a turn's writes to the writer.
            send: hands envelopes to the links.
            carry_out: does what the core wants done with client sockets.
            on_failure: the core broke one of its own rules. What it holds is then worth nothing, and the event
                loop would only log it: the process must end. No turn follows. None: the error goes up.
        """
        self._core = core
        self._clock = clock
        self._write = write
        self._send = send
        self._carry_out = carry_out
        self._on_failure = on_failure
        self._loop = asyncio.get_running_loop()
        self._planned = False
        self._ticking: asyncio.TimerHandle | None = None
        self._looking: asyncio.TimerHandle | None = None
        self._stopped = False

    def start(self) -> None:
        """Begin to tick."""
        self._ticking = self._loop.call_later(TICK_S, self._tick)
        self.wake()

    def stop(self) -> None:
        """No more turns."""
        self._stopped = True
        for timer in (self._ticking, self._looking):
            if timer is not None:
                timer.cancel()

    def notice(self) -> None:
        """Something came in: if it is news, there will be a turn at the end of this pass of the loop."""
        # Half of what comes in only confirms what is known, or has to wait for what is under way.
        if not self._planned and not self._stopped and self._core.has_news():
            self.wake()

    def wake(self) -> None:
        """There will be a turn at the end of this pass of the loop."""
        if not self._planned:
            self._planned = True
            self._loop.call_soon(self._turn)

    def receive(self, envelope: Envelope) -> None:
        """An envelope of a peer arrived."""
        self._guarded(self._core.receive, envelope)
        self.notice()

    def persisted(self, number: int) -> None:
        """The writer made all turns up to this one durable."""
        self._guarded(self._core.persisted, number)
        self.notice()

    def peer_up(self, node: int, boot: int) -> None:
        """A link stands."""
        self._guarded(self._core.peer_up, node, boot)
        self.wake()

    def peer_down(self, node: int, refused: bool) -> None:
        """A link broke."""
        self._guarded(partial(self._core.peer_down, refused=refused), node)
        self.wake()

    def _tick(self) -> None:
        # Planned anew from now, not from when it was due: ticks missed in a pause are not made up for.
        self._ticking = self._loop.call_later(TICK_S, self._tick)
        self._guarded(self._core.tick, self._clock.now_ms())
        self.notice()

    def _look(self) -> None:
        self._looking = None
        self._guarded(self._ask_all_if_late)
        self.notice()

    def _ask_all_if_late(self) -> None:
        if self._core.ask_all_if_late(self._clock.now_ms()):
            self._looking = self._loop.call_later(LATE_S, self._look)

    def _turn(self) -> None:
        self._planned = False
        self._guarded(self._take_turn)

    def _guarded(self, call: Callable[..., None], *args: object) -> None:
        if self._stopped:
            return
        try:
            call(*args)
        except Exception as error:
            if self._on_failure is None:
                raise
            self.stop()
            logger.exception("the core of this node failed")
            self._on_failure(error)

    def _take_turn(self) -> None:
        turn = self._core.flush(self._clock.now_ms())
        # Envelopes first: what others do with them takes longer than the disk here.
        if turn.envelopes:
            self._send(turn.envelopes)
        if turn.writes:
            self._write(turn.number, turn.writes)
            if self._looking is None:
                self._looking = self._loop.call_later(LATE_S, self._look)
        if turn.outputs:
            self._carry_out(turn.outputs)
        for group, node, reason in turn.endings:
            logger.info("group %d: the sessions of node %d end: %s", group, node, reason)
        if turn.resets:
            logger.warning(
                "groups %s took this node for dead: clients with state there are cut off", turn.resets
            )
        if turn.more:
            self.wake()
