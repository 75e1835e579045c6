"""Envelopes come out of protobuf as they went in."""

from dataclasses import fields

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
from cluster.transport.lane import merge, part
from cluster.transport.translate import from_bytes, to_bytes
from cluster.types import Configuration, Entry, SnapshotMeta

META = SnapshotMeta(10, 3, 1 << 41, Configuration((1, 2, 3), (4,), (2, 3), (3,), auto_leave=True), 2)
ENTRIES = (Entry(5, 3, 1, 1 << 41, b"\x00" * 1000), Entry(6, 3, 0, (1 << 41) + 1, b""))
MESSAGES: list[rpc.Message] = [
    rpc.AppendEntries(1, 2, 3, 4, 2, 1, ENTRIES, quiet=True),
    rpc.AppendEntries(1, 2, 3, 0, 0, 0),
    rpc.AppendReply(1, 2, 3, 4, rejected=True, hint_index=2, hint_term=1, lazy=True),
    rpc.Heartbeat(1, 2, 3, 4, 5),
    rpc.HeartbeatReply(1, 2, 3, 5),
    rpc.RequestVote(1, 2, 3, 4, 5, pre=True, transfer=True, commit=6, commit_term=7),
    rpc.VoteReply(1, 2, 3, granted=True, pre=True, commit=4, commit_term=3),
    rpc.InstallSnapshot(1, 2, 3, META),
    rpc.TimeoutNow(1, 2, 3),
    rpc.ReadIndex(1, 2, 3, 1 << 60),
    rpc.ReadIndexReply(1, 2, 3, 1 << 60, 9),
]


def full_envelope() -> Envelope:
    """Every kind of content once."""
    return Envelope(
        1,
        77,
        78,
        list(enumerate(MESSAGES)),
        [Batch(3, b"batch"), Batch(1 << 16, b"")],
        [Expect(3, 0, 1 << 50, 9)],
        [SnapshotOffer(4, 5, META, 8)],
        [SnapshotAccept(4, 5, 6, 7)],
        [SnapshotPart(4, 5, 6, 7, ENTRIES, ((b"k", b"v"), (b"", b"")), last=True, transfer=8)],
        [SnapshotPartReply(4, 5, 6, 7, ok=True, transfer=8)],
    )


def sent(envelope: Envelope) -> Envelope:
    return from_bytes(to_bytes(envelope), sender=1, boot=77, receiver=2)


def test_every_message_kind_is_tried() -> None:
    """A kind that is added to Raft must be added to the wire."""
    assert {message.KIND for message in MESSAGES} == set(rpc.Kind)


def test_every_field_is_tried() -> None:
    """A field that is added to a message must be added to the wire: some message here has it set."""
    for kind in {type(message) for message in MESSAGES}:
        for field in fields(kind):
            values = [getattr(message, field.name) for message in MESSAGES if type(message) is kind]
            assert any(values), f"{kind.__name__}.{field.name} is never set"


def test_envelope_survives_the_wire() -> None:
    """Nothing is lost, and everything has its type back."""
    assert sent(full_envelope()) == full_envelope()
    assert sent(Envelope(1, 77, 0)) == Envelope(1, 77, 0)


def test_parting_and_merging_lose_nothing() -> None:
    """Bulk and control travel apart; together they are the envelope."""
    parted = part(full_envelope())
    assert parted.control is not None and parted.bulk is not None
    assert [message for _, message in parted.bulk.messages] == MESSAGES[:2]
    assert [message for _, message in parted.control.messages] == MESSAGES[2:]
    assert parted.bulk_bytes > sum(len(entry.data) for entry in ENTRIES)
    merge(parted.bulk, parted.control)
    whole = full_envelope()
    assert parted.bulk == whole
    assert part(Envelope(1, 77, 78)).bulk is None
