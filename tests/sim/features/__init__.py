"""What queues can do beyond keeping messages: for each feature a queue, clients that use it, and what must hold.

A run of a seed has some of them (`chosen`), so that no run has to bear all.
"""

import random
from typing import TYPE_CHECKING

from tests.sim.features.base import Feature
from tests.sim.features.dedup import Dedup
from tests.sim.features.delays import Delays
from tests.sim.features.lengths import Dropping, Refusing
from tests.sim.features.priorities import Priorities
from tests.sim.features.replies import Replies
from tests.sim.features.retries import Retries
from tests.sim.features.single_active import SingleActive
from tests.sim.features.timeouts import Expiring, Timeouts
from tests.sim.features.transactions import Transactions
from tests.sim.features.ttl import TimeToLive

if TYPE_CHECKING:
    from tests.sim.run import Run

FEATURES: tuple[type[Feature], ...] = (
    TimeToLive,
    Dropping,
    Refusing,
    Priorities,
    SingleActive,
    Retries,
    Delays,
    Dedup,
    Timeouts,
    Expiring,
    Transactions,
    Replies,
)
FEATURES_A_RUN = 3
FEATURES_EVERY = 2
"""Every so many seeds have features; the others have the time for more of everything else."""


def chosen(run: "Run") -> list[Feature]:
    """Those that a run has, with what each has drawn for its queue."""
    if run.seed % FEATURES_EVERY:
        return []
    rng = random.Random(f"features of {run.seed}")
    return [kind(run, rng) for kind in rng.sample(FEATURES, FEATURES_A_RUN)]
