"""Chance against the bare core: every invariant after every event, then progress in calm."""

import pytest

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
