"""Wrong frames, headers and logins: RabbitMQ and Warren answer them alike, but for what docs/deviations.md says."""

from pathlib import Path

from integration.differential.brokers import Address
from integration.differential.cases import CASES, ROWS
from integration.differential.frames import compare, is_wrong, report

DEVIATIONS = Path(__file__).parents[2] / "docs/deviations.md"


def test_every_row_is_written_down_and_used() -> None:
    """What differs on purpose is said in docs/deviations.md, and nothing is named that does not occur."""
    written = DEVIATIONS.read_text()
    assert [row for row in ROWS if f"| {row}" not in written] == []
    assert [row for row in ROWS if all(case.row != row for case in CASES.values())] == []


def test_what_is_wrong_is_answered_alike(brokers: tuple[Address, list[Address]]) -> None:
    """Every case: the methods with all their fields, and whether the connection ends."""
    rabbitmq, warren = brokers
    found = list(compare(list(CASES), rabbitmq, warren[0]))
    assert "\n".join(report(*each) for each in found if is_wrong(*each)) == ""
