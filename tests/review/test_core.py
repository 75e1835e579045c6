"""The node's duties: the groups that it answers for come to agree with the metadata."""

import random

from cluster.host import HostOptions
from cluster.types import MEMORY_GROUP, METADATA_GROUP, Configuration, GroupId
from node.amqp.handshake import Options as AmqpOptions
from node.broker import commands, topology_commands
from node.broker.records import OUTSIDE_METADATA
from node.core import REPAIRS_MAX, NodeCore
from node.session.shared import Options
from tests.sim.disk import Disk

START_MS = 1_700_000_000_000


SHARD = GroupId(1)
FIRST_UID = 1 << 16


class Alone:
    """A node that is its own cluster, with one shard; everything that it writes is durable at once."""

    def __init__(self) -> None:
        self.disk = Disk()
        for group in (METADATA_GROUP, SHARD):
            self.disk.form(group, Configuration((1,)))
        options = HostOptions(1, (1,), boot=START_MS, election_ticks=4)
        self.core = NodeCore(
            options,
            Options(amqp=AmqpOptions()),
            1,
            self.disk,
            draw=random.Random(1).randint,
            draw_bytes=bytes,
            now_ms=START_MS,
        )
        self.now_ms = START_MS
        self.wait(40)

    def wait(self, ticks: int) -> None:
        """Let time pass: 20 ticks are one round of repairs."""
        for _ in range(ticks):
            self.now_ms += 50
            self.core.tick(self.now_ms)
            self.turn()

    def turn(self) -> None:
        """Do what is to be done now."""
        for _ in range(8):
            turn = self.core.flush(self.now_ms)
            if turn.writes:
                self.disk.submit(turn.number, turn.writes)
                self.core.persisted(self.disk.sync())

    def declare(self, *names: str, auto_delete: bool = False) -> None:
        """As if by sessions whose node ended before anybody used the queues."""
        for name in names:
            parts = topology_commands.declare_queue(
                0,
                "/",
                name,
                durable=True,
                exclusive=False,
                auto_delete=auto_delete,
                arguments={},
                group=SHARD,
                session=1,
            )
            self.core.submit(METADATA_GROUP, parts)
        self.turn()


def test_shard_gets_the_queues_that_nobody_has_used() -> None:
    """ADR 8: the leader compares now and then with the metadata."""
    node = Alone()
    node.declare("a", "b")
    machine = node.core.shards[SHARD]
    assert list(machine.queue_uids()) == []
    node.wait(20)
    assert list(machine.queue_uids()) == sorted(record.uid for record in node.core.topology.queues())
    assert len(machine.queue_uids()) == 2


def test_shard_loses_the_queues_that_the_metadata_does_not_have() -> None:
    """ADR 8: in both directions; one whose declaration this node has not seen yet is left alone."""
    node = Alone()
    unseen = 1 << 40
    for uid in (FIRST_UID, unseen):
        node.core.submit(SHARD, commands.create_queue(0, uid, commands.QueueConfig().encode()))
    node.turn()
    assert list(node.core.shards[SHARD].queue_uids()) == [FIRST_UID, unseen]
    node.wait(20)
    assert list(node.core.shards[SHARD].queue_uids()) == [unseen]


def test_repair_is_bounded_and_goes_on_until_both_agree() -> None:
    """One round of repairs does not hold up the node's clients for long."""
    node = Alone()
    node.declare(*(f"q{number}" for number in range(REPAIRS_MAX + 1)))
    node.wait(20)
    assert len(node.core.shards[SHARD].queue_uids()) == REPAIRS_MAX
    node.wait(20)
    assert len(node.core.shards[SHARD].queue_uids()) == REPAIRS_MAX + 1


def test_agreement_costs_no_command() -> None:
    """Many queues and nothing to do: nothing is written."""
    node = Alone()
    node.declare(*(f"q{number}" for number in range(10)))
    node.wait(20)
    submitted = node.core.host.stream(SHARD).submitted
    node.wait(60)
    assert node.core.host.stream(SHARD).submitted == submitted


def test_deletion_is_not_repeated_in_a_shard_that_has_done_it() -> None:
    """The session has the shard delete first; the end of the record is then no news to it."""
    node = Alone()
    node.declare("q")
    node.wait(20)
    (uid,) = node.core.shards[SHARD].queue_uids()
    node.core.submit(SHARD, commands.delete_queue(0, uid, if_unused=False, if_empty=False))
    node.turn()
    submitted = node.core.host.stream(SHARD).submitted
    node.core.submit(METADATA_GROUP, topology_commands.delete_queue(0, uid))
    node.turn()
    assert node.core.topology.queue_by_uid(uid) is None
    assert node.core.host.stream(SHARD).submitted == submitted


def test_queue_that_left_with_its_vhost_leaves_its_shard() -> None:
    """Nobody asked the shard first: its leader does."""
    node = Alone()
    node.declare("q")
    node.wait(20)
    node.core.submit(METADATA_GROUP, topology_commands.delete_vhost(0, "/"))
    node.turn()
    assert list(node.core.shards[SHARD].queue_uids()) == []


def test_auto_delete_queue_that_is_done_leaves_both_groups_at_once() -> None:
    """Its shard lets it expire, the metadata follows, and then the shard forgets it: no round of repairs is awaited."""
    node = Alone()
    node.declare("q", auto_delete=True)
    node.wait(20)
    (uid,) = node.core.shards[SHARD].queue_uids()
    attach = commands.attach(0, 1, 2, uid, prefetch=0, no_ack=False, exclusive=False, priority=0)
    node.core.submit(SHARD, attach)
    node.core.submit(SHARD, commands.detach(0, 2))
    node.turn()
    assert node.core.topology.queue_by_uid(uid) is None
    assert not node.core.shards[SHARD].has_duties


def test_memory_keeps_no_queue_that_the_metadata_has_lost() -> None:
    """When the node's epoch ends it is not told which of its exclusive queues went with it."""
    node = Alone()
    core, memory = node.core, MEMORY_GROUP + 1
    core.submit(memory, commands.create_queue(0, FIRST_UID, commands.QueueConfig(exclusive=True).encode()))
    core.submit(memory, commands.enqueue(0, commands.targets([FIRST_UID]), 1, [bytes(30)]))
    node.turn()
    machine = core.machine(memory)
    assert machine is not None
    assert machine.has_queue(FIRST_UID)
    node.wait(20)
    assert not machine.has_queue(FIRST_UID)
    assert core.host.memory.entries == {}


def test_queue_for_replies_is_left_alone_until_its_consumer_goes() -> None:
    """The metadata never hears of it, so it would look like one that was lost there."""
    node = Alone()
    core, memory, uid = node.core, MEMORY_GROUP + 1, OUTSIDE_METADATA | 1
    core.submit(memory, commands.create_queue(0, uid, commands.QueueConfig(auto_delete=True).encode()))
    core.submit(memory, commands.attach(0, 1, 2, uid, prefetch=0, no_ack=True, exclusive=False, priority=0))
    node.wait(60)
    machine = core.machine(memory)
    assert machine is not None
    assert machine.has_queue(uid)
    core.submit(memory, commands.close_session(0, 1))
    node.wait(1)
    assert not machine.has_queue(uid)
    assert not machine.has_duties
