"""Differences on purpose: each rule recognises one and names its row in docs/deviations.md."""

from collections.abc import Callable
from dataclasses import dataclass

from integration.differential.outcome import Outcome
from integration.differential.steps import Step


@dataclass(slots=True, frozen=True)
class Known:
    """`row`: what the row of docs/deviations.md begins with; `is_end`: the brokers go different ways from here."""

    row: str
    is_end: bool = True


Rule = Callable[[Step, str, str], bool]
"""Whether a difference is this one, from the step and all that the two brokers said."""


def _has(*words: str) -> Callable[[str], bool]:
    return lambda said: all(word in said for word in words)


def _unknown_type(_: Step, rabbitmq: str, warren: str) -> bool:
    return "unknown exchange type" in rabbitmq and "unknown exchange type" in warren


RULES: list[tuple[Rule, Known]] = [
    (_unknown_type, Known("an unknown exchange type is 503")),
]


def explain(step: Step, rabbitmq: Outcome, warren: Outcome) -> Known | None:
    """Which known difference this is; None if it is none."""
    said = [
        " ".join(line for place in sorted(outcome) for line in outcome[place])
        for outcome in (rabbitmq, warren)
    ]
    return next((known for rule, known in RULES if rule(step, *said)), None)
