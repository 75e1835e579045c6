"""Frames that are written and read by hand are those that the generated classes write and read."""

import asyncio
import logging

import grpc
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from cluster.envelope import Batch, Envelope
from cluster.transport.frames import join, split
from cluster.transport.hello import BULK, CONTROL, Identity, hello_frame
from cluster.transport.translate import from_bytes, to_bytes
from cluster.wire import peer_pb2 as pb
from cluster.wire import peer_pb2_grpc as pb_grpc
from tests.cluster.transport.test_network import End, free_ports, until
from tests.cluster.transport.test_translate import full_envelope

DATA = st.lists(st.one_of(st.binary(max_size=200), st.sampled_from([127, 128, 16383, 16384]).map(bytes)))
ENVELOPES = st.builds(
    pb.Envelope,
    to_boot=st.integers(0, 1 << 40),
    messages=st.lists(st.builds(pb.Rpc, group=st.integers(0, 1 << 20), term=st.integers(0, 1 << 40))),
)
FRAMES = st.builds(pb.Frame, envelope=ENVELOPES, data=DATA).map(pb.Frame.SerializeToString)
HELLOS = st.just(hello_frame(Identity("c", 1, 2), 3, CONTROL).SerializeToString())
LENGTHS = st.sampled_from(
    [b"\x00", b"\x01a", b"\x81\x00a", b"\x81\x80\x80\x80\x00a", b"\x81\x80\x80\x80\x80\x00a"]
)
ODD = st.one_of(
    st.binary(max_size=8),
    LENGTHS.map(lambda field: b"\x1a" + field),
    LENGTHS.map(lambda field: b"\x12" + field),
    st.sampled_from(
        [b"\x1a", b"\x1a\xff\xff\xff\xff\x0f", b"\x1a" + b"\xff" * 20, b"\x9a\x00\x01a", b"\x22\x01a"]
    ),
)


def generated(raw: bytes) -> tuple[pb.Frame, list[bytes]] | None:
    """What the generated parser makes of it."""
    try:
        frame = pb.Frame.FromString(raw)
    except DecodeError:
        return None
    data = list(frame.data)
    frame.ClearField("data")
    return frame, data


def by_hand(raw: bytes) -> tuple[pb.Frame, list[bytes]] | None:
    """What `split` makes of it."""
    try:
        frame, data = split(raw)
    except ValueError:
        return None
    frame.ClearField("data")
    return frame, data


@given(ENVELOPES, DATA)
def test_join_writes_what_the_generated_class_writes(envelope: pb.Envelope, data: list[bytes]) -> None:
    """The .proto is the truth of the format: byte for byte."""
    whole = pb.Frame(envelope=envelope, data=data)
    assert join(pb.Frame(envelope=envelope), data) == whole.SerializeToString()


@given(st.lists(st.one_of(FRAMES, HELLOS, ODD), max_size=4).map(b"".join))
def test_split_reads_what_the_generated_parser_reads(raw: bytes) -> None:
    """Fields in another order, twice, unknown or with longer lengths than need be; and what is no frame at all."""
    assert by_hand(raw) == generated(raw)


@given(FRAMES, st.data())
def test_split_of_a_damaged_frame_is_the_generated_parsers(raw: bytes, chance: st.DataObject) -> None:
    """Cut short, or with a byte changed."""
    at = chance.draw(st.integers(0, len(raw) - 1))
    changed = raw[:at] + bytes([chance.draw(st.integers(0, 255))]) + raw[at + 1 :]
    assert by_hand(changed) == generated(changed)
    assert by_hand(raw[:at]) == generated(raw[:at])


def test_data_stands_in_the_order_of_the_envelope() -> None:
    """Whoever reads the .proto finds the data of the third entry at the third place."""
    frame = pb.Frame.FromString(to_bytes(full_envelope()))
    assert list(frame.data) == [b"\x00" * 1000, b"", b"batch", b"", b"\x00" * 1000, b""]


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"\x12\x05", "bytes that are no frame"),
        (b"", "a frame without an envelope"),
        (hello_frame(Identity("c", 1, 2), 3, BULK).SerializeToString(), "a frame without an envelope"),
        (
            pb.Frame(envelope={"batches": [{"group": 1}]}).SerializeToString(),
            "a frame with less data than it names",
        ),
        (pb.Frame(envelope={}, data=[b"x"]).SerializeToString(), "a frame with more data than it names"),
        (pb.Frame(envelope={"messages": [{}]}).SerializeToString(), "a message of a kind"),
    ],
)
def test_a_malformed_frame_is_a_value_error(raw: bytes, why: str) -> None:
    """The one error that the reader of a stream has to know."""
    with pytest.raises(ValueError, match=why):
        from_bytes(raw, sender=1, boot=2, receiver=3)


def test_a_malformed_frame_ends_its_stream_with_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """What came before it counts, and a stream that is opened anew is served: the last one here speaks through the
    generated classes."""

    async def stream(channel: grpc.aio.Channel, *rest: bytes) -> None:
        exchange = channel.stream_stream("/warren.cluster.v1.Peer/Exchange")
        call = exchange()
        for raw in (hello_frame(Identity("c", 2, 22), 1, BULK).SerializeToString(), *rest):
            await call.write(raw)
        while await call.read() is not grpc.aio.EOF:
            pass

    async def run() -> None:
        port = free_ports(1)[0]
        one = End(1, {2: ("127.0.0.1", free_ports(1)[0])}, port, 11, "c")
        await one.network.start()
        good = to_bytes(Envelope(2, 22, 11, batches=[Batch(1, b"x" * 300)]))
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            for bad in (b"\x12\x7f", b"\x12\x7f", good + b"\x1a\x01x"):
                await stream(channel, good, bad)
            call = pb_grpc.PeerStub(channel).Exchange()  # type: ignore[no-untyped-call]
            await call.write(hello_frame(Identity("c", 2, 22), 1, BULK))
            await call.write(pb.Frame.FromString(good))
            await until(lambda: len(one.received) == 4)
            call.cancel()
        await one.network.close()
        assert {tuple(envelope.batches) for envelope in one.received} == {(Batch(1, b"x" * 300),)}

    with caplog.at_level(logging.WARNING):
        asyncio.run(run())
    texts = [record.getMessage() for record in caplog.records if record.name == "cluster.transport.servicer"]
    assert [text.split(": ", 1)[1] for text in texts] == [
        "bytes that are no frame",
        "a frame with more data than it names",
    ]
    assert all(text.startswith("ended a stream of node 2 at ipv4:127.0.0.1:") for text in texts)


def test_a_malformed_hello_ends_its_stream_with_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """Anyone can reach the port."""

    async def run() -> None:
        port = free_ports(1)[0]
        one = End(1, {}, port, 11, "c")
        await one.network.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            for _ in range(2):
                call = channel.stream_stream("/warren.cluster.v1.Peer/Exchange")()
                await call.write(b"\xff" * 40)
                assert await call.read() is grpc.aio.EOF
        await one.network.close()

    with caplog.at_level(logging.WARNING):
        asyncio.run(run())
    (text,) = [record.getMessage() for record in caplog.records]
    assert text.endswith(": bytes that are no frame")
