"""Differences on purpose: each rule recognises one and names its row in docs/deviations.md."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from integration.differential.outcome import Outcome
from integration.differential.steps import Step


@dataclass(slots=True, frozen=True)
class Known:
    """`row`: what the row of docs/deviations.md begins with; `is_end`: the brokers go different ways from here;
    `is_of_quorum`: only where there are quorum queues.
    """

    row: str
    is_end: bool = True
    is_of_quorum: bool = False


Rule = Callable[[Step, str, str], bool]
"""Whether a difference is this one, from the step and all that the two brokers said."""


def _both_say(words: str) -> Rule:
    return lambda _, rabbitmq, warren: words in rabbitmq and words in warren


def _warren_says(words: str) -> Rule:
    return lambda _, __, warren: words in warren


def _rabbitmq_says(words: str) -> Rule:
    return lambda _, rabbitmq, __: words in rabbitmq


def _only(pattern: re.Pattern[str]) -> Rule:
    """Nothing differs but what one side has of the pattern."""
    return lambda _, rabbitmq, warren: pattern.sub("", rabbitmq) == pattern.sub("", warren)


def _reply_to_nobody(step: Step, rabbitmq: str, _: str) -> bool:
    return "NO_ROUTE" in rabbitmq and getattr(step.method, "routing_key", "").startswith(
        "amq.rabbitmq.reply-to"
    )


def _own_reply_address(step: Step, rabbitmq: str, _: str) -> bool:
    return "INTERNAL_ERROR" in rabbitmq and getattr(step.method, "queue", "").startswith(
        "amq.rabbitmq.reply-to"
    )


def _another_argument(_: Step, rabbitmq: str, warren: str) -> bool:
    return all("PRECONDITION_FAILED - inequivalent arg 'x-" in said for said in (rabbitmq, warren))


def _exclusive_and_single(_: Step, rabbitmq: str, warren: str) -> bool:
    return "in exclusive use" in warren and "in exclusive use" not in rabbitmq


_LAST_DEATH = re.compile(r", x-last-death-(exchange|queue|reason): '[^']*'")
_FIRST_ATTEMPT = re.compile(
    r"headers={(x-delivery-count: Long\(0\))?}(, )?|, x-delivery-count: Long\(0\)|x-delivery-count: Long\(0\), "
)
_BOTH = re.compile(f"{_LAST_DEATH.pattern}|{_FIRST_ATTEMPT.pattern}")
_CONSUMERS = re.compile(r"\d+ consumers|consumer_count=\d+")


RULES: list[tuple[Rule, Known]] = [
    (_both_say("unknown exchange type"), Known("an unknown exchange type is 503")),
    (_warren_says("unsupported queue version"), Known("`x-queue-version` 1")),
    (_only(_LAST_DEATH), Known("`x-last-death-", is_end=False)),
    (
        _only(_FIRST_ATTEMPT),
        Known("basic.get on a quorum queue sets `x-delivery-count`", is_end=False, is_of_quorum=True),
    ),
    (
        _only(_BOTH),
        Known("basic.get on a quorum queue sets `x-delivery-count`", is_end=False, is_of_quorum=True),
    ),
    (_only(_CONSUMERS), Known("a quorum queue counts consumers", is_end=False, is_of_quorum=True)),
    (
        _warren_says("basic.get operations are not supported by classic queues with single active consumer"),
        Known("basic.get on a queue with a single active consumer"),
    ),
    (_rabbitmq_says("does not support global qos"), Known("basic.qos `global`")),
    (_rabbitmq_says("flag set are not supported by quorum queues"), Known("queue.delete `if-unused`")),
    (_own_reply_address, Known("a channel that declares its own direct reply-to address")),
    (
        _another_argument,
        Known("of several arguments that differ", is_end=False, is_of_quorum=True),
    ),
    (_exclusive_and_single, Known("a quorum queue with a single active consumer", is_of_quorum=True)),
    (_reply_to_nobody, Known("a mandatory reply", is_end=False)),
]


def explain(step: Step, rabbitmq: Outcome, warren: Outcome, *, is_quorum: bool) -> Known | None:
    """Which known difference this is; None if it is none.

    Args:
        is_quorum: the sequence declares quorum queues.
    """
    said = [
        " ".join(line for place in sorted(outcome) for line in outcome[place])
        for outcome in (rabbitmq, warren)
    ]
    for rule, known in RULES:
        if (is_quorum or not known.is_of_quorum) and rule(step, *said):
            return known
    return None
