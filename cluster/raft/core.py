"""One member of one Raft group: state, term check and dispatch."""

from collections.abc import Callable
from dataclasses import dataclass

from cluster.ports import LogView
from cluster.raft.membership import MembershipChange
from cluster.raft.ready import Ready, Role
from cluster.raft.rpc import Message
from cluster.types import Configuration, Entry


@dataclass(slots=True, frozen=True)
class Options:
    """Settings of one member of one group; a tick is about 50 ms."""

    id: int
    group: int
    heartbeat_ticks: int = 2
    election_ticks: int = 20
    message_bytes_max: int = 1 << 20
    inflight_max: int = 256
    inflight_bytes_max: int = 16 << 20
    uncommitted_bytes_max: int = 64 << 20
    applying_bytes_max: int = 4 << 20
    reads_max: int = 4096


class Raft:
    """One member of one group (signatures; draw(low, high) is inclusive, like random.randint)."""

    clock_ts: int  # set by the host before tick/step/propose: milliseconds since the epoch
    role: Role
    term: int
    leader: int  # 0: unknown
    configuration: Configuration
    commit: int
    applied: int
    last_index: int

    def __init__(self, options: Options, log: LogView, draw: Callable[[int, int], int], applied: int) -> None: ...
    def tick(self) -> None: ...
    def step(self, message: Message) -> None: ...
    def propose(self, kind: int, payloads: list[bytes]) -> int | None: ...  # type: ignore[empty-body]
    def propose_membership(self, change: MembershipChange) -> int | None: ...  # type: ignore[empty-body]
    def apply_membership(self, entry: Entry) -> Configuration: ...  # type: ignore[empty-body]
    def read_index(self, token: int) -> bool: ...  # type: ignore[empty-body]  # False: no leader known, try later
    def transfer_leader(self, target: int) -> bool: ...  # type: ignore[empty-body]
    def campaign(self) -> None: ...
    def peer_lost(self, peer: int) -> None: ...
    def report_unreachable(self, peer: int) -> None: ...
    def report_snapshot(self, peer: int, *, ok: bool) -> None: ...
    def has_ready(self) -> bool: ...  # type: ignore[empty-body]
    def ready(self) -> Ready: ...  # type: ignore[empty-body]
    def on_persisted(self, number: int) -> None: ...
    def on_applied(self, index: int) -> None: ...
    def log_compacted(self) -> None: ...
