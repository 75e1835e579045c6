"""The host under faults: a toy machine that lists what it was told must list it once, in order, everywhere."""

import itertools
import os
import random
from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from cluster.group import Group, Outcome
from cluster.host import Host, HostOptions
from cluster.machine import Meta, Row
from cluster.placement import first_configuration
from cluster.raft.membership import MembershipChange, Operation, encode_change
from cluster.raft.ready import Ready
from cluster.raft.rpc import AppendEntries, HeartbeatReply
from cluster.raft.spares import COMMIT_MS_MAX
from cluster.types import MEMORY_GROUP, Entry, EntryKind, GroupId
from tests.sim.world import LinkRules, SimNode, World

GROUPS = (0, 1, 2)


class ListMachine:
    """Appends u64 commands to one list; the command is (origin, number)."""

    version = 1

    def __init__(self, node: int) -> None:
        self.node = node
        self.told: list[tuple[int, int, int]] = []  # (index, origin, number)
        self.gone: list[tuple[int, int]] = []
        self._dirty = False

    def apply(self, meta: Meta, data: bytes, offset: int) -> list[Any]:
        effects = []
        for at in range(offset, len(data), 8):
            number = int.from_bytes(data[at : at + 8], "big")
            self.told.append((meta.index, meta.origin, number))
            if meta.origin == self.node:
                effects.append(number)
        self._dirty = True
        return effects

    def origin_gone(self, meta: Meta) -> list[Any]:
        self.gone.append((meta.index, meta.origin))
        self._dirty = True
        return []

    def live(self) -> Mapping[int, int]:
        return {}

    def serves(self) -> bool:
        return False

    def take_dead(self) -> list[int]:
        return []

    def checkpoint(self, *, full: bool) -> list[Row]:
        return [(b"s", repr((self.told, self.gone)).encode())]

    def restore(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        found = dict(rows)
        self.told, self.gone = eval(found[b"s"]) if found else ([], [])


class Cluster:
    """Three hosts in a world, each submitting numbers to every group."""

    def __init__(self, seed: int, nodes: int = 3) -> None:
        self.machines: dict[int, dict[int, ListMachine]] = {}
        self.hosts: dict[int, Host] = {}
        self.submitted: dict[tuple[int, int], list[tuple[int, int]]] = {}  # (node, group): (boot, number)
        self.done: dict[tuple[int, int], list[int]] = {}
        self.number = 0
        self.world = World(seed, nodes, self._start)
        for sim in self.world.nodes.values():
            for group in GROUPS:
                sim.disk.form(group, first_configuration(group, tuple(self.world.nodes), 3))
        self.world.on_turn.append(self._on_turn)
        for node in self.world.nodes:
            self.world.start(node)

    def _start(self, world: World, sim: SimNode) -> Host:
        machines = {GroupId(group): ListMachine(sim.id) for group in GROUPS}
        machines[GroupId(MEMORY_GROUP + sim.id)] = ListMachine(sim.id)
        self.machines[sim.id] = dict(machines)  # type: ignore[arg-type]
        options = HostOptions(sim.id, tuple(world.nodes), sim.boot, election_ticks=10, heartbeat_ticks=2)
        draw = random.Random(world.random.random()).randint
        host = Host(options, sim.disk, machines, draw, world.now_ms)  # type: ignore[arg-type]
        self.hosts[sim.id] = host
        return host

    def _on_turn(self, sim: SimNode, turn: Any) -> None:
        for group, effects in turn.effects:
            self.done.setdefault((sim.id, group), []).extend(effects)

    def submit(self, node: int, group: int) -> int:
        self.number += 1
        sim = self.world.nodes[node]
        self.hosts[node].submit(group, (self.number.to_bytes(8, "big"),))
        self.submitted.setdefault((node, group), []).append((sim.boot, self.number))
        self.world.wake(sim)
        return self.number

    def alive(self) -> list[int]:
        return [node for node, sim in self.world.nodes.items() if sim.process is not None]

    def settle(self, seconds: int = 20) -> None:
        """Heal everything and let the cluster come to rest."""
        world = self.world
        world.heal()
        for node, sim in world.nodes.items():
            world.resume(node)
            if sim.process is None:
                world.start(node)
        for a in world.nodes:
            for b in world.nodes:
                if a != b:
                    world._plan_connect(a, b)
        world.run(until_ms=world.now_ms + seconds * 1000)

    def check(self) -> None:
        """Everywhere the same; each epoch's numbers in order, once; what was reported done is there."""
        for group in GROUPS:
            lists = [self.machines[node][group].told for node in self.world.nodes]
            assert all(told == lists[0] for told in lists), f"group {group} differs"
            for node in self.world.nodes:
                mine = [number for _, origin, number in lists[0] if origin == node]
                assert len(mine) == len(set(mine)), "twice"
                assert mine == sorted(mine), "out of order"
                boots: dict[int, list[int]] = {}
                for boot, number in self.submitted.get((node, group), []):
                    boots.setdefault(boot, []).append(number)
                arrived = set(mine)
                for boot, numbers in boots.items():
                    flags = [number in arrived for number in numbers]
                    if not self.hosts[node].stream(group).epoch > (boot << 16):  # never reset, still alive
                        assert all(flags), f"node {node} group {group} lost {numbers}"
                for number in self.done.get((node, group), []):
                    assert number in arrived, f"{number} was reported done"


def test_all_nodes_reach_all_groups() -> None:
    """Without faults every command of every node is applied on every node."""
    cluster = Cluster(1)
    cluster.world.run(until_ms=cluster.world.now_ms + 5000)
    for _ in range(50):
        for node in cluster.world.nodes:
            for group in GROUPS:
                cluster.submit(node, group)
        cluster.world.run(steps=20)
    cluster.world.run(until_ms=cluster.world.now_ms + 3000)
    cluster.check()
    for node in cluster.world.nodes:
        for group in GROUPS:
            wanted = [number for _, number in cluster.submitted[(node, group)]]
            assert cluster.done[(node, group)] == wanted


def test_idle_groups_have_no_share_of_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A calm cluster costs heartbeats and their answers only: one envelope each way and beat for all groups."""
    cluster = Cluster(1)
    world = cluster.world
    world.run(until_ms=world.now_ms + 10_000)
    shares: list[int] = []
    envelopes: dict[tuple[int, int], int] = {}
    collect = Group.collect

    def counted(group: Group, turn: int, now_ms: int, outcome: Outcome) -> None:
        shares.append(group.id)
        collect(group, turn, now_ms, outcome)

    def count(sim: SimNode, turn: Any) -> None:
        for node in turn.envelopes:
            envelopes[sim.id, node] = envelopes.get((sim.id, node), 0) + 1

    monkeypatch.setattr(Group, "collect", counted)
    world.on_turn.append(count)
    terms = [[group.raft.term for group in host.groups.values()] for host in cluster.hosts.values()]
    world.run(until_ms=world.now_ms + 10_000)
    assert shares == []
    assert len(envelopes) == 6
    assert max(envelopes.values()) <= 101  # a beat is two ticks of 50 ms
    assert terms == [[group.raft.term for group in host.groups.values()] for host in cluster.hosts.values()]
    for group in GROUPS:  # the silence cost nobody its leader
        assert sum(host.groups[group].leads for host in cluster.hosts.values()) == 1


@pytest.mark.parametrize(("bytes_min", "is_saved"), [(100, True), (10_000, False)])
def test_group_that_has_come_to_rest_is_saved_if_it_is_worth_it(
    monkeypatch: pytest.MonkeyPatch, bytes_min: int, *, is_saved: bool
) -> None:
    monkeypatch.setattr("cluster.group.CALM_BYTES", bytes_min)
    hosts = Cluster(1)
    world = hosts.world
    world.run(until_ms=world.now_ms + 5000)
    group = GROUPS[1]
    for _ in range(30):
        hosts.submit(1, group)
        world.run(until_ms=world.now_ms + 100)
    found = [host.groups[group] for host in hosts.hosts.values()]
    assert all(each.checkpoint_meta.index == 0 for each in found), "it was not calm"
    world.run(until_ms=world.now_ms + 2000)
    for each in found:
        assert each.checkpoint_meta.index == (each.applied if is_saved else 0)
    assert hosts.hosts[1].groups[GROUPS[2]].checkpoint_meta.index == 0, "nothing was applied in this one"


def test_log_of_a_group_that_rests_often_stays_for_members_that_were_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What it was saved for a rest does not shorten it; what followed does, once it is enough."""
    monkeypatch.setattr("cluster.group.CALM_BYTES", 1)
    monkeypatch.setattr("cluster.group.CHECKPOINT_ENTRIES", 40)
    hosts = Cluster(1)
    world = hosts.world
    world.run(until_ms=world.now_ms + 5000)
    group = hosts.hosts[1].groups[GROUPS[1]]
    view = world.nodes[1].disk.view(group.id)
    saved: set[int] = set()
    firsts: list[int] = []
    for _ in range(60):
        for _ in range(3):
            hosts.submit(1, group.id)
            world.run(until_ms=world.now_ms + 100)
        world.run(until_ms=world.now_ms + 1500)
        saved.add(group.checkpoint_meta.index)
        firsts.append(view.first_index())
        assert group.checkpoint_meta.index == group.applied
        assert group.applied - view.first_index() < 2 * 40 + 10, "it does not grow for ever"
    assert len(saved) == 60
    assert len(set(firsts)) <= 5
    moved = [index for index, (a, b) in enumerate(itertools.pairwise(firsts)) if a != b]
    assert moved and all(b - a >= 10 for a, b in itertools.pairwise(moved))


def test_follower_stores_what_came_before_it_applies_what_is_committed() -> None:
    """The leader waits for the one and not for the other."""
    cluster = Cluster(5)
    cluster.settle()
    leader = next(node for node, host in cluster.hosts.items() if host.groups[1].leads)
    world = cluster.world
    turns: dict[int, list[tuple[bool, int]]] = {node: [] for node in world.nodes if node != leader}

    def look(sim: SimNode, turn: Any) -> None:
        if sim.id != leader:
            stores = any(write.group == 1 and write.entries for write in turn.writes)
            turns[sim.id].append((stores and turn.more, len(cluster.machines[sim.id][1].told)))

    world.on_turn.append(look)
    for _ in range(200):
        cluster.submit(leader, 1)
        world.run(until_ms=world.now_ms + 5)
    put_off = 0
    for told in turns.values():
        for (_, before), (is_put_off, now), (_, after) in zip(told, told[1:], told[2:], strict=False):
            if is_put_off:
                put_off += 1
                assert now == before
                assert after > now
    assert put_off > 20


def test_change_of_members_is_not_put_off() -> None:
    """What Raft is told next it must judge by it."""
    cluster = Cluster(5)
    cluster.settle()
    follower = next(host for host in cluster.hosts.values() if not host.groups[1].leads).groups[1]
    index = follower.applied + 1
    change = encode_change(MembershipChange(((Operation.ADD_LEARNER, 9),)))
    for kind, data, is_put_off in ((EntryKind.MEMBERSHIP, change, False), (EntryKind.NOOP, b"", True)):
        committed = Entry(index, follower.raft.term, kind, follower.last_ts, data)
        outcome = Outcome()
        follower._carry_out(Ready(1, entries=[committed._replace(index=99)], committed=[committed]), outcome)
        assert (outcome.goes_on, follower.applied == index) == (is_put_off, not is_put_off)
        index += 1
    assert 9 in follower.raft.configuration.learners


def test_late_commit_is_asked_of_the_member_that_was_spared() -> None:
    cluster = Cluster(1)
    world = cluster.world
    world.run(until_ms=world.now_ms + 5000)
    group = GROUPS[1]
    host = next(host for host in cluster.hosts.values() if host.groups[group].leads)
    for _ in range(2):  # the first tells the leader that nobody waits elsewhere
        cluster.submit(host.node, group)
        world.run(until_ms=world.now_ms + 1000)
    host.submit(group, (bytes(8),))
    now_ms = host.now_ms
    (asked,) = host.flush(now_ms).envelopes
    assert host.ask_all_if_late(now_ms + COMMIT_MS_MAX)
    assert host.flush(now_ms + COMMIT_MS_MAX).envelopes == {}
    assert host.ask_all_if_late(now_ms + COMMIT_MS_MAX + 1)
    envelopes = host.flush(now_ms + COMMIT_MS_MAX + 1).envelopes
    (spare,) = envelopes
    assert spare not in (asked, host.node)
    # The answer to a heartbeat may ride along.
    (message,) = [told for _, told in envelopes[spare].messages if not isinstance(told, HeartbeatReply)]
    assert isinstance(message, AppendEntries) and len(message.entries) == 1


def test_barrier_passes_where_answers_take_longer_than_the_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A read that was asked again is answered by what the first question brings, however late."""
    monkeypatch.setattr("cluster.group.BARRIER_RETRY_MS", 0)
    hosts = Cluster(1)
    hosts.world.run(until_ms=hosts.world.now_ms + 5000)
    passed: set[tuple[int, int]] = set()
    hosts.world.on_turn.append(lambda sim, turn: passed.update((sim.id, ticket) for ticket in turn.passed))
    for node, sim in hosts.world.nodes.items():
        hosts.hosts[node].barrier(GROUPS[0], 7)
        hosts.world.wake(sim)
    hosts.world.run(until_ms=hosts.world.now_ms + 3000)
    assert passed == {(node, 7) for node in hosts.world.nodes}


@pytest.mark.parametrize("seed", range(int(os.environ.get("HOST_SEEDS", "15"))))
def test_faults(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Crashes, pauses, cuts, losses and small checkpoints: never twice, never out of order, never different."""
    import cluster.group

    monkeypatch.setattr(cluster.group, "CHECKPOINT_ENTRIES", 15)
    cluster_ = Cluster(seed)
    world, rng = cluster_.world, random.Random(seed)
    world.run(until_ms=world.now_ms + 3000)
    for _ in range(150):
        action = rng.randrange(30)
        node = rng.choice(list(world.nodes))
        if action < 20:
            alive = cluster_.alive()
            for _ in range(rng.randint(1, 5)):
                if alive:
                    cluster_.submit(rng.choice(alive), rng.choice(GROUPS))
        elif action == 20:
            world.crash(node)
        elif action in (21, 22, 23) and world.nodes[node].process is None:
            world.start(node)
        elif action == 24:
            world.pause(node)
        elif action in (25, 26):
            world.resume(node)
        elif action == 27:
            a, b = rng.sample(list(world.nodes), 2)
            world.rules[(a, b)] = LinkRules(
                (0, rng.choice((1, 5, 300))), rng.choice((0, 20)), rng.choice((0, 20)), is_ordered=False
            )
        elif action == 28:
            a, b = rng.sample(list(world.nodes), 2)
            world.cut(a, b)
        else:
            world.heal()
        world.run(until_ms=world.now_ms + rng.choice((1, 10, 100, 1500)))
    cluster_.settle()
    cluster_.check()
    number = [cluster_.submit(node, group) for node in world.nodes for group in GROUPS]
    world.run(until_ms=world.now_ms + 5000)
    cluster_.check()
    told = {n for group in GROUPS for _, _, n in cluster_.machines[1][group].told}
    assert all(n in told for n in number), "no progress after healing"
