"""The HTTP server of a node: `/status`, `/health/live`, `/health/ready`, `/metrics`.

Health and metrics are open, because probes and scrapers carry no password. Everything else answers to this
machine, or to a user with a password. A shell: it asks a `StatusSource` and formats.
"""

import binascii
import ipaddress
import socket
from base64 import b64decode
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Middleware

from node.admin.metrics import render_node, render_queues
from node.admin.ports import StatusSource

OPEN_PATHS: Final = frozenset({"/health/live", "/health/ready", "/metrics", "/metrics/queues"})
METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
QUEUES_USUAL: Final = 1000
QUEUES_MAX: Final = 10_000
SHUTDOWN_S: Final = 1.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class AdminServer:
    """Serves one node's HTTP on a socket that listens already."""

    def __init__(self, source: StatusSource) -> None:
        """Remember whom to ask."""
        self._source = source
        self._runner: web.AppRunner | None = None

    async def start(self, listener: socket.socket) -> None:
        """Begin to serve; `listener` comes from `node.startup.listen` and is the server's from now on."""
        self._runner = web.AppRunner(build(self._source), access_log=None, shutdown_timeout=SHUTDOWN_S)
        await self._runner.setup()
        await web.SockSite(self._runner, listener).start()

    async def close(self) -> None:
        """Stop serving."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None


def build(source: StatusSource) -> web.Application:
    """Make the application; apart from the server, so that a test can drive it."""
    resources = _Resources(source)
    app = web.Application(middlewares=[resources.guard])
    app.router.add_get("/status", resources.status)
    app.router.add_get("/health/live", resources.live)
    app.router.add_get("/health/ready", resources.ready)
    app.router.add_get("/metrics", resources.metrics)
    app.router.add_get("/metrics/queues", resources.metrics_queues)
    return app


class _Resources:
    def __init__(self, source: StatusSource) -> None:
        self._source = source

    @property
    def guard(self) -> Middleware:
        @web.middleware
        async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
            if request.path in OPEN_PATHS or is_loopback(request.remote):
                return await handler(request)
            login = parse_basic(request.headers.get("Authorization", ""))
            if login is None or not await self._source.check_login(*login):
                return web.Response(
                    status=401, text="a user and a password are needed\n",
                    headers={"WWW-Authenticate": 'Basic realm="warren"'},
                )  # fmt: skip
            return await handler(request)

        return check

    async def status(self, request: web.Request) -> web.Response:
        try:
            start = int(request.query.get("start", "0"))
            count = int(request.query.get("queues", str(QUEUES_USUAL)))
        except ValueError:
            return web.Response(status=400, text="start and queues are numbers\n")
        if start < 0 or not 0 <= count <= QUEUES_MAX:
            return web.Response(status=400, text=f"start is not negative, queues is at most {QUEUES_MAX}\n")
        queues = [asdict(queue) for queue in self._source.queues(start, count)]
        return web.json_response({**asdict(self._source.status()), "queues": queues})

    async def live(self, _request: web.Request) -> web.Response:
        return web.Response(text="live\n")

    async def ready(self, _request: web.Request) -> web.Response:
        reason = self._source.unready_reason()
        return (
            web.Response(text="ready\n") if reason is None else web.Response(status=503, text=f"{reason}\n")
        )

    async def metrics(self, _request: web.Request) -> web.Response:
        return _plain(render_node(self._source))

    async def metrics_queues(self, _request: web.Request) -> web.Response:
        return _plain(render_queues(self._source))


def _plain(body: bytes) -> web.Response:
    return web.Response(body=body, headers={"Content-Type": METRICS_TYPE})


def is_loopback(remote: str | None) -> bool:
    """Tell whether a peer's address is of this machine."""
    try:
        address = ipaddress.ip_address((remote or "").partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def parse_basic(header: str) -> tuple[str, str] | None:
    """Read user and password from an Authorization header; None if it is not a well-formed Basic one."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return (user, password) if colon else None
