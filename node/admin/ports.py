"""What the HTTP server asks of the node, and the shape of the answers.

The dataclasses are the JSON of `/status`, field by field: adding a field is free, renaming one breaks
dashboards. `node.app` implements `StatusSource`; all calls come from the event loop and must not wait.
"""

from dataclasses import dataclass, field
from typing import Literal, Protocol


@dataclass(slots=True, frozen=True)
class MemberStatus:
    """A node of the cluster as this node sees it. `rtt_ms`: None for itself and where it is unknown."""

    id: int
    name: str
    address: str
    is_up: bool
    rtt_ms: float | None = None


@dataclass(slots=True, frozen=True)
class ReplicaStatus:
    """A replica of a group. `lag`: entries behind the leader's log; None where this node cannot know."""

    node: str
    role: Literal["leader", "voter", "learner"]
    lag: int | None = None


@dataclass(slots=True, frozen=True)
class ShardStatus:
    """A Raft group; group 0 is the metadata. `leader`: None while there is none."""

    group: int
    leader: str | None
    term: int
    commit: int
    applied: int
    queues: int
    log_bytes: int
    replicas: list[ReplicaStatus] = field(default_factory=list)


@dataclass(slots=True, frozen=True)
class QueueStatus:
    """A queue with its counts as of this node's replica.

    Args:
        delayed: messages that wait for their time.
        letters: dead letters that wait for a queue that takes them.
    """

    vhost: str
    name: str
    shard: int
    node: str | None  # the owner of an exclusive queue
    ready: int
    unacked: int
    consumers: int
    delayed: int = 0
    letters: int = 0


@dataclass(slots=True, frozen=True)
class AlarmStatus:
    """Something an operator should look at. `since_ms`: milliseconds since the epoch."""

    name: str
    text: str
    since_ms: int


@dataclass(slots=True, frozen=True)
class NodeStatus:
    """The answer of `/status`, without the queues."""

    node: str
    pid: int
    cluster: str
    version: str
    is_ready: bool
    members: list[MemberStatus]
    shards: list[ShardStatus]
    alarms: list[AlarmStatus]
    queue_count: int
    connections: int
    channels: int
    uptime_s: int


@dataclass(slots=True, frozen=True)
class Metric:
    """A metric beyond those made from the status, named without the prefix `warren_`.

    Args:
        name: like `messages_published`; a counter gets `_total` on its way out.
        help: a sentence.
        kind: which.
        samples: label values by label name, and the value.
    """

    name: str
    help: str
    kind: Literal["counter", "gauge"]
    samples: list[tuple[dict[str, str], float]]


class StatusSource(Protocol):
    """What the node tells about itself."""

    def status(self) -> NodeStatus:
        """Everything but the queues."""

    def queues(self, start: int, count: int) -> list[QueueStatus]:
        """At most `count` queues from the `start`-th in the order of vhost and name."""

    def unready_reason(self) -> str | None:
        """None if the node serves clients: its listeners are open and its store answers.

        Peers do not count: a node that waits for them to be ready would keep them from becoming ready.
        """

    def metrics(self) -> list[Metric]:
        """Counters and gauges of the node's parts."""

    async def check_login(self, user: str, password: str) -> bool:
        """Tell whether the password is right. May wait, because hashes are slow on purpose."""
