"""Arguments of queues, bindings and messages, right ones and wrong ones, drawn by chance."""

import random
from typing import Any

from node.wire.primitives import Byte, Long, Short, Timestamp

EXCHANGE_TYPES = ("direct", "fanout", "topic", "headers", "direct", "fanout", "topic", "headers", "nonsense")
WRONG = (-1, 0, "text", True, None, 1.5, [], {}, 2**40, b"raw")
RIGHT: dict[str, tuple[Any, ...]] = {
    "x-message-ttl": (60_000, Long(60_000), Short(30_000)),
    "x-expires": (60_000, Long(90_000)),
    "x-max-length": (0, 1, 2, 3, Byte(2)),
    "x-max-length-bytes": (10, 40, 100),
    "x-overflow": ("drop-head", "reject-publish", "reject-publish-dlx"),
    "x-max-priority": (1, 3, 10),
    "x-single-active-consumer": (True, False),
    "x-queue-mode": ("lazy", "default"),
    "x-queue-type": ("classic",),
    "x-queue-version": (1, 2),
}
LIMITING = (
    "x-message-ttl",
    "x-max-length",
    "x-max-length-bytes",
    "x-overflow",
    "x-max-priority",
    "x-max-length",
)
HEADER_NAMES = ("h1", "h2", "x-h3")
HEADER_VALUES: tuple[Any, ...] = (1, "a", True, None, Short(1), 1.0)


def queue_arguments(
    chance: random.Random, queues: list[str], exchanges: list[str], queue: str, *, rich: bool, wrong: bool
) -> dict[str, Any]:
    """`rich`: several are likely; `wrong`: some may be what no broker takes."""
    made: dict[str, Any] = {}
    if not rich and chance.random() < 0.7:
        return made
    names = LIMITING if rich and not wrong else tuple(RIGHT)
    for name in chance.sample(names, k=chance.choice((0, 1, 1, 2, 3) if rich else (1,))):
        made[name] = chance.choice(RIGHT[name])
    if chance.random() < (0.5 if rich else 0.1):
        made["x-dead-letter-exchange"] = chance.choice([*exchanges[:2], "", "", "d.none"])
        if chance.random() < 0.6 or not made["x-dead-letter-exchange"]:
            others = [each for each in queues if each != queue]
            made["x-dead-letter-routing-key"] = chance.choice([*others, *others, queue, "a"])
    if "x-max-priority" in made and {"x-max-length", "x-max-length-bytes"} & made.keys():
        # Which message makes room is another one on purpose (docs/deviations.md).
        del made["x-max-priority"]
    if wrong and chance.random() < 0.25:
        name = chance.choice([*RIGHT, "x-dead-letter-exchange", "x-dead-letter-routing-key", "x-unheard-of"])
        made[name] = chance.choice(WRONG)
    return made


def quorum_arguments(chance: random.Random, queues: list[str]) -> dict[str, Any]:
    """What quorum queues take, also those of older series."""
    made: dict[str, Any] = {"x-queue-type": "quorum"}
    chosen = chance.randrange(8)
    if chosen == 0:
        made["x-max-length"] = chance.choice((1, 2, 3))
    elif chosen == 1:
        made["x-delivery-limit"] = chance.choice((0, 1, 2))
    elif chosen == 2:
        made["x-message-ttl"] = 60_000
    elif chosen == 3:
        made["x-single-active-consumer"] = True
    if chance.random() < 0.4:
        made["x-dead-letter-exchange"] = ""
        made["x-dead-letter-routing-key"] = queues[-1]
    return made


def bindings(chance: random.Random, kind: str) -> tuple[str, dict[str, Any]]:
    """A binding's key and arguments, for an exchange of a type."""
    if kind == "headers":
        arguments: dict[str, Any] = {
            name: chance.choice(HEADER_VALUES)
            for name in chance.sample(HEADER_NAMES, k=chance.choice((0, 1, 1, 2)))
        }
        if chance.random() < 0.8:
            arguments["x-match"] = chance.choice(
                ("all", "any", "all-with-x", "any-with-x", "all", "any", "most", 5)
            )
        return chance.choice(("", "a")), arguments
    if kind == "topic":
        words = ("a", "b", "c", "*", "#", "")
        return ".".join(chance.choice(words) for _ in range(chance.randint(1, 3))), {}
    return chance.choice(("", "a", "b", "a.b", "x")), ({"y": 1} if chance.random() < 0.1 else {})


def headers_of(chance: random.Random, queues: list[str]) -> dict[str, Any]:
    """Headers of a message, some of which ask for something."""
    made: dict[str, Any] = {
        name: chance.choice(HEADER_VALUES) for name in chance.sample(HEADER_NAMES, k=chance.choice((0, 1, 2)))
    }
    if chance.random() < 0.15:
        made[chance.choice(("CC", "BCC"))] = chance.choice(
            [[queues[0]], [queues[0], queues[1], "a"], ["b"], [], "a", [1], queues[0]]
        )
    if chance.random() < 0.1:
        made["nested"] = {"list": [1, "two", {"three": None}], "when": Timestamp(1_600_000_000)}
    return made
