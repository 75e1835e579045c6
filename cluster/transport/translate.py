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
from cluster.transport.frames import join, split
from cluster.types import Configuration, Entry, SnapshotMeta
from cluster.wire import peer_pb2 as pb

Take = Callable[[], bytes]
"""The data of the next entry or batch; IndexError if there is none."""


def to_bytes(envelope: Envelope) -> bytes:
    """The frame that carries an envelope."""
    frame = pb.Frame()
    data: list[bytes] = []
    out = frame.envelope
    out.to_boot = envelope.to_boot
    for group, message in envelope.messages:
        made = out.messages.add(group=group, term=message.term)
        if isinstance(message, rpc.AppendEntries):
            _write_append_entries(made.append_entries, message, data)
        else:
            _WRITERS[message.KIND](made, message)
    for batch in envelope.batches:
        out.batches.add(group=batch.group)
        data.append(batch.data)
    for expect in envelope.expects:
        out.expects.add(group=expect.group, term=expect.term, epoch=expect.epoch, seq=expect.seq)
    for offer in envelope.offers:
        offered = out.offers.add(group=offer.group, term=offer.term, transfer=offer.transfer)
        _write_meta(offered.meta, offer.meta)
    for accept in envelope.accepts:
        out.accepts.add(group=accept.group, term=accept.term, index=accept.index, applied=accept.applied)
    for part in envelope.parts:
        _write_part(out.parts.add(), part, data)
    for reply in envelope.part_replies:
        out.part_replies.add(
            group=reply.group,
            term=reply.term,
            index=reply.index,
            number=reply.number,
            ok=reply.ok,
            transfer=reply.transfer,
        )
    return join(frame, data)


def from_bytes(raw: bytes, *, sender: int, boot: int, receiver: int) -> Envelope:
    """The envelope in a frame of a process of `sender`. Raises ValueError for bytes that are none."""
    frame, data = split(raw)
    if not frame.HasField("envelope"):
        raise ValueError("a frame without an envelope")
    made = frame.envelope
    data.reverse()
    take = data.pop
    try:
        # Most are empty: asking costs a third of going through one that has nothing.
        envelope = Envelope(
            sender,
            boot,
            made.to_boot,
            [(m.group, _read_message(m, sender, receiver, take)) for m in made.messages],
            [Batch(m.group, take()) for m in made.batches] if made.batches else [],
            [Expect(m.group, m.term, m.epoch, m.seq) for m in made.expects] if made.expects else [],
            [_read_offer(m) for m in made.offers] if made.offers else [],
            [_read_accept(m) for m in made.accepts] if made.accepts else [],
            [_read_part(m, take) for m in made.parts] if made.parts else [],
            [_read_part_reply(m) for m in made.part_replies] if made.part_replies else [],
        )
    except IndexError as error:
        raise ValueError("a frame with less data than it names") from error
    if data:
        raise ValueError("a frame with more data than it names")
    return envelope


def _read_offer(m: pb.SnapshotOffer) -> SnapshotOffer:
    return SnapshotOffer(m.group, m.term, _read_meta(m.meta), m.transfer)


def _read_accept(m: pb.SnapshotAccept) -> SnapshotAccept:
    return SnapshotAccept(m.group, m.term, m.index, m.applied)


def _read_part_reply(m: pb.SnapshotPartReply) -> SnapshotPartReply:
    return SnapshotPartReply(m.group, m.term, m.index, m.number, m.ok, m.transfer)


def _write_part(out: pb.SnapshotPart, part: SnapshotPart, data: list[bytes]) -> None:
    out.group, out.term, out.index = part.group, part.term, part.index
    out.number, out.last, out.transfer = part.number, part.last, part.transfer
    _write_entries(out.entries, part.entries, data)
    for key, value in part.rows:
        out.rows.add(key=key, value=value)


def _read_part(m: pb.SnapshotPart, take: Take) -> SnapshotPart:
    rows = tuple((row.key, row.value) for row in m.rows)
    entries = _read_entries(m.entries, take)
    return SnapshotPart(m.group, m.term, m.index, m.number, entries, rows, m.last, m.transfer)


def _write_entries(out: Any, entries: Iterable[Entry], data: list[bytes]) -> None:
    for index, term, kind, ts, held in entries:
        out.add(index=index, term=term, kind=kind, ts=ts)
        data.append(held)


def _read_entries(entries: Iterable[pb.Entry], take: Take) -> tuple[Entry, ...]:
    return tuple([Entry(made.index, made.term, made.kind, made.ts, take()) for made in entries])


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


# -- Raft messages: one writer and one reader a kind; appends apart, for they alone have data ----------------


def _write_append_entries(out: pb.AppendEntries, message: rpc.AppendEntries, data: list[bytes]) -> None:
    out.prev_log_index, out.prev_log_term = message.prev_log_index, message.prev_log_term
    out.leader_commit, out.quiet = message.leader_commit, message.quiet
    if message.entries:
        _write_entries(out.entries, message.entries, data)


def _write_append_reply(target: pb.Rpc, message: rpc.AppendReply) -> None:
    out = target.append_reply
    out.index, out.rejected = message.index, message.rejected
    out.hint_index, out.hint_term = message.hint_index, message.hint_term
    out.lazy = message.lazy


def _write_heartbeat(target: pb.Rpc, message: rpc.Heartbeat) -> None:
    out = target.heartbeat
    out.leader_commit, out.token = message.leader_commit, message.token


def _write_heartbeat_reply(target: pb.Rpc, message: rpc.HeartbeatReply) -> None:
    target.heartbeat_reply.token = message.token


def _write_request_vote(target: pb.Rpc, message: rpc.RequestVote) -> None:
    out = target.request_vote
    out.last_log_index, out.last_log_term = message.last_log_index, message.last_log_term
    out.pre, out.transfer = message.pre, message.transfer
    out.commit, out.commit_term = message.commit, message.commit_term


def _write_vote_reply(target: pb.Rpc, message: rpc.VoteReply) -> None:
    out = target.vote_reply
    out.granted, out.pre = message.granted, message.pre
    out.commit, out.commit_term = message.commit, message.commit_term


def _write_timeout_now(target: pb.Rpc, _message: rpc.TimeoutNow) -> None:
    target.timeout_now.SetInParent()  # it has no field whose setting would do that


def _write_read_index(target: pb.Rpc, message: rpc.ReadIndex) -> None:
    target.read_index.token = message.token


def _write_read_index_reply(target: pb.Rpc, message: rpc.ReadIndexReply) -> None:
    out = target.read_index_reply
    out.token, out.index = message.token, message.index


def _write_install_snapshot(target: pb.Rpc, message: rpc.InstallSnapshot) -> None:
    _write_meta(target.install_snapshot.meta, message.meta)


_WRITERS: dict[rpc.Kind, Callable[[pb.Rpc, Any], None]] = {
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


def _read_message(made: pb.Rpc, source: int, target: int, take: Take) -> rpc.Message:
    kind = made.WhichOneof("content")
    if kind is None:
        raise ValueError("a message of a kind that this version does not know")
    if kind == "append_entries":
        m = made.append_entries
        entries = _read_entries(m.entries, take) if m.entries else ()
        return rpc.AppendEntries(
            source, target, made.term, m.prev_log_index, m.prev_log_term, m.leader_commit, entries, m.quiet
        )
    return _READERS[kind](getattr(made, kind), source, target, made.term)


_READERS: dict[str, Callable[[Any, int, int, int], rpc.Message]] = {
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
