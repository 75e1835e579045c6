"""Takes steps away from a sequence as long as it still shows a difference (delta debugging)."""

from collections.abc import Callable

from integration.differential.steps import Step

TRIES_MAX = 150


def shrunk(steps: list[Step], fails: Callable[[list[Step]], bool]) -> list[Step]:
    """The shortest found that still fails; `steps` themselves do."""
    tries = 0
    size = max(1, len(steps) // 2)
    while True:
        start, is_changed = 0, False
        while start < len(steps) and tries < TRIES_MAX:
            rest = steps[:start] + steps[start + size :]
            tries += 1
            if rest and fails(rest):
                steps, is_changed = rest, True
            else:
                start += size
        if tries >= TRIES_MAX or (size == 1 and not is_changed):
            return steps
        size = max(1, size // 2)
