"""RabbitMQ and Warren say the same to the same operations, but for what docs/deviations.md tells."""

from pathlib import Path

import pytest

from integration.differential.brokers import Address
from integration.differential.generator import THEMES, sequence
from integration.differential.known import RULES
from integration.differential.lockstep import Lockstep
from integration.differential.shrink import shrunk
from integration.differential.steps import Step
from node.wire.methods import QueueDeclare, QueueDelete, TxCommit

SEEDS = 4 * len(THEMES)
DEVIATIONS = Path(__file__).parents[2] / "docs" / "deviations.md"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_both_brokers_say_the_same(brokers: tuple[Address, list[Address]]) -> None:
    """A few seeds of each theme; `python -m integration.differential` runs thousands."""
    rabbitmq, warren = brokers
    lockstep = Lockstep(rabbitmq, warren[0])
    try:
        for seed in range(1, SEEDS + 1):
            steps = sequence(seed)
            difference = lockstep.run(steps).difference
            if difference is not None and difference.row is None:
                told = "\n".join(f"  {step}" for step in steps[: difference.step + 1])
                pytest.fail(f"seed {seed}:\n{told}\n{difference}")
    finally:
        lockstep.close()


def test_every_known_difference_is_a_row_of_the_deviations() -> None:
    rows = [line.removeprefix("| ") for line in DEVIATIONS.read_text().splitlines() if line.startswith("| ")]
    unknown = [known.row for _, known in RULES if not any(row.startswith(known.row) for row in rows)]
    assert unknown == []


def test_a_seed_gives_the_same_steps_again() -> None:
    assert [str(step) for step in sequence(7)] == [str(step) for step in sequence(7)]
    assert [str(step) for step in sequence(7)] != [str(step) for step in sequence(17)]


def test_shrinking_keeps_what_matters() -> None:
    steps = [Step(QueueDeclare(queue=f"q{number}")) for number in range(20)]
    steps.insert(5, Step(TxCommit()))
    steps.insert(15, Step(QueueDelete()))

    def fails(rest: list[Step]) -> bool:
        kinds = [type(step.method) for step in rest]
        return TxCommit in kinds and QueueDelete in kinds

    assert [type(step.method) for step in shrunk(steps, fails)] == [TxCommit, QueueDelete]
