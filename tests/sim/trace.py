"""The story of a run, one aligned line per event, told only where somebody wants to read it."""

import hashlib
from collections.abc import Iterable
from typing import Any

from cluster.envelope import Envelope
from cluster.raft import rpc

LINES_KEPT = 40

Line = tuple[int, int, str, str, tuple[Any, ...]]
"""Step, virtual milliseconds, who, what, details."""


def told(line: Line) -> str:
    """Put an event into words."""
    step, at_ms, who, what, values = line
    return f"{step:>7} {at_ms:>8} {who:<4} {what:<11} {' '.join(map(_word, values))}".rstrip()


def digest(trace: Iterable[Line]) -> str:
    """A hash of the whole story."""
    story = hashlib.sha256()
    for line in trace:
        story.update(told(line).encode() + b"\n")
    return story.hexdigest()


def _word(value: Any) -> str:
    if isinstance(value, Envelope):
        return _envelope(value)
    if hasattr(value, "envelopes"):
        writes = " ".join(map(_write, value.writes))
        return f"{value.number} writes [{writes}] to {sorted(value.envelopes)}"
    return str(value)


def _write(write: Any) -> str:
    parts = [f"g{write.group}"]
    if write.install is not None:
        parts.append(f"install {write.install.index}")
    if write.truncate_from is not None:
        parts.append(f"cut {write.truncate_from}")
    if write.entries:
        parts.append(f"{write.entries[0].index}-{write.entries[-1].index}")
    if write.hard_state is not None:
        parts.append(f"t{write.hard_state.term} v{write.hard_state.vote} c{write.hard_state.commit}")
    if write.checkpoint is not None:
        parts.append(f"save {write.checkpoint.index} to {write.compact_to}")
    if write.trims:
        parts.append(f"trim {len(write.trims)}")
    if write.live_rows:
        parts.append(f"live {len(write.live_rows)}")
    return ",".join(parts)


def _envelope(envelope: Envelope) -> str:
    parts = [f"g{group}:{_message(message)}" for group, message in envelope.messages]
    parts += [f"g{batch.group}:batch({len(batch.data)})" for batch in envelope.batches]
    parts += [f"g{expect.group}:expect({expect.term},{expect.seq})" for expect in envelope.expects]
    parts += [f"g{offer.group}:offer({offer.meta.index})" for offer in envelope.offers]
    parts += [f"g{accept.group}:accept({accept.index})" for accept in envelope.accepts]
    parts += [f"g{part.group}:part({part.index},{part.number})" for part in envelope.parts]
    parts += [f"g{reply.group}:parted({reply.number},{reply.ok})" for reply in envelope.part_replies]
    return " ".join(parts)


def _message(message: rpc.Message) -> str:
    name, term = type(message).__name__, message.term
    match message:
        case rpc.AppendEntries():
            return f"Append(t{term} {message.prev_log_index}+{len(message.entries)} c{message.leader_commit})"
        case rpc.AppendReply():
            return f"{'Rejected' if message.rejected else 'Appended'}(t{term} {message.index})"
        case rpc.RequestVote():
            kind = "PreVote" if message.pre else "Vote"
            return f"{kind}(t{term} {message.last_log_index}/{message.last_log_term})"
        case rpc.VoteReply():
            return f"{'Granted' if message.granted else 'Refused'}(t{term}{' pre' if message.pre else ''})"
    return f"{name}(t{term})"
