"""The composition root: builds the shells, hands them the core, and runs until told to stop.

The only module that knows every part. Start claims the data directory and the ports before anything else, so
that a node that cannot serve says so in one line and has changed nothing.
"""

import asyncio
import contextlib
import gc
import logging
import random
import secrets
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import uvloop

from cluster.driver import Clock, Driver
from cluster.envelope import Envelope
from cluster.host import HostOptions
from cluster.placement import first_configuration
from cluster.ports import GroupWrite
from cluster.transport.hello import Identity as PeerIdentity
from cluster.transport.hello import TransportError
from cluster.transport.link import LinkEvents
from cluster.transport.network import Network
from node import __version__
from node.admin.http import AdminServer
from node.amqp import Options as AmqpOptions
from node.broker import topology_commands
from node.broker.passwords import SALT_SIZE_BYTES, hash_password
from node.config import Config
from node.core import NodeCore
from node.logins import Logins
from node.server.listener import Listener
from node.session.ports import CheckLogin, Output
from node.session.shared import Options as SessionOptions
from node.startup import DataDirectory, StartupError, claim, listen
from node.status import CoreStatus
from node.store.environment import Environment
from node.store.errors import StoreError
from node.store.log_store import LmdbStore
from node.store.writer import Writer
from node.wire import codec

logger = logging.getLogger("warren")

HAND_OVER_S = 3.0
"""A node that stops gives its leaderships away for at most this long."""
TICK_MS = 50
WATCH_S = 1.0
"""Between two looks at the free disk space: at 200 MB/s less than the usual minimum is written in between."""


@dataclass(slots=True, frozen=True)
class Claimed:
    """What a node holds before it starts."""

    directory: DataDirectory
    amqp: socket.socket
    http: socket.socket


