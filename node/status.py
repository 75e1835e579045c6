"""What a node tells about itself: the `StatusSource` of the admin server, read from the core.

A shell of the composition root; every number is taken when it is asked for, from this node's replica.
"""

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from itertools import islice

import node
from cluster.group import Group
from cluster.types import MEMORY_GROUP, METADATA_GROUP
from node.admin.ports import (
    AlarmStatus,
    MemberStatus,
    Metric,
    NodeStatus,
    QueueStatus,
    ReplicaStatus,
    ShardStatus,
)
from node.broker.records import QueueRecord
from node.config import Config
from node.core import NodeCore

LEADERLESS_MS_MAX = 5_000
"""A group without a leader for this long is an alarm, not an election."""


class CoreStatus:
    """Implements `node.admin.ports.StatusSource`."""

    def __init__(
        self,
        config: Config,
        core: NodeCore,
        login: Callable[[str, str], bool],
        disk_alarm: Callable[[], str | None],
        log_bytes: Callable[[int], int],
    ) -> None:
        """Args: login: checks a password, slowly; disk_alarm: what is wrong, or None; log_bytes: of a group."""
        self._config = config
        self._core = core
        self._login = login
        self._disk_alarm = disk_alarm
        self._log_bytes = log_bytes
        self._started_s = time.monotonic()
        self._names = {index: peer.name for index, peer in enumerate(config.members, start=1)}
        self._leaderless: dict[int, int] = {}
        self._disk_since_ms = 0
        self.serving = False

    def status(self) -> NodeStatus:
        """Everything but the queues."""
        core = self._core
        return NodeStatus(
            node=self._config.name,
            pid=os.getpid(),
            cluster=self._config.cluster_name,
            version=node.__version__,
            is_ready=self.unready_reason() is None,
            members=list(self._members()),
            shards=[
                self._shard(group, len(core.topology.uids_in(gid))) for gid, group in core.host.groups.items()
            ],
            alarms=list(self._alarms()),
            queue_count=core.topology.queue_count,
            connections=core.frontend.connection_count,
            channels=core.frontend.channel_count,
            uptime_s=int(time.monotonic() - self._started_s),
        )

    def _members(self) -> Iterator[MemberStatus]:
        for index, peer in enumerate(self._config.members, start=1):
            is_up = index == self._core.node_id or self._core.host.peers[index].up
            yield MemberStatus(index, peer.name, str(peer.address), is_up)

    def _shard(self, group: Group, queues: int) -> ShardStatus:
        raft = group.raft
        leader = self._names.get(raft.leader)
        members = sorted(raft.configuration.voters + raft.configuration.learners)
        replicas = [self._replica(group, member) for member in members]
        return ShardStatus(
            group=group.id,
            leader=leader,
            term=raft.term,
            commit=raft.commit,
            applied=group.applied,
            queues=queues,
            log_bytes=self._log_bytes(group.id),
            replicas=replicas,
        )

    def _replica(self, group: Group, member: int) -> ReplicaStatus:
        raft = group.raft
        name = self._names.get(member, str(member))
        if member == raft.leader:
            return ReplicaStatus(name, "leader", 0)
        lag = None
        if raft.is_leader:
            lag = max(0, raft.last_index - raft.progress[member].match_index)
        elif member == self._core.node_id:
            lag = max(0, raft.commit - group.applied)
        return ReplicaStatus(name, "voter" if member in raft.configuration.voters else "learner", lag)

    def _alarms(self) -> Iterator[AlarmStatus]:
        now = self._core.host.now_ms
        for gid, group in self._core.host.groups.items():
            if group.raft.leader:
                self._leaderless.pop(gid, None)
                continue
            since = self._leaderless.setdefault(gid, now)
            if now - since > LEADERLESS_MS_MAX:
                voters = group.raft.configuration.voters
                down = [
                    self._names[v]
                    for v in voters
                    if v != self._core.node_id and not self._core.host.peers[v].up
                ]
                text = (
                    f"group {gid} has no leader; voters that cannot be reached: {', '.join(down) or 'none'}"
                )
                yield AlarmStatus("no_leader", text, since)
        disk = self._disk_alarm()
        self._disk_since_ms = (self._disk_since_ms or now) if disk else 0
        if disk:
            yield AlarmStatus("disk", disk, self._disk_since_ms)

    def queues(self, start: int, count: int) -> list[QueueStatus]:
        """At most `count` queues from the `start`-th in the order of vhost and name."""
        records = sorted(self._core.topology.queues(), key=lambda record: (record.vhost, record.name))
        return [self._queue(record) for record in islice(records, start, start + count)]

    def _queue(self, record: QueueRecord) -> QueueStatus:
        machine = self._core.machine(record.group)
        ready, unacked, consumers = machine.counts(record.uid) if machine is not None else (0, 0, 0)
        owner = self._names.get(record.group - MEMORY_GROUP) if record.group >= MEMORY_GROUP else None
        delayed, letters = machine.waiting(record.uid) if machine is not None else (0, 0)
        return QueueStatus(
            record.vhost, record.name, record.group, owner, ready, unacked, consumers, delayed, letters
        )

    def unready_reason(self) -> str | None:
        """None if the node serves clients."""
        return None if self.serving else "starting"

    def metrics(self) -> list[Metric]:
        """Counters and gauges of the node's parts."""
        groups = self._core.host.groups
        applied = [({"group": str(gid)}, float(group.applied)) for gid, group in groups.items()]
        installs = float(sum(group.installs for group in groups.values()))
        led = sum(1 for gid, group in groups.items() if gid != METADATA_GROUP and group.leads)
        return [
            Metric("entries_applied", "Log entries applied, by group.", "counter", applied),
            Metric("shards_led", "Shards that this node leads.", "gauge", [({}, float(led))]),
            Metric(
                "snapshots_installed", "States taken over from other members.", "counter", [({}, installs)]
            ),
        ]

    async def check_login(self, user: str, password: str) -> bool:
        """Tell whether the password is right."""
        return await asyncio.get_running_loop().run_in_executor(None, self._login, user, password)
