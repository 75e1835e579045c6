"""The canonical workloads, and what each is to reach."""

from dataclasses import dataclass, field

from bench.generator import Settings

HOUR_MS = 3_600_000
"""Nothing expires of it: what is measured is the rule, not its effect."""

LEADER = {"publish_at": 0, "consume_at": 0}


@dataclass(slots=True, frozen=True)
class Target:
    """A bound on the ratio of one figure to the other cluster's, or to that of another workload here.

    Args:
        figure: key of a run's figures.
        bound: what the ratio is to reach.
        is_floor: at least `bound`; else at most.
        beside: name of the workload of the same cluster that it is compared with; None: the other cluster.
    """

    figure: str
    bound: float
    is_floor: bool = True
    beside: str | None = None


@dataclass(slots=True, frozen=True)
class Workload:
    """One row of the table.

    Args:
        name: for `--only`.
        title: for people.
        job: of the load generator.
        settings: of that job.
        targets: may be empty.
    """

    name: str
    title: str
    settings: Settings
    targets: tuple[Target, ...] = ()
    job: str = "traffic"


def at_least(bound: float, figure: str = "rate") -> Target:
    """A floor."""
    return Target(figure, bound)


def at_most(bound: float, figure: str) -> Target:
    """A ceiling."""
    return Target(figure, bound, is_floor=False)


def _pairs(count: int, size: int, queues: int) -> Settings:
    return {"size": size, "producers": count, "consumers": count, "queues": queues}


WORKLOADS: tuple[Workload, ...] = (
    Workload("one", "1 KiB, 1 producer, 1 consumer", {}, (at_least(6), at_most(0.15, "p99_ms"))),
    Workload(
        "small",
        "128 B, window 2000",
        {"size": 128, "window": 2000, "prefetch": 2000, "ack": 200},
        (at_least(20),),
    ),
    Workload(
        "four",
        "1 KiB, 4 producers, 4 consumers, 4 queues",
        _pairs(4, 1024, 4),
        (at_least(6), at_most(0.1, "p99_ms")),
    ),
    Workload("shared", "1 KiB, 4 producers, 4 consumers, 1 queue", _pairs(4, 1024, 1), (at_least(4),)),
    Workload("lockstep", "1 KiB, window 1, ack every 1", {"window": 1, "ack": 1}, (at_least(1.3),)),
    Workload(
        "steady",
        "1 KiB, steady 2,000 msg/s",
        {"rate": 2000},
        (at_most(0.8, "p50_ms"), at_most(0.2, "p99_ms")),
    ),
    Workload("acks", "1 KiB, each message acked singly", {"ack": 1}, (at_least(4),)),
    Workload("16k", "16 KiB bodies", {"size": 16 << 10}, (at_least(3),)),
    Workload(
        "1m",
        "1 MiB bodies, window 50",
        {"size": 1 << 20, "window": 50, "prefetch": 50, "ack": 5},
        (at_least(2),),
    ),
    Workload(
        "fanout",
        "fanout to 100 queues, 256 B (deliveries)",
        {"exchange": "fanout", "queues": 100, "consumers": 100, "size": 256},
        (at_least(5),),
    ),
    Workload(
        "topic",
        "topic exchange with 10,000 bindings, 256 B",
        {"exchange": "topic", "queues": 10, "consumers": 10, "bindings": 10_000, "size": 256},
        (at_least(5),),
    ),
    Workload("hundred", "256 B, 100 producers, consumers and queues", _pairs(100, 256, 100), (at_least(4),)),
    Workload(
        "remote",
        "1 KiB, both clients on nodes that do not lead",
        {"publish_at": 1, "consume_at": 2},
        (Target("rate", 0.7, beside="one"),),
    ),
    Workload(
        "transient",
        "1 KiB, exclusive queue, no confirms, no acks",
        {"kind": "transient", "window": 0, "ack": 0, "drain": 3},
        (at_least(1.5),),
    ),
    Workload(
        "rpc", "request and reply over exclusive queues", {"size": 128}, (at_most(0.7, "p50_ms"),), job="rpc"
    ),
    Workload("declare", "queue.declare, 1 client", {}, (at_least(10),), job="declare"),
    Workload("declare20", "queue.declare, 20 clients", {"clients": 20}, (at_least(20),), job="declare"),
    Workload("connect", "connect, open a channel, close", {}, (at_least(1.5),), job="connect"),
    # What a feature costs, beside `one`. RabbitMQ has priorities and transactions for classic queues only.
    Workload("ttl", "as the first, the queue with x-message-ttl", {"ttl": HOUR_MS}),
    Workload("expiration", "as the first, each message with expiration", {"expiration": HOUR_MS}),
    Workload("length", "as the first, the queue with x-max-length", {"length": 1_000_000}),
    Workload(
        "priority",
        "as the first, 10 priorities (a classic queue there)",
        {"priorities": 9, "kind": "classic"},
    ),
    Workload("dead", "as the first, through a queue in which all expires", {"dead": 1}),
    Workload("tx", "as the first, transactions of 500 (a classic queue there)", {"tx": 1, "kind": "classic"}),
)


@dataclass(slots=True)
class Plan:
    """How long and how often.

    Args:
        rounds: runs of each workload on each cluster.
        seconds: measured in each run.
        warmup: before that.
        quick: growth is measured with fewer messages.
    """

    rounds: int = 5
    seconds: float = 8.0
    warmup: float = 2.0
    quick: bool = False
    only: tuple[str, ...] = field(default=())

    def wants(self, name: str) -> bool:
        """Whether a workload was asked for."""
        return not self.only or name in self.only
