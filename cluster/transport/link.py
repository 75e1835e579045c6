"""The sending end: a link to one peer that connects, notices its end in milliseconds, and connects again.

A link is up while both of its lanes are. When it breaks, the peer's address is tried at once: an address that
refuses connections has no process behind it, and whoever waits for that process need not wait for a timeout.
"""

import asyncio
import contextlib
import enum
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass

import grpc

from cluster.envelope import Envelope
from cluster.transport.hello import BULK, CHANNEL_OPTIONS, CONTROL, EXCHANGE, SERVICE, Identity, hello_frame
from cluster.transport.lane import RIDE_BYTES_MAX, Lane, merge, part
from cluster.transport.translate import to_bytes
from cluster.wire import peer_pb2 as pb

_logger = logging.getLogger(__name__)

RETRY_MS_MIN = 50
RETRY_MS_MAX = 1_000
CONNECT_TIMEOUT_MS = 2_000
"""For the probe and for the hello; longer round trips than this make no usable cluster."""

Call = grpc.aio.StreamStreamCall[bytes, pb.Answer]


@dataclass(slots=True, frozen=True)
class LinkEvents:
    """What a link tells, always in the loop's thread.

    Args:
        up: (node, boot) both lanes stand.
        down: (node, refused) the link broke, or its address refuses connections (again and again, no matter
            whether it was up).
    """

    up: Callable[[int, int], None]
    down: Callable[[int, bool], None]


class _Probe(enum.Enum):
    OPEN = enum.auto()
    REFUSED = enum.auto()
    SILENT = enum.auto()


class _RefusedError(Exception):
    """The peer does not talk to this node."""


