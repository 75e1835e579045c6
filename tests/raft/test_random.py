"""Chance against the bare core: every invariant after every event, then progress in calm."""

import pytest

from tests.raft.mutants import MUTANTS, Mutant
from tests.raft.simulation import Simulation

SEEDS = 60
EVENTS = 3000


@pytest.mark.parametrize("seed", range(SEEDS))
def test_group_stays_safe_and_gets_on(seed: int) -> None:
    """Under loss, disorder, power cuts and changes nothing committed is lost; calm brings progress."""
    simulation = Simulation(seed)
    simulation.run(EVENTS)
    simulation.calm()


def test_a_seed_always_tells_the_same_story() -> None:
    """Nothing but the seed decides what happens: two runs end in the same logs, terms and messages."""

    def story() -> list[object]:
        simulation = Simulation(7)
        simulation.run(EVENTS)
        members = simulation.group.members.values()
        return [[member.log, member.state, member.raft.soft_state] for member in members] + [
            simulation.group.wire
        ]

    assert story() == story()


@pytest.mark.parametrize(("mutant", "told"), MUTANTS, ids=lambda value: getattr(value, "__name__", ""))
def test_simulation_notices_a_planted_bug(mutant: Mutant, told: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rig that finds nothing proves nothing: each planted bug must fail some seed."""
    mutant(monkeypatch)
    for seed in (told, *range(150)):
        try:
            simulation = Simulation(seed)
            simulation.run(EVENTS)
            simulation.calm()
        except Exception:
            return
    pytest.fail("nothing told this mutant from the real core")
