"""What the sessions of a node may ask of the node they live on, and what they ask of its shell.

`NodePort` is the only way from `node.session` to the groups: the host implements it in a broker, and a
loopback of one node implements it in tests. No call waits and none calls back into the frontend: answers
come later, through `Frontend.on_effects`, `on_barrier`, `on_group_reset` and `on_group_lost`.
"""

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from node.broker.queue import QueueMachine
    from node.broker.topology import TopologyMachine


class NodePort(Protocol):
    """The node, as its client sessions see it."""

    @property
    def node_id(self) -> int:
        """This node's id: the origin of all that is submitted here."""

    @property
    def topology(self) -> "TopologyMachine":
        """The local replica of group 0, for reading only. Read anew each time: it may be replaced."""

    def machine(self, group: int) -> "QueueMachine | None":
        """The local replica of a shard or this node's memory group; None for another node's memory group."""

    def submit(self, group: int, parts: tuple[bytes, ...], *, is_patient: bool = False) -> None:
        """Append to this node's origin stream of `group`: exactly once, in order of the calls.

        Args:
            group: 0, a shard, or MEMORY_GROUP + the id of any node.
            parts: one whole command in pieces, or several: they become part of one log entry, so that all take
                effect or none. Kept by reference until they are joined.
            is_patient: nobody waits for it: it may go with a later command to the group, or after the next tick.
        """

    def has_group(self, group: int) -> bool:
        """Whether there is such a group: what a client says of one may be made up."""

    def barrier(self, group: int, ticket: int) -> None:
        """Ask for `Frontend.on_barrier(ticket)` once this replica is current.

        Current: all that was committed in `group` before this call, and all that this node submitted
        to it before this call, is applied here. Never answered while the group has no quorum.
        """

    def heed_metadata(self, *, is_needed: bool) -> None:
        """Whether somebody here routes, and this node is to hear of each change of the metadata at once.

        Otherwise with the next heartbeat. To be sure that it has heard of all, ask for a barrier afterwards.
        """

    def entry_data(self, group: int, index: int) -> bytes:
        """The data of a live entry. Raises KeyError where the row is gone."""

    def place(self, vhost: str, name: str) -> int:
        """The shard for a new queue: the least loaded one that this node leads, or any other."""

    def now_ms(self) -> int:
        """Time of this turn in milliseconds; never falls. For timeouts and heartbeats only."""

    def next_id(self) -> int:
        """A number from 1, rising: for tickets, sessions and consumers. Unique within this node's epoch."""

    def draw(self, size_bytes: int) -> bytes:
        """Unpredictable bytes, for names that the server makes."""


class Write(NamedTuple):
    """Send these chunks, in order, on the socket of `conn`."""

    conn: int
    chunks: list[bytes]


class Close(NamedTuple):
    """Close the socket of `conn` after what was written went out. The frontend has forgotten `conn`."""

    conn: int


class PauseReading(NamedTuple):
    """Stop reading from the socket of `conn`: a bound is reached."""

    conn: int


class ResumeReading(NamedTuple):
    """Read from the socket of `conn` again."""

    conn: int


class CheckLogin(NamedTuple):
    """Check a password off the loop, then call `Frontend.login_result(conn, user name or None)`."""

    conn: int
    mechanism: str
    user: str
    password: str


Output = Write | Close | PauseReading | ResumeReading | CheckLogin
