"""Carries the journal into LMDB: at the start all that is in it, and later, on a thread, what has grown old.

A segment is folded as late as the ring allows. By then most messages in it were consumed and
trimmed, and never reach LMDB. What is in LMDB alone is an older state, from which rows may be missing that later
records trim: only together with the journal it is the node's state.
"""

import threading
from collections.abc import Callable, Iterable

from node.store.carry import Carrier
from node.store.delta import Delta, Unfolded
from node.store.environment import Environment
from node.store.errors import described
from node.store.journal import SEGMENTS
from node.store.record import Journaled

UNFOLDED_MAX = SEGMENTS - 2
"""Segments that wait, the one being written included. Of the others one is being folded or released and one is
spare, so that the writer does not wait for the folder unless LMDB is slower than what comes in."""


def recover(environment: Environment) -> None:
    """Carry everything into LMDB, durably, and begin with an empty journal; before any log is read.

    Raises:
        StoreError: damage, or no room.
    """
    journal = environment.journal
    unfolded = Unfolded()
    last = journal.sequence
    for sequence, segment, writes in journal.records():
        unfolded.add(segment, sequence, writes)
        last = sequence
    try:
        carrier = Carrier(environment)
        while unfolded or carrier.has_trims:
            carrier.fold(unfolded.take() if unfolded else None)
        # A number is passed over at each start: a torn record that had it can never count again.
        with environment.lmdb.begin(write=True) as txn:
            environment.put_folded(txn, last + 1)
    except Exception as error:
        raise described(error, environment.path) from error
    journal.begin(last + 1)


class Folder:
    """The thread that folds.

    Args:
        environment: whose journal is folded, empty now.
        on_folded: called on the thread, after a delta is durable in LMDB.
        on_failure: called on the thread; nothing is folded after it.
    """

    def __init__(
        self,
        environment: Environment,
        on_folded: Callable[[Delta], object],
        on_failure: Callable[[Exception], object],
    ) -> None:
        self._carrier = Carrier(environment)
        self._journal = environment.journal
        self._on_folded = on_folded
        self._on_failure = on_failure
        self._unfolded = Unfolded()
        self._wake = threading.Condition()
        self._is_ending = False
        self._is_abandoned = False
        self._thread = threading.Thread(target=self._run, name="store-folder", daemon=True)
        self._thread.start()

    def add(self, segment: int, sequence: int, writes: Iterable[Journaled]) -> None:
        """A record was appended."""
        with self._wake:
            self._unfolded.add(segment, sequence, writes)
            if len(self._unfolded) > UNFOLDED_MAX:
                self._wake.notify()

    def close(self) -> None:
        """Fold all that was added, then end the thread."""
        with self._wake:
            self._is_ending = True
            self._wake.notify()
        self._thread.join()

    def abandon(self) -> None:
        """Something failed: fold nothing more. On any thread; `close` may follow."""
        with self._wake:
            self._is_abandoned = True
            self._wake.notify()

    def _run(self) -> None:
        try:
            while not self._is_abandoned:
                delta = self._take()
                if delta is not None:
                    self._carrier.fold(delta)
                    self._journal.drop_pages(delta.segment)
                    self._on_folded(delta)
                elif self._carrier.has_trims:
                    self._carrier.fold(None)
                elif self._is_ending:
                    return
        except Exception as error:  # noqa: BLE001 - task root: whatever failed, nothing may be promised any more
            self._on_failure(error)

    def _take(self) -> Delta | None:
        """The next delta; None when only trims are left to do, or nothing at all at the end."""
        with self._wake:
            while not (self._is_due() or self._carrier.has_trims or self._is_ending or self._is_abandoned):
                self._wake.wait()
            return self._unfolded.take() if self._is_due() and not self._is_abandoned else None

    def _is_due(self) -> bool:
        return len(self._unfolded) > (0 if self._is_ending else UNFOLDED_MAX)
