"""Swarm testing: every seed runs with its own mixture of small bounds and of faults.

A bound that is never reached hides what lies behind it, so most bounds are drawn from very small to the
product's own. They are module constants there: a run sets them and puts them back.
"""

import functools
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import cluster.balance
import cluster.group
import cluster.host
import cluster.memory
import cluster.origin
import cluster.raft.log
import cluster.raft.spares
import cluster.snapshot
import cluster.transfers
import node.broker.consumer
import node.broker.queue
import node.broker.queue_base
import node.broker.queue_rows
import node.session.deliver
import node.session.locator
import node.session.plans
from cluster.raft.core import Options as RaftOptions

CONSTANTS: tuple[tuple[Any, str, tuple[int, ...]], ...] = (
    (cluster.group, "CHECKPOINT_ENTRIES", (1, 3, 10, 40, 20_000)),
    (cluster.group, "TRIMS_MAX", (1, 5, 512)),
    (cluster.group, "BARRIER_RETRY_MS", (100, 500)),
    (cluster.origin, "BATCH_BYTES_MAX", (200, 2_000, 256 * 1024)),
    (cluster.origin, "BATCH_BESIDE_BYTES_MIN", (0, 200, 16 * 1024)),
    (cluster.origin, "TURNS_UNDER_WAY_MAX", (1, 2, 6)),
    (cluster.origin, "UNAPPLIED_BYTES_MAX", (500, 8 << 20)),
    (cluster.host, "RESEND_MS", (100, 400, 1_000)),
    (cluster.balance, "SETTLED_MS", (100, 500, 5_000)),
    (cluster.balance, "HAND_BACK_MS", (5_000, 30_000)),
    (cluster.host, "TICK_DUTIES", (1, 3, 10)),
    (cluster.memory, "RESEND_MS", (100, 1_000)),
    (cluster.snapshot, "PART_BYTES_MAX", (1, 300, 1 << 20)),
    (cluster.snapshot, "PARTS_UNDER_WAY_MAX", (1, 4)),
    (cluster.transfers, "STALLED_MS_MAX", (300, 10_000)),
    (cluster.transfers, "PUT_OFF_MS_MAX", (500, 3_000)),
    (cluster.transfers, "SENDERS_MAX", (1, 2)),
    (cluster.raft.log, "TAIL_BYTES_MAX", (0, 300, 4 << 20)),
    (node.broker.queue, "NO_ACK_WINDOW", (1, 10, 2_000)),
    (node.broker.queue_base, "ASSIGN_SLICES_MAX", (1, 4, 8_192)),
    (node.broker.consumer, "HELD_SHIFT", (1, 3, 10)),
    (node.broker.queue_rows, "CHUNK_SHIFT", (1, 3, 8)),
    (node.session.deliver, "READ_AHEAD_PREFETCH_MIN", (1, 3, 100)),
    (node.session.plans, "PLANS_MAX", (1, 16_384)),
    (node.session.locator, "RUNS_MAX", (1, 1024)),
    (cluster.group, "CALM_BYTES", (1, 300, 256 * 1024)),
    (cluster.group, "CALM_TICKS", (1, 10)),
    (cluster.raft.spares, "SPARE_BYTES_MAX", (0, 300, 64 << 10)),
    (cluster.raft.spares, "COMMIT_MS_MAX", (0, 10, 300)),
)

RAFT: dict[str, tuple[int, ...]] = {
    "message_bytes_max": (1, 500, 1 << 20),
    "inflight_max": (1, 3, 256),
    "inflight_bytes_max": (1, 1_000, 16 << 20),
    "uncommitted_bytes_max": (2_000, 20_000, 64 << 20),
    "applying_bytes_max": (1, 2_000, 4 << 20),
}

FAULTS: dict[str, int] = {
    "crash": 4,
    "crash_mid_turn": 3,
    "crash_all": 1,
    "sync_fails": 2,
    "stall": 2,
    "pause": 3,
    "clock_jump": 2,
    "lossy_link": 3,
    "slow_link": 2,
    "small_frames_only": 1,
    "cut_one_way": 3,
    "cut_off": 2,
    "break_link": 3,
    "transfer": 3,
    "campaign": 1,
    "snapshot": 3,
    "client_drops": 3,
    "client_is_slow": 2,
}
"""Kinds of faults (methods of `Faults`) and how often each comes, relative to the others."""


@dataclass(slots=True)
class Limits:
    """What a seed runs with. Times in milliseconds, sizes in bytes."""

    constants: list[tuple[Any, str, int]] = field(default_factory=list)
    raft: dict[str, int] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    fault_ms: int = 100
    actor_ms: int = 20
    election_ticks: int = 10
    heartbeat_ticks: int = 2
    silent_ms_max: int = 5_000
    run_bytes_max: int = 256 * 1024
    frame_max: int = 131_072
    output_bytes_max: int = 1 << 20
    connection_bytes_max: int = 8 << 20
    request_timeout_ms: int = 10_000

    @classmethod
    def drawn(cls, rng: random.Random) -> "Limits":
        """The mixture of a seed."""
        limits = cls()
        for module, name, values in CONSTANTS:
            # A third of them as in the product: small bounds at once everywhere would hide each other.
            own = vars(module)[name]
            limits.constants.append((module, name, own if rng.random() < 0.33 else rng.choice(values)))
        limits.raft = {name: rng.choice(values) for name, values in RAFT.items()}
        limits.faults = {
            name: weight * rng.choice((0, 1, 1, 3)) for name, weight in FAULTS.items() if rng.random() < 0.6
        }
        limits.fault_ms = rng.choice((10, 30, 80))
        limits.actor_ms = rng.choice((10, 30, 80))
        limits.election_ticks = rng.choice((3, 5, 10))
        limits.heartbeat_ticks = 1 if limits.election_ticks < 5 else rng.choice((1, 2))
        limits.frame_max = rng.choice((4_096, 131_072))
        limits.silent_ms_max = rng.choice((400, 1_000, 5_000))
        limits.run_bytes_max = rng.choice((1, 300, 256 * 1024))
        limits.output_bytes_max = rng.choice((1, 500, 1 << 20))
        limits.connection_bytes_max = rng.choice((400, 5_000, 8 << 20))
        limits.request_timeout_ms = rng.choice((2_000, 10_000))
        return limits

    @contextmanager
    def in_force(self) -> Iterator[None]:
        """Set the product's constants for the time of a run."""
        before = [(module, name, vars(module)[name]) for module, name, _ in self.constants]
        options = vars(cluster.host)["Options"]
        for module, name, value in self.constants:
            setattr(module, name, value)
        setattr(cluster.host, "Options", functools.partial(RaftOptions, **self.raft))  # noqa: B010 - a class there
        try:
            yield
        finally:
            setattr(cluster.host, "Options", options)  # noqa: B010 - as above
            for module, name, value in before:
                setattr(module, name, value)
