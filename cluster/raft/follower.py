"""What a follower does with its leader's messages (Raft 5.3, 7).

Every answer that a leader may count goes out only after what it vouches for is durable.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from cluster.raft import candidate
from cluster.raft.ready import ReadState
from cluster.raft.rpc import (
    AppendEntries,
    AppendReply,
    Heartbeat,
    HeartbeatReply,
    InstallSnapshot,
    ReadIndexReply,
    TimeoutNow,
)

if TYPE_CHECKING:
    from cluster.raft.core import Raft


def step_append(raft: "Raft", message: AppendEntries) -> None:
    """Store the leader's entries if the log matches before them, and learn how far it is committed."""
    raft.hear(message.source)
    log = raft.log
    previous, entries = message.prev_log_index, message.entries
    if previous < log.commit:
        # What is committed here is in the leader's log too (Raft 5.4.3): the rest can only continue it.
        entries = entries[log.commit - previous :]
        previous = log.commit
    elif not log.matches(previous, message.prev_log_term):
        _reject(raft, message)
        return
    if entries:
        log.accept(previous, entries)
    # Not the end of the log: what lies beyond this message may differ from the leader's (Raft figure 2).
    matched = previous + len(entries)
    log.commit_to(min(message.leader_commit, matched))
    if not message.quiet:
        _accept(raft, matched)


def _accept(raft: "Raft", index: int) -> None:
    """Answer that the log matches up to `index`; several appends of one turn get one answer."""
    waiting = raft.messages_after_persist
    if waiting:
        last = waiting[-1]
        if (
            isinstance(last, AppendReply)
            and not last.rejected
            and (last.target, last.term) == (raft.leader, raft.term)
        ):
            last.index = max(last.index, index)
            last.lazy = raft.is_lazy
            return
    waiting.append(AppendReply(raft.id, raft.leader, raft.term, index, lazy=raft.is_lazy))


def _reject(raft: "Raft", message: AppendEntries) -> None:
    hint_index, hint_term = raft.log.conflict_hint(message.prev_log_index, message.prev_log_term)
    raft.messages_after_persist.append(
        AppendReply(
            raft.id,
            message.source,
            raft.term,
            message.prev_log_index,
            rejected=True,
            hint_index=hint_index,
            hint_term=hint_term,
        )
    )


def step_heartbeat(raft: "Raft", message: Heartbeat) -> None:
    """The leader lives. Its commit index here is at most what this member is known to hold."""
    raft.hear(message.source)
    raft.log.commit_to(message.leader_commit)
    # Leaves at once: it says that this member is in the leader's term now, and a crash cannot unsay that.
    raft.messages.append(HeartbeatReply(raft.id, message.source, raft.term, message.token))


def step_snapshot(raft: "Raft", message: InstallSnapshot) -> None:
    """The leader's saved state is staged here: take it, unless the log has got that far by itself."""
    raft.hear(message.source)
    log, meta = raft.log, message.meta
    if meta.index <= log.commit:
        _accept(raft, log.commit)
    elif log.matches(meta.index, meta.term):
        log.commit_to(meta.index)
        _accept(raft, meta.index)
    else:
        log.restore(meta)
        raft.applying.clear()
        raft.applying_bytes = 0
        raft.configuration = meta.configuration
        _accept(raft, meta.index)


def step_timeout_now(raft: "Raft", message: TimeoutNow) -> None:
    """The leader hands over: campaign without a pre-vote, for all still hear it (dissertation 3.10)."""
    if message.source == raft.leader and candidate.can_campaign(raft):
        candidate.become_candidate(raft, transfer=True)


def step_read_reply(raft: "Raft", message: ReadIndexReply) -> None:
    """The leader answered a read of this node."""
    raft.read_states.append(ReadState(message.token, message.index))


STEPS: dict[type, Callable[..., None]] = {
    AppendEntries: step_append,
    Heartbeat: step_heartbeat,
    InstallSnapshot: step_snapshot,
    TimeoutNow: step_timeout_now,
    ReadIndexReply: step_read_reply,
}
