"""Differences on purpose: each rule recognises one and names its row in docs/deviations.md."""

import re
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


def _both_say(words: str) -> Rule:
    return lambda _, rabbitmq, warren: words in rabbitmq and words in warren


def _warren_says(words: str) -> Rule:
    return lambda _, __, warren: words in warren


LAST_DEATH = re.compile(r", x-last-death-(exchange|queue|reason): '[^']*'")


def _only_last_death(_: Step, rabbitmq: str, warren: str) -> bool:
    return LAST_DEATH.sub("", warren) == rabbitmq


RULES: list[tuple[Rule, Known]] = [
    (_both_say("unknown exchange type"), Known("an unknown exchange type is 503")),
    (_warren_says("unsupported queue version"), Known("`x-queue-version` 1")),
    (_only_last_death, Known("`x-last-death-", is_end=False)),
    (
        _warren_says("basic.get operations are not supported by classic queues with single active consumer"),
        Known("basic.get on a queue with a single active consumer"),
    ),
]


def explain(step: Step, rabbitmq: Outcome, warren: Outcome) -> Known | None:
    """Which known difference this is; None if it is none."""
    said = [
        " ".join(line for place in sorted(outcome) for line in outcome[place])
        for outcome in (rabbitmq, warren)
    ]
    return next((known for rule, known in RULES if rule(step, *said)), None)