class Link:
    """Envelopes to one peer.

    Args:
        identity: this process.
        node: the peer.
        host, port: where it listens.
        events: where the link's ups and downs are told.
    """

    def __init__(self, identity: Identity, node: int, host: str, port: int, events: LinkEvents) -> None:
        self.node = node
        self.is_up = False
        self.dropped = 0  # envelopes for which there was no room
        self._identity = identity
        self._host, self._port = host, port
        self._events = events
        self._control, self._bulk = Lane(), Lane()
        self._poked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._last_complaint = ""
        self._closing = False

    def start(self) -> None:
        """Begin to connect."""
        self._task = asyncio.create_task(self._run(), name=f"link to node {self.node}")

    async def close(self) -> None:
        """Hang up; nothing is told any more."""
        self._closing = True
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def poke(self) -> None:
        """There is news of the peer: try its address at once."""
        self._poked.set()

    def send(self, envelope: Envelope) -> bool:
        """Send without ever waiting; False: the link is down or full, and (part of) it is lost."""
        if not self.is_up:
            return False
        parted = part(envelope)
        control, bulk = parted.control, parted.bulk
        sent = True
        if bulk is not None:
            if control is not None and self._bulk.is_idle and parted.bulk_bytes <= RIDE_BYTES_MAX:
                merge(bulk, control)
                control = None
            sent = self._put(self._bulk, bulk, parted.bulk_bytes)
        if control is not None:
            sent = self._put(self._control, control, parted.control_bytes) and sent
        return sent

    def _put(self, lane: Lane, envelope: Envelope, size: int) -> bool:
        if lane.put(envelope, size):
            return True
        if self.dropped == 0:
            _logger.warning(
                "node %d does not keep up: %d bytes wait for it, envelopes are dropped", self.node, lane.bytes
            )
        self.dropped += 1
        return False

    async def _run(self) -> None:
        retry_ms = RETRY_MS_MIN
        while True:
            self._poked.clear()
            probe = await self._probe()
            if probe is _Probe.REFUSED:
                self._events.down(self.node, True)
            elif probe is _Probe.OPEN and await self._talk():
                retry_ms = RETRY_MS_MIN
                continue  # it was up: find out at once whether the process is gone
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(retry_ms / 1000):
                    await self._poked.wait()
            retry_ms = min(retry_ms * 2, RETRY_MS_MAX)

    async def _probe(self) -> _Probe:
        """Whether anyone listens there. gRPC tells a refusal from silence in the text of an error only."""
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_MS / 1000):
                writer = await _reach(await _resolve(self._host, self._port), self._port)
        except ConnectionRefusedError:
            return _Probe.REFUSED
        except (socket.gaierror, UnicodeError) as error:
            self._complain(f"the name {self._host!r} of node {self.node} is not known: {error}")
            return _Probe.SILENT
        except (OSError, TimeoutError):
            return _Probe.SILENT
        ends = [writer.get_extra_info(name) for name in ("sockname", "peername")]
        writer.transport.abort()
        # A port that nobody listens on can be given to the very socket that tries it: it then meets itself.
        return _Probe.REFUSED if ends[0] == ends[1] else _Probe.OPEN

    def _complain(self, text: str) -> None:
        """Warn, but not each time that the same is tried again."""
        if text != self._last_complaint:
            self._last_complaint = text
            _logger.warning("%s", text)

    async def _talk(self) -> bool:
        """One life of the link. Returns whether it was up."""
        target = f"[{self._host}]:{self._port}" if ":" in self._host else f"{self._host}:{self._port}"
        control = grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS)
        bulk = grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS)
        was_up = False
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_MS / 1000):
                control_call, boot = await self._introduce(control, CONTROL)
                bulk_call, bulk_boot = await self._introduce(bulk, BULK)
            if boot == bulk_boot:
                was_up = self.is_up = True
                self._last_complaint = ""
                self._events.up(self.node, boot)
                await self._carry(control_call, bulk_call)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError, TimeoutError, ConnectionError) as error:
            _logger.debug("link to node %d: %r", self.node, error)
        except _RefusedError as error:
            self._complain(f"node {self.node} at {target} refuses this node: {error}")
        except Exception:
            # Task root: whatever went wrong with one envelope, without its link this node would stay cut off.
            _logger.exception("link to node %d", self.node)
        finally:
            if self.is_up:
                self.is_up = False
                self._control.clear()
                self._bulk.clear()
                self.dropped = 0
                if not self._closing:
                    self._events.down(self.node, False)
            await asyncio.gather(control.close(), bulk.close())
        return was_up

    async def _introduce(self, channel: grpc.aio.Channel, lane: pb.Lane) -> tuple[Call, int]:
        exchange: grpc.aio.StreamStreamMultiCallable[bytes, pb.Answer] = channel.stream_stream(
            f"/{SERVICE}/{EXCHANGE}", request_serializer=None, response_deserializer=pb.Answer.FromString
        )
        call: Call = exchange()
        await call.write(hello_frame(self._identity, self.node, lane).SerializeToString())
        answer = await call.read()
        if not isinstance(answer, pb.Answer):
            raise ConnectionResetError("the stream ended before the answer")
        if answer.refusal:
            raise _RefusedError(answer.refusal)
        if answer.node != self.node:
            raise _RefusedError(f"node {answer.node} answers at the address of node {self.node}")
        return call, answer.boot

    async def _carry(self, control: Call, bulk: Call) -> None:
        """Write what waits until either stream ends."""
        tasks = [
            asyncio.create_task(_write(control, self._control)),
            asyncio.create_task(_write(bulk, self._bulk)),
            asyncio.create_task(_ended(control)),
            asyncio.create_task(_ended(bulk)),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _resolve(host: str, port: int) -> list[str]:
    """The numbers of a host, looked up anew each time: a container or a pod comes back with another one.

    Apart from the connecting, because uvloop logs an error where that is given up while it looks up a name.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


async def _reach(addresses: list[str], port: int) -> asyncio.StreamWriter:
    """Connect to the first address where someone listens; raises what the last one answered."""
    last: OSError = OSError("no address")
    for address in addresses:
        try:
            _, writer = await asyncio.open_connection(address, port)
        except OSError as error:
            last = error
        else:
            return writer
    raise last


async def _write(call: Call, lane: Lane) -> None:
    while True:
        await call.write(to_bytes(await lane.take()))


async def _ended(call: Call) -> None:
    """Returns or raises when the stream is over: nothing but the answer to the hello ever comes on it."""
    await call.read()