def run(config: Config) -> int:
    """Run a node until SIGTERM or SIGINT; returns the exit code. Raises StartupError where it cannot start."""
    logging.basicConfig(
        level=config.log_level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    gc.disable()  # restoring the saved state makes many objects and no garbage
    amqp = listen(config.amqp, "amqp")
    http = listen(config.http, "http")
    listen(config.cluster, "cluster").close()  # gRPC opens it itself, and is worse at saying why it cannot
    claimed = Claimed(claim(config), amqp, http)
    try:
        return uvloop.run(Node(config, claimed).main())
    except (StoreError, TransportError) as error:
        raise StartupError(str(error)) from error
    finally:
        claimed.directory.close()


def _formation(config: Config) -> str:
    """What all nodes must agree on; nodes that do not refuse each other and show both texts."""
    names = ",".join(member.name for member in config.members)
    return f"{config.cluster_name} of {names}, {config.shards} shards, {config.replicas} replicas"


class Node:
    """One running node."""

    def __init__(self, config: Config, claimed: Claimed) -> None:
        self._config = config
        self._claimed = claimed
        self._clock = Clock()
        self._failure: Exception | None = None
        self._stop = asyncio.Event()
        self._disk_text: str | None = None
        self._watching: asyncio.TimerHandle | None = None

    async def main(self) -> int:
        """Start, serve, stop."""
        if not codec.COMPILED:
            logger.warning("the compiled codec is missing: the slower reference codec is used")
        self._build()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._stop.set)
        try:
            await self._serve()
            if self._failure is None:
                await self._hand_over()
        finally:
            await self._close()
        if self._failure is not None:
            raise StartupError(str(self._failure)) from self._failure
        return 0

    def _build(self) -> None:
        """Open the store and wire the parts; nothing runs yet."""
        config, loop = self._config, asyncio.get_running_loop()
        self._environment = environment = Environment(
            config.data / "store",
            cluster=config.cluster_name,
            node=config.name,
            map_bytes=config.store_size_bytes_max,
            now_ms=self._clock.now_ms(),
        )
        store = LmdbStore(environment, config.cache_bytes_max)
        nodes = tuple(range(1, len(config.members) + 1))
        for group in range(config.shards + 1):
            store.form(group, first_configuration(group, nodes, config.replicas))
        core = self._core = self._make_core(store, environment.boot, nodes)
        self._logins = Logins(lambda: core.topology)
        self._driver = driver = Driver(
            core, self._clock, self._write, self._send, self._carry_out, on_failure=self._failed
        )
        self._listener = Listener(core.frontend, driver.notice, self._check_login, config.connections_max)
        self._writer = Writer(store, loop, driver.persisted, self._failed)
        peers = {index: member.address for index, member in enumerate(config.members, start=1)}
        peers.pop(config.node_id)
        self._network = Network(
            PeerIdentity(
                _formation(config), config.node_id, environment.boot, environment.uuid, config.rejoin
            ),
            (config.cluster.host, config.cluster.port),
            {node: (address.host, address.port) for node, address in peers.items()},
            driver.receive,
            LinkEvents(driver.peer_up, driver.peer_down),
            judge_store=environment.judge_peer,
        )
        self._status = CoreStatus(config, core, self._logins.check, lambda: self._disk_text, store.log_bytes)
        self._admin = AdminServer(self._status)

    async def _serve(self) -> None:
        """Open the doors, inner ones first, and wait until it is time to stop."""
        config = self._config
        await self._network.start()
        self._driver.start()
        await self._admin.start(self._claimed.http)
        await self._listener.start(self._claimed.amqp)
        self._status.serving = True
        self._watch_disk()
        self._form_user()
        # What was made so far stays for good; collecting it again and again would stop the loop for nothing.
        gc.freeze()
        gc.set_threshold(100_000, 50, 100)
        gc.enable()
        logger.info(
            "node %s of cluster %s serves AMQP on %s (warren %s)",
            config.name,
            config.cluster_name,
            config.amqp,
            __version__,
        )
        await self._stop.wait()

    async def _close(self) -> None:
        """Close the doors, outer ones first; what was handed to the writer is still written."""
        self._status.serving = False
        if self._watching is not None:
            self._watching.cancel()
        self._listener.close()
        self._driver.stop()
        await self._network.close()
        await self._admin.close()
        if self._failure is None:
            self._writer.close()
            self._environment.close()

    def _make_core(self, store: LmdbStore, boot: int, nodes: tuple[int, ...]) -> NodeCore:
        config = self._config
        host = HostOptions(
            node=config.node_id,
            nodes=nodes,
            boot=boot,
            election_ticks=max(2, config.election_timeout_ms // TICK_MS),
            heartbeat_ticks=max(1, config.raft_heartbeat_ms // TICK_MS),
            silent_ms_max=config.session_grace_ms,
        )
        amqp = AmqpOptions(
            information=f"Warren {__version__}",
            cluster_name=config.cluster_name,
            platform=f"Python {sys.version_info.major}.{sys.version_info.minor}",
            frame_max=config.frame_size_bytes_max,
            channel_max=config.channels_max,
            heartbeat_s=config.heartbeat_s,
            message_size_bytes_max=config.message_size_bytes_max,
        )
        sessions = SessionOptions(amqp, loopback_users=config.loopback_users)
        chance = random.SystemRandom()
        return NodeCore(
            host,
            sessions,
            config.shards,
            store,
            draw=chance.randint,
            draw_bytes=secrets.token_bytes,
            now_ms=self._clock.now_ms(),
        )

    # -- what the driver calls -------------------------------------------------------------------------

    def _write(self, number: int, writes: Sequence[GroupWrite]) -> None:
        self._writer.submit(number, writes)

    def _send(self, envelopes: Mapping[int, Envelope]) -> None:
        for peer, envelope in envelopes.items():
            self._network.send(peer, envelope)

    def _carry_out(self, outputs: list[Output]) -> None:
        self._listener.carry_out(outputs)

    def _failed(self, error: Exception) -> None:
        """Nothing more can be made durable, so nothing more may be promised: the process ends."""
        logger.error("%s; this node stops", error)
        self._failure = error
        self._driver.stop()
        self._stop.set()

    def _check_login(self, request: CheckLogin) -> None:
        def result(conn: int, user: str | None) -> None:
            self._core.frontend.login_result(conn, user)
            self._driver.wake()

        self._logins.answer(request, result)

    # -- the rest of a node's life ---------------------------------------------------------------------

    def _disk_alarm(self, environment: Environment) -> str | None:
        free, wanted = environment.free_bytes(), self._config.disk_free_bytes_min
        if free >= wanted:
            return None
        return f"{free >> 20} MiB are free for {environment.path}, less than {wanted >> 20} MiB"

    def _watch_disk(self) -> None:
        """Refuse publishes early enough that consuming and deleting, which write too, still work."""
        alarm = self._disk_alarm(self._environment)
        if (alarm is None) != (self._disk_text is None):
            logger.warning("%s", alarm or "there is enough free space on the disk again")
        self._disk_text = alarm
        self._core.frontend.set_shortage(None if alarm is None else "low on disk")
        self._driver.wake()
        self._watching = asyncio.get_running_loop().call_later(WATCH_S, self._watch_disk)

    def _form_user(self) -> None:
        """A new cluster begins with the configured user in the place of guest."""
        config = self._config
        if not self._claimed.directory.is_new or (config.default_user, config.default_password) == (
            "guest",
            "guest",
        ):
            return
        salt = secrets.token_bytes(SALT_SIZE_BYTES)
        user, digest = config.default_user, hash_password(config.default_password, salt)
        wanted = [
            topology_commands.add_user(0, user, salt, digest, ("administrator",)),
            topology_commands.set_permissions(0, user, "/", ".*", ".*", ".*"),
        ]
        if user != "guest":
            wanted.append(topology_commands.delete_user(0, "guest"))
        for command in wanted:
            self._core.submit(0, command)
        self._driver.wake()

    async def _hand_over(self) -> None:
        """Tell the clients, and give every leadership to a node that stays."""
        self._listener.stop_accepting()
        self._core.frontend.close_all("broker forced connection closure with reason 'shutdown'")
        self._driver.wake()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HAND_OVER_S):
                while self._core.host.balance.hand_over():
                    self._driver.wake()
                    await asyncio.sleep(TICK_MS / 1000)
