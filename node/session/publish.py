"""basic.publish: for each run of a burst the plan that is known, or a route; `sorter.py` has the rest of the way.

A message that no queue takes waits for one barrier of the metadata group, lest a binding made elsewhere be missed; what
the channel sent after it waits behind.
"""

import struct
from typing import TYPE_CHECKING, NamedTuple

from cluster.types import METADATA_GROUP
from node.amqp.content import parse_publish
from node.errors import NotFound
from node.session.routing import Part, route
from node.session.script import Script
from node.session.sorter import Sorter, SpecialKind, confirm
from node.wire import codec

if TYPE_CHECKING:
    from node.session.channel import ChannelSession
    from node.session.plans import Plan
    from node.wire.codec import PublishedRun

RUN_BYTES = 256
"""What a run counts for beside its messages' bytes, so that empty messages are bounded too."""

_RETURN_HEAD = struct.pack(">HHHB", 60, 50, 312, 8) + b"NO_ROUTE"


class Returned(NamedTuple):
    """Mandatory messages that no queue takes."""

    count: int  # type: ignore[assignment]  # as in a run; tuple.count is not used
    packed: bytes

    def send(self, channel: "ChannelSession") -> None:
        """basic.return."""
        if channel.gone:
            return
        session = channel.session
        number, frame_max = channel.amqp.number, session.amqp.frame_max
        frames, _ = codec.content_frames(
            self.packed, 0, self.count, number, _RETURN_HEAD, -1, b"", b"", frame_max
        )
        session.send_frames(channel, frames)


def charged_bytes(runs: "list[PublishedRun]") -> int:
    """What a burst counts for in the bounds."""
    size_bytes = RUN_BYTES * len(runs)
    for _, _, packed in runs:
        size_bytes += len(packed)
    return size_bytes


def publish(
    channel: "ChannelSession", runs: "list[PublishedRun]", first_seq: int, *, is_current: bool = False
) -> None:
    """Send a burst on its way.

    Args:
        channel: where it was published.
        runs, first_seq: see `events.Publish`.
        is_current: the topology is no older than the burst.

    Raises:
        AccessRefused: 403, the user may not write to the exchange, or it is internal.
        NotFound: 404, there is no such exchange.
    """
    session = channel.session
    known = session.plans.known(session.node.topology.routes_version)
    sorter = Sorter(channel)
    done = 0
    try:
        for run in runs:
            args, count, packed = run
            plan = known.get(args)
            if plan is not None:
                sorter.add(plan, first_seq, count, packed, len(packed) + RUN_BYTES)
            elif not _publish_slowly(channel, sorter, runs, done, first_seq, is_current=is_current):
                break
            done += 1
            if first_seq:
                first_seq += count
    except Exception:
        session.release(charged_bytes(runs[done:]))
        raise
    finally:
        sorter.submit()
    if done < len(runs):
        rest = runs[done:]
        channel.held_bytes = charged_bytes(rest)
        channel.run(_publish_when_current(channel, rest, first_seq), None)


def _publish_when_current(channel: "ChannelSession", runs: "list[PublishedRun]", first_seq: int) -> Script:
    # No deadline: to drop a message, or to return it, because the cluster is slow would be wrong.
    channel.session.node.barrier(METADATA_GROUP, channel.ask(METADATA_GROUP, has_deadline=False))
    yield
    channel.held_bytes = 0
    publish(channel, runs, first_seq, is_current=True)


def _publish_slowly(
    channel: "ChannelSession",
    sorter: Sorter,
    runs: "list[PublishedRun]",
    at: int,
    first_seq: int,
    *,
    is_current: bool,
) -> bool:
    """Route a run anew. False, and nothing done: that no queue takes all of it is to be believed only when current."""
    args, count, packed = runs[at]
    try:
        parts, fault = route(channel, runs[at])
    except NotFound:
        if is_current:
            raise
        return False
    if not is_current and not all(part.plan.groups for part in parts):
        return False
    overhead_bytes = 0 if fault is not None else RUN_BYTES
    for part in parts:
        size_bytes = part.came_bytes + overhead_bytes
        overhead_bytes = 0
        if part.plan.groups:
            run = sorter.add(_kind(part), first_seq, part.count, part.packed, size_bytes)
            run.dedup_ids += part.dedup_ids
        else:
            if parse_publish(args).mandatory:
                _return(channel, Returned(part.count, part.packed), size_bytes)
            ranges = [(first_seq, first_seq + part.count - 1)] if first_seq else []
            confirm(channel, ranges, size_bytes)
        if first_seq:
            first_seq += part.count
    if fault is not None:
        done_bytes = sum([part.came_bytes for part in parts])
        runs[at] = (args, count - sum([part.count for part in parts]), packed[done_bytes:])
        raise fault
    return True


def _kind(part: Part) -> "Plan | SpecialKind":
    if part.options is None:
        return part.plan
    return SpecialKind(part.plan, part.options, bool(part.dedup_ids))


def _return(channel: "ChannelSession", returned: Returned, size_bytes: int) -> None:
    if channel.transaction is not None:
        channel.transaction.keep_returned(returned, size_bytes)
    else:
        returned.send(channel)
