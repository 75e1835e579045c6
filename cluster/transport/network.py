"""All links of a node and the server that takes its peers' streams."""

import contextlib
from collections.abc import Callable, Mapping

import grpc

from cluster.envelope import Envelope
from cluster.transport.hello import EXCHANGE, SERVER_OPTIONS, SERVICE, Identity, TransportError
from cluster.transport.link import Link, LinkEvents
from cluster.transport.servicer import PeerServicer
from cluster.wire import peer_pb2 as pb

Address = tuple[str, int]


class Network:
    """This node's part of the mesh: it dials every peer, and every peer dials it.

    Args:
        identity: this process.
        listen: (host, port) to serve on; port 0 takes any.
        peers: (host, port) of every other node.
        receive: takes each envelope of any peer.
        events: ups and downs of the links.
        judge_store: see PeerServicer; without it every data directory is accepted.
    """

    def __init__(
        self,
        identity: Identity,
        listen: Address,
        peers: Mapping[int, Address],
        receive: Callable[[Envelope], None],
        events: LinkEvents,
        *,
        judge_store: Callable[[int, str, bool], str] | None = None,
    ) -> None:
        self._listen = listen
        # A refusal proves nothing while the peer speaks to this node: its address may have moved, as containers' do.
        watched = LinkEvents(
            events.up, lambda node, refused: events.down(node, refused and not servicer.hears(node))
        )
        self.links = {node: Link(identity, node, *peers[node], watched) for node in sorted(peers)}
        nodes = frozenset({identity.node, *peers})
        self._server = grpc.aio.server(options=SERVER_OPTIONS)
        servicer = PeerServicer(
            identity, nodes, receive, self._dial, judge_store or (lambda _node, _store, _rejoin: "")
        )
        exchange: grpc.RpcMethodHandler[bytes, pb.Answer] = grpc.stream_stream_rpc_method_handler(
            servicer.exchange, request_deserializer=None, response_serializer=pb.Answer.SerializeToString
        )
        handler = grpc.method_handlers_generic_handler(SERVICE, {EXCHANGE: exchange})
        self._server.add_generic_rpc_handlers((handler,))
        self.port = 0

    async def start(self) -> None:
        """Serve, then dial. Raises TransportError if the port cannot be had."""
        host, port = self._listen
        target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            self.port = self._server.add_insecure_port(target)
        except RuntimeError as error:
            raise TransportError(f"cluster address {target} cannot be listened on: {error}") from error
        if not self.port:
            raise TransportError(
                f"cluster address {target} cannot be listened on: it is in use or not of this host"
            )
        await self._server.start()
        for link in self.links.values():
            link.start()

    def send(self, node: int, envelope: Envelope) -> bool:
        """Send to a peer without ever waiting; False: it is (partly) lost."""
        return self.links[node].send(envelope)

    async def close(self) -> None:
        """Hang up on everyone."""
        for link in self.links.values():
            await link.close()
        with contextlib.suppress(grpc.aio.UsageError):
            await self._server.stop(grace=None)

    def _dial(self, node: int) -> None:
        """Try a peer's address at once: it has come, or it has gone, and then a refusal begins to prove something."""
        link = self.links.get(node)
        if link is not None and not link.is_up:
            link.poke()
