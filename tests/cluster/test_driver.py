"""The loop around a core: one turn for all that came in together, ticks without bursts, and an end on failure."""

import asyncio
import time
from typing import Any

import pytest

from cluster.driver import LATE_S, TICK_S, Clock, Driver
from cluster.envelope import Envelope
from cluster.ports import GroupWrite
from cluster.turn import Turn as HostTurn


class Turn(HostTurn):
    """A host's turn with a node's outputs."""

    outputs: list[Any] = []  # noqa: RUF012 - replaced, never changed


class RecordingCore:
    """Not a stand-in for the node's core but the least that a driver can drive."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.turns: list[Turn] = []
        self.fail_on = ""
        self.news = True
        self.late: list[bool] = []

    def _record(self, call: str) -> None:
        self.calls.append(call)
        assert call != self.fail_on, "broken rule"

    def receive(self, envelope: Envelope) -> None:
        self._record(f"receive {envelope.sender}")

    def persisted(self, number: int) -> None:
        self._record(f"persisted {number}")

    def peer_up(self, node: int, boot: int) -> None:
        self._record(f"up {node} {boot}")

    def peer_down(self, node: int, *, refused: bool) -> None:
        self._record(f"down {node} {refused}")

    def tick(self, now_ms: int) -> None:
        self._record("tick")

    def ask_all_if_late(self, now_ms: int) -> bool:
        self._record("late?")
        return self.late.pop(0)

    def has_news(self) -> bool:
        return self.news

    def flush(self, now_ms: int) -> Turn:
        self._record("flush")
        return self.turns.pop(0) if self.turns else Turn(0)


class Shells:
    """What the driver handed to the writer, the links and the sockets, and the failure it reported."""

    def __init__(self, core: RecordingCore) -> None:
        self.done: list[str] = []
        self.failures: list[Exception] = []
        self.driver = Driver(
            core,
            Clock(),
            lambda number, writes: self.done.append(f"write {number} {len(writes)}"),
            lambda envelopes: self.done.append(f"send {list(envelopes)}"),
            lambda outputs: self.done.append(f"carry out {outputs}"),
            on_failure=self.failures.append,
        )


def test_inputs_of_one_pass_are_one_turn() -> None:
    """Whatever sockets, links and the writer brought in one pass of the loop is flushed once."""

    async def run() -> list[str]:
        core = RecordingCore()
        driver = Shells(core).driver
        driver.receive(Envelope(2, 1, 1))
        driver.persisted(7)
        driver.peer_up(3, 9)
        driver.peer_down(3, refused=True)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return core.calls

    assert asyncio.run(run()) == ["receive 2", "persisted 7", "up 3 9", "down 3 True", "flush"]


def test_inputs_that_are_no_news_make_no_turn() -> None:
    """The second of two acknowledgements, or the end of a write that the majority did not wait for, costs no turn."""

    async def run() -> list[str]:
        core = RecordingCore()
        core.news = False
        driver = Shells(core).driver
        driver.receive(Envelope(2, 1, 1))
        driver.persisted(7)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return core.calls

    assert asyncio.run(run()) == ["receive 2", "persisted 7"]


def test_turn_is_sent_before_it_is_written_and_answered() -> None:
    """The links and the disk begin as early as possible; an empty part of a turn calls nobody."""

    async def run() -> list[str]:
        core = RecordingCore()
        full = Turn(1, [GroupWrite(1)], {2: Envelope(1, 1, 1)}, more=True)
        full.outputs = ["x"]
        core.turns = [full, Turn(2)]
        shells = Shells(core)
        shells.driver.wake()
        for _ in range(4):
            await asyncio.sleep(0)
        assert core.calls == ["flush", "flush"]
        return shells.done

    assert asyncio.run(run()) == ["send [2]", "write 1 1", "carry out ['x']"]


def test_commits_of_what_was_written_are_looked_after_until_they_came() -> None:
    async def run() -> list[str]:
        core = RecordingCore()
        core.news = False
        core.turns = [Turn(1), Turn(2, [GroupWrite(1)]), Turn(3, [GroupWrite(1)])]
        core.late = [True, True, False]
        driver = Shells(core).driver
        for _ in range(3):
            driver.wake()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        await asyncio.sleep(LATE_S * 6)
        return core.calls

    assert asyncio.run(run()) == ["flush"] * 3 + ["late?"] * 3


def test_nothing_is_looked_after_where_nothing_was_written() -> None:
    async def run() -> list[str]:
        core = RecordingCore()
        core.turns = [Turn(1, [], {2: Envelope(1, 1, 1)})]
        Shells(core).driver.wake()
        await asyncio.sleep(LATE_S * 3)
        return core.calls

    assert asyncio.run(run()) == ["flush"]


def test_missed_ticks_are_not_made_up_for() -> None:
    """A process that stood still must not count its own pause as the silence of others."""

    async def run() -> int:
        core = RecordingCore()
        driver = Shells(core).driver
        driver.start()
        time.sleep(TICK_S * 6)
        await asyncio.sleep(TICK_S * 1.5)
        driver.stop()
        return core.calls.count("tick")

    assert asyncio.run(run()) in (1, 2)


@pytest.mark.parametrize("call", ["receive 2", "persisted 1", "tick", "flush"])
def test_failure_of_the_core_is_reported_once_and_ends_the_turns(
    call: str, caplog: pytest.LogCaptureFixture
) -> None:
    """State that broke its own rules must not be persisted, sent or shown any more."""

    async def run() -> None:
        core = RecordingCore()
        core.fail_on = call
        shells = Shells(core)
        shells.driver.start()
        if call == "receive 2":
            shells.driver.receive(Envelope(2, 1, 1))
        elif call == "persisted 1":
            shells.driver.persisted(1)
        await asyncio.sleep(TICK_S * 1.5)
        assert [str(failure).split("\n", 1)[0] for failure in shells.failures] == ["broken rule"]
        calls = len(core.calls)
        shells.driver.receive(Envelope(3, 1, 1))
        await asyncio.sleep(TICK_S * 1.5)
        assert len(core.calls) == calls

    asyncio.run(run())
    assert caplog.text.count("the core of this node failed") == 1
