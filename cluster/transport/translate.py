"""Envelopes to protobuf and back. Values only: no IO, and nothing is judged but the shape.

Sender, boot, source and target do not travel with each message: they are the ends of the stream.
"""

from collections.abc import Callable, Iterable
from typing import Any

from cluster.envelope import (
    Batch,
    Envelope,
    Expect,
    SnapshotAccept,
    SnapshotOffer,
    SnapshotPart,
    SnapshotPartReply,
)
from cluster.raft import rpc
from cluster.types import Configuration, Entry, SnapshotMeta
from cluster.wire import peer_pb2 as pb


def to_frame(envelope: Envelope) -> pb.Frame:
    """The frame that carries an envelope."""
    frame = pb.Frame()
    out = frame.envelope
    out.to_boot = envelope.to_boot
    out.SetInParent()
    for group, message in envelope.messages:
        _WRITERS[message.KIND](out.messages.add(group=group, term=message.term), message)
    for batch in envelope.batches:
        out.batches.add(group=batch.group, data=batch.data)
    for expect in envelope.expects:
        out.expects.add(group=expect.group, term=expect.term, epoch=expect.epoch, seq=expect.seq)
    for offer in envelope.offers:
        offered = out.offers.add(group=offer.group, term=offer.term, transfer=offer.transfer)
        _write_meta(offered.meta, offer.meta)
    for accept in envelope.accepts:
        out.accepts.add(group=accept.group, term=accept.term, index=accept.index, applied=accept.applied)
    for part in envelope.parts:
        made = out.parts.add(
            group=part.group,
            term=part.term,
            index=part.index,
            number=part.number,
            last=part.last,
            transfer=part.transfer,
        )
        _write_entries(made.entries, part.entries)
        for key, value in part.rows:
            made.rows.add(key=key, value=value)
    for reply in envelope.part_replies:
        out.part_replies.add(
            group=reply.group,
            term=reply.term,
            index=reply.index,
            number=reply.number,
            ok=reply.ok,
            transfer=reply.transfer,
        )
    return frame


def from_envelope(envelope: pb.Envelope, *, sender: int, boot: int, receiver: int) -> Envelope:
    """The envelope that came from a process of `sender`. Raises ValueError for a message of no known kind."""
    return Envelope(
        sender,
        boot,
        envelope.to_boot,
        [(made.group, _read_message(made, sender, receiver)) for made in envelope.messages],
        [Batch(made.group, made.data) for made in envelope.batches],
        [Expect(made.group, made.term, made.epoch, made.seq) for made in envelope.expects],
        [
            SnapshotOffer(made.group, made.term, _read_meta(made.meta), made.transfer)
            for made in envelope.offers
        ],
        [SnapshotAccept(made.group, made.term, made.index, made.applied) for made in envelope.accepts],
        [_read_part(made) for made in envelope.parts],
        [
            SnapshotPartReply(m.group, m.term, m.index, m.number, m.ok, m.transfer)
            for m in envelope.part_replies
        ],
    )


def _read_part(made: pb.SnapshotPart) -> SnapshotPart:
    rows = tuple((row.key, row.value) for row in made.rows)
    return SnapshotPart(
        made.group,
        made.term,
        made.index,
        made.number,
        _read_entries(made.entries),
        rows,
        made.last,
        made.transfer,
    )


def _write_entries(target: Any, entries: Iterable[tuple[int, int, int, int, bytes]]) -> None:
    for index, term, kind, ts, data in entries:
        target.add(index=index, term=term, kind=kind, ts=ts, data=data)


def _read_entries(entries: Iterable[pb.Entry]) -> tuple[Entry, ...]:
    return tuple([Entry(made.index, made.term, made.kind, made.ts, made.data) for made in entries])


def _write_meta(target: pb.SnapshotMeta, meta: SnapshotMeta) -> None:
    target.index, target.term, target.ts = meta.index, meta.term, meta.ts
    target.machine_version = meta.machine_version
    configuration = meta.configuration
    target.configuration.voters.extend(configuration.voters)
    target.configuration.learners.extend(configuration.learners)
    target.configuration.outgoing.extend(configuration.outgoing)
    target.configuration.learners_next.extend(configuration.learners_next)
    target.configuration.auto_leave = configuration.auto_leave


def _read_meta(made: pb.SnapshotMeta) -> SnapshotMeta:
    c = made.configuration
    configuration = Configuration(
        tuple(c.voters), tuple(c.learners), tuple(c.outgoing), tuple(c.learners_next), c.auto_leave
    )
    return SnapshotMeta(made.index, made.term, made.ts, configuration, made.machine_version)


# -- Raft messages: one writer and one reader a kind -------------------------------------------------------


def _write_append_entries(target: pb.Rpc, message: rpc.AppendEntries) -> None:
    out = target.append_entries
    out.SetInParent()
    out.prev_log_index, out.prev_log_term = message.prev_log_index, message.prev_log_term
    out.leader_commit, out.quiet = message.leader_commit, message.quiet
    _write_entries(out.entries, message.entries)


