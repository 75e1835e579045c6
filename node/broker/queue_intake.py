"""How new messages come into a queue that has rules for them: deduplication, expiry, delay, limits.

A queue without such rules takes plain messages without coming here.
"""

from collections.abc import Callable

from node.broker.commands import Options
from node.broker.queue_state import Queue, Reason
from node.broker.runs import PLAIN, Run, Traits, first_part, last_part
from node.broker.sources import Range

_NOTHING = Options()


def admit(  # noqa: PLR0917 - called per run and queue: no object, no keywords
    queue: Queue,
    run: Run,
    options: Options | None,
    sizes: list[int],
    now: int,
    follow_up: Callable[[Queue], None],
) -> list[Range]:
    """Take a new run in, as far as the rules allow.

    Args:
        queue: what it does not keep is in `queue.gone` or among its dead letters.
        run: plain, not in the queue.
        options: what the messages ask for.
        sizes: bytes of the body of each record of the command; empty where nobody counts them.
        now: time of the entry.
        follow_up: serves the consumers, and is called whenever that can make room.

    Returns:
        The messages that were refused, by their number in the command.
    """
    options = options or _NOTHING
    policy = queue.policy
    names = options.dedup_ids
    runs = _unknown(queue, run, names) if names else [run]
    if policy.bytes_max >= 0:
        runs = [part for one in runs for part in _by_size(one, sizes)]
    lives = [ttl_ms for ttl_ms in (policy.ttl_ms, options.ttl_ms) if ttl_ms >= 0]
    due = max(options.deliver_at_ms, now + options.delay_ms)
    expires_at = max(due, now) + min(lives) if lives else 0
    if expires_at:
        queue.is_timed = True
    priority = min(options.priority, policy.priority_max)
    refused: list[Range] = []
    for part in runs:
        traits = (priority, expires_at, part[6][2])
        new = (*part[:6], traits if traits != PLAIN else PLAIN)
        if due > now:
            queue.delay(new, due)
        elif policy.can_refuse:
            refused += _put_or_refuse(queue, new, now, follow_up)
        else:
            queue.put(new)
    if names:
        refused += _note(queue, run, names, refused)
    follow_up(queue)
    return refused


def _put_or_refuse(queue: Queue, run: Run, now: int, follow_up: Callable[[Queue], None]) -> list[Range]:
    """Put what there is room for, and again while consumers make room; refuse the rest."""
    while True:
        room = min(queue.room(run[6][2]), run[3])
        if not room:
            break
        queue.put(first_part(run, room))
        follow_up(queue)
        if room == run[3]:
            return []
        run = last_part(run, room)
    if queue.policy.buries_refused:
        queue.bury([run], Reason.MAXLEN, now)
    else:
        queue.gone.append(run)
    return [(run[2], run[2] + run[3] - 1)]


def _unknown(queue: Queue, run: Run, names: tuple[bytes, ...]) -> list[Run]:
    """The parts of a run that the queue has not seen; the others are gone."""
    parts: list[Run] = []
    is_new: list[bool] = []
    known = queue.window.known
    seen: set[bytes] = set()  # asked, never iterated
    for name in names[run[2] : run[2] + run[3]]:
        is_new.append(not name or (name not in known and name not in seen))
        seen.add(name)
    start = 0
    for at in range(1, len(is_new) + 1):
        if at == len(is_new) or is_new[at] != is_new[start]:
            part = first_part(last_part(run, start), at - start)
            (parts if is_new[start] else queue.gone).append(part)
            start = at
    return parts


def _note(queue: Queue, run: Run, names: tuple[bytes, ...], refused: list[Range]) -> list[Range]:
    """Note the ids of what was taken; what was refused may come again.

    Returns:
        The messages that were left out because of one before them that was refused.
    """
    refused_at = {at for first, last in refused for at in range(first, last + 1)}
    lost = {names[at] for at in refused_at}
    more: list[Range] = []
    for at in range(run[2], run[2] + run[3]):
        name = names[at]
        if not name or at in refused_at:
            continue
        if name in lost:
            more.append((at, at))
        else:
            queue.window.add(name)
    return more


def _by_size(run: Run, sizes: list[int]) -> list[Run]:
    """The parts of a run whose bodies have one size, which they bear from then on."""
    parts: list[Run] = []
    first, end = run[2], run[2] + run[3]
    start = first
    for at in range(first + 1, end + 1):
        if at == end or sizes[at] != sizes[start]:
            traits: Traits = (0, 0, sizes[start])
            parts.append((*run[:2], start, at - start, *run[4:6], traits))
            start = at
    return parts
