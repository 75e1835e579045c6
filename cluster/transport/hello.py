"""How two nodes make sure that they mean each other: the hello and its answer; options of the connections."""

from dataclasses import dataclass

from cluster.wire import peer_pb2 as pb

PROTOCOL = 2
"""Rises with each change that an older node cannot read. Nodes of different protocols refuse each other."""

# The generated stubs would parse and build whole frames; what frames hold is not to pass through them (frames.py).
SERVICE: str = pb.DESCRIPTOR.services_by_name["Peer"].full_name
EXCHANGE = "Exchange"

CONTROL: pb.Lane = pb.LANE_CONTROL
BULK: pb.Lane = pb.LANE_BULK

KEEPALIVE_MS = 2_000
KEEPALIVE_TIMEOUT_MS = 3_000
"""A silent peer's link breaks about 5 s after its last sign of life; a dead process breaks it at once."""

_SHARED_OPTIONS: list[tuple[str, int]] = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
]
CHANNEL_OPTIONS: list[tuple[str, int]] = [
    *_SHARED_OPTIONS,
    # Without a pool of its own a channel shares its connection with every other one to the same address.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
]
SERVER_OPTIONS: list[tuple[str, int]] = [
    *_SHARED_OPTIONS,
    # With SO_REUSEPORT a second process could listen on the port of the first without an error.
    ("grpc.so_reuseport", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", KEEPALIVE_MS // 2),
    ("grpc.http2.max_ping_strikes", 0),
]


class TransportError(Exception):
    """The transport cannot start; one line that names the reason."""


@dataclass(slots=True, frozen=True)
class Identity:
    """Who this process is.

    Args:
        cluster: name of the cluster.
        node: number of the node.
        boot: boot epoch of the process.
        store: identity of the data directory. A node that comes with another one has forgotten its votes and what
            it acknowledged, so its peers refuse it.
        rejoin: an operator says that the old directory is lost and that all other nodes are up.
    """

    cluster: str
    node: int
    boot: int
    store: str = ""
    rejoin: bool = False


def hello_frame(identity: Identity, target: int, lane: pb.Lane) -> pb.Frame:
    """The first frame of a stream."""
    frame = pb.Frame()
    frame.hello.cluster, frame.hello.protocol = identity.cluster, PROTOCOL
    frame.hello.node, frame.hello.boot = identity.node, identity.boot
    frame.hello.target, frame.hello.lane = target, lane
    frame.hello.store, frame.hello.rejoin = identity.store, identity.rejoin
    return frame


def refusal(identity: Identity, nodes: frozenset[int], hello: pb.Hello) -> str:
    """Why this process does not talk to the caller; empty if it does."""
    if hello.cluster != identity.cluster:
        return f"it is of cluster {hello.cluster!r}, this is {identity.cluster!r}"
    if hello.protocol != PROTOCOL:
        return f"it speaks protocol {hello.protocol}, this node speaks {PROTOCOL}"
    if hello.target != identity.node:
        return f"it looks for node {hello.target}, this is node {identity.node}"
    if hello.node not in nodes:
        return f"node {hello.node} is not a member of this cluster"
    return ""
