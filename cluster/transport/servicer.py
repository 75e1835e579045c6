"""The receiving end: takes the streams that the peers open and hands their envelopes to the driver."""

import logging
from collections.abc import Callable

import grpc

from cluster.envelope import Envelope
from cluster.transport.frames import split
from cluster.transport.hello import Identity, refusal
from cluster.transport.translate import from_bytes
from cluster.wire import peer_pb2 as pb

_logger = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[bytes, pb.Answer]


class PeerServicer:
    """Serves `Exchange` for all peers; requests come to it as bytes.

    Args:
        identity: this process.
        nodes: all nodes of the cluster.
        receive: takes each envelope; must not block or raise.
        on_news: a process of this node number has introduced itself, or none of its streams is open any more.
        judge_store: (node, store, rejoin) why the data directory of a peer is not accepted; empty if it is.
    """

    def __init__(
        self,
        identity: Identity,
        nodes: frozenset[int],
        receive: Callable[[Envelope], None],
        on_news: Callable[[int], None],
        judge_store: Callable[[int, str, bool], str],
    ) -> None:
        self._judge_store = judge_store
        self._identity = identity
        self._nodes = nodes
        self._receive = receive
        self._on_news = on_news
        self._refused: set[str] = set()
        self._streams: dict[int, int] = {}  # open ones, by node

    async def exchange(self, _requests: object, context: Context) -> None:
        """One stream of one peer, from its hello to its end."""
        raw: object = await context.read()  # EOF where the stream ends, which the types do not know
        if not isinstance(raw, bytes):
            return
        try:
            hello = split(raw)[0].hello
        except ValueError as error:
            self._log_refusal(f"ended a stream at {context.peer()}: {error}")
            return
        reason = refusal(self._identity, self._nodes, hello)
        reason = reason or self._judge_store(hello.node, hello.store, hello.rejoin)
        await context.write(pb.Answer(node=self._identity.node, boot=self._identity.boot, refusal=reason))
        if reason:
            self._log_refusal(f"refused node {hello.node} at {context.peer()}: {reason}")
            return
        if hello.lane == pb.LANE_CONTROL:
            self._on_news(hello.node)
        self._streams[hello.node] = self._streams.get(hello.node, 0) + 1
        try:
            await self._take(hello, context)
        finally:
            self._streams[hello.node] -= 1
            if not self.hears(hello.node):
                self._on_news(hello.node)

    def hears(self, node: int) -> bool:
        """Whether a process of this peer has a stream open to here: then it lives, whatever its address says."""
        return self._streams.get(node, 0) > 0

    async def _take(self, hello: pb.Hello, context: Context) -> None:
        raw: object
        sender, boot, receiver = hello.node, hello.boot, self._identity.node
        while isinstance(raw := await context.read(), bytes):
            try:
                envelope = from_bytes(raw, sender=sender, boot=boot, receiver=receiver)
            except ValueError as error:
                self._log_refusal(f"ended a stream of node {hello.node} at {context.peer()}: {error}")
                return
            self._receive(envelope)

    def _log_refusal(self, text: str) -> None:
        """Once a reason: a misconfigured node knocks every second."""
        key = text.split(": ", 1)[1]
        if key not in self._refused and len(self._refused) < 100:
            self._refused.add(key)
            _logger.warning(text)
