"""All snapshot transfers of a node, in both directions: who is sent what, who is received from, when to give up.

The protocol is in cluster.snapshot and cluster.envelope; this is its bookkeeping for the host, which hands in the
messages and the way to a peer's envelope of the turn.
"""

from collections.abc import Callable, Mapping

from cluster.envelope import Envelope, SnapshotAccept, SnapshotOffer, SnapshotPart, SnapshotPartReply
from cluster.group import Group, Outcome
from cluster.ports import GroupWrite, LogStore
from cluster.raft.rpc import InstallSnapshot
from cluster.snapshot import STALLED_MS_MAX, SnapshotReceiver, SnapshotSender

SENDERS_MAX = 2
"""Transfers from one node at a time: each reads from the disk that also serves clients."""
PUT_OFF_MS_MAX = 3_000
"""A member that found the leader busy with a checkpoint asks again after a heartbeat; so long no new one begins."""


class Transfers:
    """The transfers from and to one node."""

    def __init__(
        self,
        node: int,
        groups: Mapping[int, Group],
        store: LogStore,
        envelope: Callable[[int], Envelope],
        dispatch: Callable[[Group, Outcome], None],
    ) -> None:
        """Args: envelope: this turn's to a peer; dispatch: puts an outcome into the turn."""
        self._node = node
        self._groups = groups
        self._store = store
        self._envelope = envelope
        self._dispatch = dispatch
        self._senders: dict[tuple[int, int], SnapshotSender] = {}
        self._receivers: dict[int, SnapshotReceiver] = {}
        self._put_off: dict[int, int] = {}  # group: when a member had to wait for its checkpoint
        self._begun = 0

    def offer(self, group: Group, peer: int, now_ms: int) -> None:
        """A member lags behind the log: offer it the newest saved state."""
        key = (group.id, peer)
        if key in self._senders:
            return
        if len(self._senders) >= SENDERS_MAX or group.busy:
            if group.busy:
                # On a slow disk one checkpoint may follow the other: then no member that lags would ever be served.
                self._put_off[group.id] = now_ms
                group.held = True
            group.raft.report_snapshot(peer, ok=False)
            return
        self._put_off.pop(group.id, None)
        meta = group.checkpoint_meta
        self._begun += 1
        self._senders[key] = SnapshotSender(group.id, peer, group.raft.term, meta, self._begun, now_ms)
        group.held = True
        self._envelope(peer).offers.append(SnapshotOffer(group.id, group.raft.term, meta, self._begun))

    @property
    def is_sending(self) -> bool:
        """Whether a transfer from here is under way, which may go on with any turn."""
        return bool(self._senders)

    def send(self) -> None:
        """Put the parts that may go out into this turn's envelopes."""
        for sender in self._senders.values():
            parts = sender.next_parts()
            if parts:
                self._envelope(sender.peer).parts.extend(parts)

    def receive(self, node: int, envelope: Envelope, now_ms: int) -> None:
        """Take what an envelope of a peer says about snapshots."""
        for offer in envelope.offers:
            self._receive_offer(node, offer)
        for accept in envelope.accepts:
            self._receive_accept(node, accept, now_ms)
        for part in envelope.parts:
            self._receive_part(node, part)
        for reply in envelope.part_replies:
            self._receive_reply(node, reply, now_ms)

    def _receive_offer(self, node: int, offer: SnapshotOffer) -> None:
        group = self._groups[offer.group]
        if offer.term < group.raft.term or group.installing:
            return
        self._receivers[offer.group] = SnapshotReceiver(node, offer.term, offer.meta, offer.transfer)
        accept = SnapshotAccept(offer.group, offer.term, offer.meta.index, group.applied)
        self._envelope(node).accepts.append(accept)

    def _receive_accept(self, node: int, accept: SnapshotAccept, now_ms: int) -> None:
        sender = self._senders.get((accept.group, node))
        if sender is None or (accept.term, accept.index) != (sender.term, sender.meta.index):
            return
        sender.moved_at_ms = now_ms
        sender.begin(self._store, accept.applied, self._groups[accept.group].machine.live())

    def _receive_part(self, node: int, part: SnapshotPart) -> None:
        receiver = self._receivers.get(part.group)
        wanted = receiver is not None and receiver.matches(node, part) and receiver.add(part)
        reply = SnapshotPartReply(part.group, part.term, part.index, part.number, wanted, part.transfer)
        self._envelope(node).part_replies.append(reply)
        if receiver is None or not wanted:
            return
        group = self._groups[part.group]
        if part.entries:
            self._dispatch(group, Outcome(write=GroupWrite(part.group, live_rows=list(part.entries))))
        if receiver.complete:
            del self._receivers[part.group]
            # All is staged: Raft judges the position; if it takes it, the rows go in with its word.
            group.staged = receiver.rows
            group.raft.step(InstallSnapshot(receiver.sender, self._node, receiver.term, receiver.meta))
            group.touch()

    def _receive_reply(self, node: int, reply: SnapshotPartReply, now_ms: int) -> None:
        key = (reply.group, node)
        sender = self._senders.get(key)
        if sender is None or reply.transfer != sender.transfer:
            return
        if not reply.ok:
            self._end(key, ok=False)
            return
        sender.received = max(sender.received, reply.number + 1)
        sender.moved_at_ms = now_ms
        if sender.finished and sender.received == sender.sent:
            self._end(key, ok=True)

    def _end(self, key: tuple[int, int], *, ok: bool) -> None:
        del self._senders[key]
        group = self._groups[key[0]]
        self._let_go(key[0])
        group.raft.report_snapshot(key[1], ok=ok)
        group.touch()

    def _let_go(self, gid: int) -> None:
        self._groups[gid].held = gid in self._put_off or any(group == gid for group, _ in self._senders)

    def drop_peer(self, node: int) -> None:
        """A peer has a new process: what was under way to its old one is void."""
        for key in [key for key in self._senders if key[1] == node]:
            self._end(key, ok=False)

    def drop_stalled(self, now_ms: int) -> None:
        """Give up transfers that stand still, or that began in another term."""
        for key, sender in list(self._senders.items()):
            group = self._groups[key[0]]
            stalled = now_ms - sender.moved_at_ms > STALLED_MS_MAX
            if stalled or group.raft.term != sender.term or not group.raft.is_leader:
                self._end(key, ok=False)
        for gid, put_off_ms in list(self._put_off.items()):
            if now_ms - put_off_ms > PUT_OFF_MS_MAX:
                del self._put_off[gid]
                self._let_go(gid)
                self._groups[gid].touch()
