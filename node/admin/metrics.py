"""Metrics in Prometheus' text format, made from the status when they are asked for.

Nothing is counted here and nothing is kept between two calls: the parts of the node count, this module
names and formats. Totals only, except under `/metrics/queues`, so that 100,000 queues burden no scrape.
"""

from collections.abc import Iterable, Iterator

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector, CollectorRegistry

from node.admin.ports import Metric, NodeStatus, QueueStatus, StatusSource

QUEUES_MAX = 10_000


def render_node(source: StatusSource) -> bytes:
    """Format the node's totals."""
    return _render([*_node_families(source.status()), *map(_family, source.metrics())])


def render_queues(source: StatusSource) -> bytes:
    """Format the counts of the first `QUEUES_MAX` queues."""
    return _render(_queue_families(source.queues(0, QUEUES_MAX)))


class _Families(Collector):
    def __init__(self, families: Iterable[Family]) -> None:
        self._families = list(families)

    def collect(self) -> Iterator[Family]:
        return iter(self._families)


def _render(families: Iterable[Family]) -> bytes:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(families))
    return generate_latest(registry)


def _gauge(
    name: str, help_text: str, labels: list[str], samples: Iterable[tuple[list[str], float]]
) -> Family:
    family = GaugeMetricFamily(f"warren_{name}", help_text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def _node_families(status: NodeStatus) -> list[Family]:
    shards = [(str(shard.group), shard) for shard in status.shards]
    here = status.node
    return [
        _gauge("ready", "1 if the node serves clients.", [], [([], float(status.is_ready))]),
        _gauge("uptime_seconds", "Seconds since the node started.", [], [([], status.uptime_s)]),
        _gauge("connections", "Open client connections.", [], [([], status.connections)]),
        _gauge("channels", "Open channels.", [], [([], status.channels)]),
        _gauge("queues", "Queues of the cluster.", [], [([], status.queue_count)]),
        _gauge("member_up", "1 if the member is reachable from here.", ["member"],
               [([member.name], float(member.is_up)) for member in status.members]),
        _gauge("alarm", "1 for each alarm that is on.", ["alarm"],
               [([alarm.name], 1.0) for alarm in status.alarms]),
        _gauge("shard_leader", "1 if this node leads the shard.", ["shard"],
               [([group], float(shard.leader == here)) for group, shard in shards]),
        _gauge("shard_has_leader", "1 if this node knows a leader.", ["shard"],
               [([group], float(shard.leader is not None)) for group, shard in shards]),
        _gauge("shard_term", "Raft term.", ["shard"], [([group], shard.term) for group, shard in shards]),
        _gauge("shard_commit_index", "Commit index.", ["shard"],
               [([group], shard.commit) for group, shard in shards]),
        _gauge("shard_applied_index", "Index of the last applied entry.", ["shard"],
               [([group], shard.applied) for group, shard in shards]),
        _gauge("raft_log_bytes", "Bytes that the log of a shard holds here.", ["shard"],
               [([group], shard.log_bytes) for group, shard in shards]),
        _gauge("replica_lag_entries", "Entries that a replica is behind (those of 100 ms are usual), by its leader.",
               ["shard", "member"],
               [([group, replica.node], replica.lag)
                for group, shard in shards for replica in shard.replicas if replica.lag is not None]),
    ]  # fmt: skip


def _queue_families(queues: list[QueueStatus]) -> list[Family]:
    labels = ["vhost", "queue"]
    return [
        _gauge("queue_messages_ready", "Messages that wait.", labels,
               [([q.vhost, q.name], q.ready) for q in queues]),
        _gauge("queue_messages_unacked", "Messages delivered and not settled.", labels,
               [([q.vhost, q.name], q.unacked) for q in queues]),
        _gauge("queue_messages_delayed", "Messages that wait for their time.", labels,
               [([q.vhost, q.name], q.delayed) for q in queues]),
        _gauge("queue_dead_letters", "Dead letters that no queue has taken yet.", labels,
               [([q.vhost, q.name], q.letters) for q in queues]),
        _gauge("queue_consumers", "Consumers.", labels, [([q.vhost, q.name], q.consumers) for q in queues]),
    ]  # fmt: skip


def _family(metric: Metric) -> Family:
    labels = list(metric.samples[0][0]) if metric.samples else []
    make = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = make(f"warren_{metric.name}", metric.help, labels=labels)
    for values, value in metric.samples:
        family.add_metric([values[label] for label in labels], value)
    return family
