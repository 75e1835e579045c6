"""May a user configure, write or read a name: the patterns, their bounds, and the answers.

Patterns are searched, as RabbitMQ does, not matched from the start. They are compiled where they are used,
never in `apply`: what compiles could differ between versions of Python, and replicas must not.
"""

import re

from node.errors import AccessRefused, PreconditionFailed

PATTERN_SIZE_MAX = 255
"""Characters in a pattern; RabbitMQ's users rarely pass 100."""


def check_pattern(pattern: str) -> None:
    """Raise 406 for a pattern that is too long, does not compile, or could take exponential time."""
    if len(pattern) > PATTERN_SIZE_MAX:
        raise PreconditionFailed(f"permission pattern longer than {PATTERN_SIZE_MAX} characters")
    if _could_blow_up(pattern):
        raise PreconditionFailed(f"permission pattern '{pattern}' repeats a repetition or a choice")
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise PreconditionFailed(f"invalid permission pattern '{pattern}': {error}") from None


def _could_blow_up(pattern: str) -> bool:
    """Whether a group that holds a repetition or a choice is itself repeated, or a group is referred back to.

    These are the shapes that make a backtracking search exponential. Text inside of brackets and escaped
    characters do not count.
    """
    inner = [False]  # for each open group: does it hold a repetition or a choice
    closed = False  # the item just read is such a group
    bracket = -1
    at = 0
    while at < len(pattern):
        char = pattern[at]
        if char == "\\":
            if pattern[at + 1 : at + 2].isdigit() and bracket < 0:
                return True
            at += 2
            closed = False
            continue
        if bracket >= 0:
            # A bracket that comes first in its class, or after ^, is an ordinary character.
            if char == "]" and at > bracket + 1 and pattern[bracket + 1 : at] != "^":
                bracket = -1
        elif char == "[":
            bracket = at
            closed = False
        elif char == "(":
            inner.append(False)
            closed = False
        elif char == ")":
            closed = inner.pop() if len(inner) > 1 else False
            inner[-1] = inner[-1] or closed
        elif char == "?" and at > 0 and pattern[at - 1] == "(":
            if pattern[at + 1 : at + 2] == "P" and pattern[at + 2 : at + 3] == "=":
                return True
        elif char in "*+{":
            if closed:
                return True
            inner[-1] = True
            closed = False
        else:
            inner[-1] = inner[-1] or char == "|"
            closed = False
        at += 1
    return False


def resource_name(kind: str, name: str, vhost: str) -> str:
    """A queue or exchange as error texts name it."""
    return f"{kind} '{name}' in vhost '{vhost}'"


def refusal(action: str, kind: str, name: str, vhost: str, user: str) -> AccessRefused:
    """403 for an action (configure, write, read) on a queue or exchange."""
    shown = resource_name(kind, name or "amq.default", vhost)
    return AccessRefused(f"{action} access to {shown} refused for user '{user}'")


class Patterns:
    """Compiled patterns, a bounded number of them; the oldest goes first."""

    __slots__ = ("_compiled", "_count_max")

    def __init__(self, count_max: int = 1024) -> None:
        self._compiled: dict[str, re.Pattern[str] | None] = {}
        self._count_max = count_max

    def allows(self, pattern: str, name: str) -> bool:
        """Whether the pattern is found in the name; one that does not compile allows nothing."""
        if not pattern:
            return not name  # RabbitMQ takes '' for '^$'
        if pattern not in self._compiled:
            while len(self._compiled) >= self._count_max:
                del self._compiled[next(iter(self._compiled))]
            self._compiled[pattern] = _compile(pattern)
        compiled = self._compiled[pattern]
        return compiled is not None and compiled.search(name) is not None


def _compile(pattern: str) -> re.Pattern[str] | None:
    try:
        check_pattern(pattern)
        return re.compile(pattern)
    except PreconditionFailed:
        return None