def _write_append_reply(target: pb.Rpc, message: rpc.AppendReply) -> None:
    out = target.append_reply
    out.SetInParent()
    out.index, out.rejected = message.index, message.rejected
    out.hint_index, out.hint_term = message.hint_index, message.hint_term
    out.lazy = message.lazy


def _write_heartbeat(target: pb.Rpc, message: rpc.Heartbeat) -> None:
    target.heartbeat.SetInParent()
    target.heartbeat.leader_commit, target.heartbeat.token = message.leader_commit, message.token


def _write_heartbeat_reply(target: pb.Rpc, message: rpc.HeartbeatReply) -> None:
    target.heartbeat_reply.SetInParent()
    target.heartbeat_reply.token = message.token


def _write_request_vote(target: pb.Rpc, message: rpc.RequestVote) -> None:
    out = target.request_vote
    out.SetInParent()
    out.last_log_index, out.last_log_term = message.last_log_index, message.last_log_term
    out.pre, out.transfer = message.pre, message.transfer
    out.commit, out.commit_term = message.commit, message.commit_term


def _write_vote_reply(target: pb.Rpc, message: rpc.VoteReply) -> None:
    out = target.vote_reply
    out.SetInParent()
    out.granted, out.pre = message.granted, message.pre
    out.commit, out.commit_term = message.commit, message.commit_term


def _write_timeout_now(target: pb.Rpc, _message: rpc.TimeoutNow) -> None:
    target.timeout_now.SetInParent()


def _write_read_index(target: pb.Rpc, message: rpc.ReadIndex) -> None:
    target.read_index.SetInParent()
    target.read_index.token = message.token


def _write_read_index_reply(target: pb.Rpc, message: rpc.ReadIndexReply) -> None:
    target.read_index_reply.SetInParent()
    target.read_index_reply.token, target.read_index_reply.index = message.token, message.index


def _write_install_snapshot(target: pb.Rpc, message: rpc.InstallSnapshot) -> None:
    target.install_snapshot.SetInParent()
    _write_meta(target.install_snapshot.meta, message.meta)


_WRITERS: dict[rpc.Kind, Callable[[pb.Rpc, Any], None]] = {
    rpc.Kind.APPEND_ENTRIES: _write_append_entries,
    rpc.Kind.APPEND_REPLY: _write_append_reply,
    rpc.Kind.HEARTBEAT: _write_heartbeat,
    rpc.Kind.HEARTBEAT_REPLY: _write_heartbeat_reply,
    rpc.Kind.REQUEST_VOTE: _write_request_vote,
    rpc.Kind.VOTE_REPLY: _write_vote_reply,
    rpc.Kind.TIMEOUT_NOW: _write_timeout_now,
    rpc.Kind.READ_INDEX: _write_read_index,
    rpc.Kind.READ_INDEX_REPLY: _write_read_index_reply,
    rpc.Kind.INSTALL_SNAPSHOT: _write_install_snapshot,
}


def _read_message(made: pb.Rpc, source: int, target: int) -> rpc.Message:
    kind = made.WhichOneof("content")
    if kind is None:
        raise ValueError("a message of a kind that this version does not know")
    return _READERS[kind](getattr(made, kind), source, target, made.term)


def _read_append_entries(m: pb.AppendEntries, source: int, target: int, term: int) -> rpc.AppendEntries:
    entries = _read_entries(m.entries)
    return rpc.AppendEntries(
        source, target, term, m.prev_log_index, m.prev_log_term, m.leader_commit, entries, m.quiet
    )


_READERS: dict[str, Callable[[Any, int, int, int], rpc.Message]] = {
    "append_entries": _read_append_entries,
    "append_reply": lambda m, s, t, term: rpc.AppendReply(
        s, t, term, m.index, m.rejected, m.hint_index, m.hint_term, m.lazy
    ),
    "heartbeat": lambda m, s, t, term: rpc.Heartbeat(s, t, term, m.leader_commit, m.token),
    "heartbeat_reply": lambda m, s, t, term: rpc.HeartbeatReply(s, t, term, m.token),
    "request_vote": lambda m, s, t, term: rpc.RequestVote(
        s, t, term, m.last_log_index, m.last_log_term, m.pre, m.transfer, m.commit, m.commit_term
    ),
    "vote_reply": lambda m, s, t, term: rpc.VoteReply(s, t, term, m.granted, m.pre, m.commit, m.commit_term),
    "timeout_now": lambda _, s, t, term: rpc.TimeoutNow(s, t, term),
    "read_index": lambda m, s, t, term: rpc.ReadIndex(s, t, term, m.token),
    "read_index_reply": lambda m, s, t, term: rpc.ReadIndexReply(s, t, term, m.token, m.index),
    "install_snapshot": lambda m, s, t, term: rpc.InstallSnapshot(s, t, term, _read_meta(m.meta)),
}
