"""A link must outlive whatever ends a stream: without it the peer is cut off until the process restarts."""

import asyncio

import grpc
import pytest

from cluster.envelope import Envelope
from cluster.raft.rpc import AppendEntries, Heartbeat
from cluster.transport import translate
from cluster.transport.hello import Identity
from cluster.transport.link import Link, LinkEvents
from cluster.types import Entry
from cluster.wire import peer_pb2 as pb
from cluster.wire import peer_pb2_grpc as pb_grpc
from tests.cluster.transport.test_network import pair, until


class Peer(pb_grpc.PeerServicer):
    """Answers the hello; ends the first streams with a status of its choice."""

    def __init__(self, status: grpc.StatusCode | None) -> None:
        self.status = status
        self.streams = 0

    async def Exchange(self, _requests: object, context: grpc.aio.ServicerContext) -> None:  # type: ignore[type-arg]  # noqa: N802
        await context.read()
        self.streams += 1
        number = self.streams
        await context.write(pb.Answer(node=2, boot=number // 3 + 1, refusal=""))
        await asyncio.sleep(0.1)
        if number <= 2 and self.status is not None:
            await context.abort(self.status, "enough")
        while await context.read() is not grpc.aio.EOF:
            pass


async def life_of_a_link(status: grpc.StatusCode | None, ups_wanted: int) -> Link:
    server = grpc.aio.server()
    pb_grpc.add_PeerServicer_to_server(Peer(status), server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    ups: list[int] = []
    events = LinkEvents(lambda _node, boot: ups.append(boot), lambda _node, _refused: None)
    link = Link(Identity("c", 1, 1), 2, "127.0.0.1", port, events)
    link.start()
    try:
        async with asyncio.timeout(5):
            while len(ups) < ups_wanted:
                link.send(Envelope(1, 1, 0, [(0, Heartbeat(1, 2, 1, 1))]))
                await asyncio.sleep(0.01)
    finally:
        await link.close()
        await server.stop(None)
    return link


@pytest.mark.parametrize("status", [grpc.StatusCode.CANCELLED, grpc.StatusCode.INTERNAL])
def test_a_stream_that_the_peer_ends_is_opened_again(status: grpc.StatusCode) -> None:
    """A status of CANCELLED looks like the cancellation of the own task, and is none."""
    asyncio.run(life_of_a_link(status, ups_wanted=2))


def test_an_envelope_that_cannot_be_sent_does_not_end_the_link(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has no form on the wire is a fault of this program; the ones after it still have to go."""
    failed: list[bool] = []

    def to_bytes(envelope: Envelope) -> bytes:
        if not failed:
            failed.append(True)
            raise ValueError("out of range")
        return translate.to_bytes(envelope)

    monkeypatch.setattr("cluster.transport.link.to_bytes", to_bytes)
    asyncio.run(life_of_a_link(None, ups_wanted=2))


def test_a_commit_index_does_not_overtake_the_entries_before_it() -> None:
    """An append without entries stands on the ones before it; alone it would be rejected."""

    async def run() -> None:
        async with pair() as (one, two):
            await until(lambda: bool(one.ups))
            data = b"x" * (4 << 20)
            for index in range(1, 9):
                append = AppendEntries(1, 2, 1, index - 1, 1, 0, (Entry(index, 1, 1, 0, data),))
                assert one.network.send(2, Envelope(1, 11, 22, [(1, append)]))
            assert one.network.send(2, Envelope(1, 11, 22, [(1, AppendEntries(1, 2, 1, 8, 1, 8))]))
            await until(lambda: sum(len(envelope.messages) for envelope in two.received) == 9)
            told = [message for envelope in two.received for _, message in envelope.messages]
            assert [message.prev_log_index for message in told] == list(range(9))  # type: ignore[union-attr]

    asyncio.run(run())
