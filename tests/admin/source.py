"""A node that tells made-up things about itself."""

from dataclasses import dataclass, field

from node.admin.ports import (
    AlarmStatus,
    MemberStatus,
    Metric,
    NodeStatus,
    QueueStatus,
    ReplicaStatus,
    ShardStatus,
)

STATUS = NodeStatus(
    node="n1",
    pid=7,
    cluster="warren",
    version="1.0",
    is_ready=True,
    members=[
        MemberStatus(1, "n1", "h1:7672", is_up=True),
        MemberStatus(2, "n2", "h2:7672", is_up=False, rtt_ms=0.5),
    ],
    shards=[
        ShardStatus(
            0, "n1", 3, 9, 9, 0, 100, [ReplicaStatus("n1", "leader", 0), ReplicaStatus("n2", "voter", 4)]
        ),
        ShardStatus(1, None, 3, 5, 4, 2, 200, [ReplicaStatus("n1", "voter"), ReplicaStatus("n2", "learner")]),
    ],
    alarms=[AlarmStatus("disk", "little space left", 1)],
    queue_count=2,
    connections=3,
    channels=4,
    uptime_s=5,
)
QUEUES = [QueueStatus("/", "jobs", 1, None, 10, 2, 1), QueueStatus("/", "mine", 0, "n2", 0, 0, 1)]


@dataclass
class MadeUp:
    """A StatusSource; the password of everybody is `right`."""

    reason: str | None = None
    asked: list[str] = field(default_factory=list)

    def status(self) -> NodeStatus:
        return STATUS

    def queues(self, start: int, count: int) -> list[QueueStatus]:
        return QUEUES[start : start + count]

    def unready_reason(self) -> str | None:
        return self.reason

    def metrics(self) -> list[Metric]:
        return [Metric("messages_published", "Messages.", "counter", [({"vhost": "/"}, 12.0)])]

    async def check_login(self, user: str, password: str) -> bool:
        self.asked.append(user)
        return password == "right"
