"""The HTTP of a node, over a real socket: who may see what, and in which shape."""

import asyncio
import socket
from base64 import b64encode
from collections.abc import Awaitable, Callable

import aiohttp
import pytest

from node.admin import http
from node.admin.http import AdminServer, is_loopback, parse_basic
from node.config import Address
from node.show import fetch, render
from node.startup import StartupError, listen
from tests.admin.source import MadeUp


async def serve(source: MadeUp, use: Callable[[str], Awaitable[None]]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    server = AdminServer(source)
    await server.start(listen(Address("127.0.0.1", port), "http"))
    try:
        await use(f"http://127.0.0.1:{port}")
    finally:
        await server.close()


def get(source: MadeUp, path: str, login: tuple[str, str] | None = None) -> tuple[int, str]:
    answers: list[tuple[int, str]] = []

    async def ask(url: str) -> None:
        headers = {"Authorization": f"Basic {b64encode(':'.join(login).encode()).decode()}"} if login else {}
        async with aiohttp.ClientSession() as session, session.get(f"{url}{path}", headers=headers) as answer:
            answers.append((answer.status, await answer.text()))

    asyncio.run(serve(source, ask))
    return answers[0]


@pytest.fixture
def from_afar(monkeypatch: pytest.MonkeyPatch) -> None:
    """All requests count as coming from another machine."""
    monkeypatch.setattr(http, "is_loopback", lambda _remote: False)


def test_live_is_always_so() -> None:
    assert get(MadeUp(reason="store is slow"), "/health/live") == (200, "live\n")


def test_ready_says_why_not() -> None:
    assert get(MadeUp(), "/health/ready") == (200, "ready\n")
    assert get(MadeUp(reason="store is opening"), "/health/ready") == (503, "store is opening\n")


@pytest.mark.usefixtures("from_afar")
def test_status_asks_for_a_password_from_afar() -> None:
    source = MadeUp()
    assert get(source, "/status")[0] == 401
    assert get(source, "/status", ("ann", "wrong"))[0] == 401
    assert get(source, "/status", ("ann", "right"))[0] == 200
    assert source.asked == ["ann", "ann"]


@pytest.mark.usefixtures("from_afar")
@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/metrics", "/metrics/queues"])
def test_health_and_metrics_ask_for_nothing(path: str) -> None:
    assert get(MadeUp(), path)[0] == 200


@pytest.mark.usefixtures("from_afar")
def test_unknown_path_tells_a_stranger_nothing() -> None:
    assert get(MadeUp(), "/other")[0] == 401


@pytest.mark.parametrize("query", ["queues=x", "start=-1", "queues=10001"])
def test_status_refuses_bad_numbers(query: str) -> None:
    assert get(MadeUp(), f"/status?{query}")[0] == 400


def test_metrics_name_totals_and_not_queues() -> None:
    text = get(MadeUp(), "/metrics")[1]
    assert 'warren_messages_published_total{vhost="/"} 12.0' in text
    assert 'warren_replica_lag_entries{member="n2",shard="0"} 4.0' in text
    assert 'warren_shard_has_leader{shard="1"} 0.0' in text
    assert "jobs" not in text


def test_queue_metrics_name_queues() -> None:
    assert 'warren_queue_messages_ready{queue="jobs",vhost="/"} 10.0' in get(MadeUp(), "/metrics/queues")[1]


def test_status_is_shown_as_tables() -> None:
    async def ask(url: str) -> None:
        status = await asyncio.to_thread(fetch, url, "/status?queues=1", timeout_s=5.0)
        lines = render(status).splitlines()
        assert lines[0] == "cluster warren, seen by n1 (ready), version 1.0"
        assert "n2      2   h2:7672  DOWN   0.5" in lines
        assert "1      NONE    n1        3     5       4        0     2       200" in lines
        assert "... and 1 more queues (--json shows the first 1)" in lines
        assert lines[-1] == "  disk: little space left"

    asyncio.run(serve(MadeUp(), ask))


def test_fetch_names_what_went_wrong() -> None:
    async def ask(url: str) -> None:
        with pytest.raises(StartupError, match="404"):
            await asyncio.to_thread(fetch, url, "/nothing", timeout_s=5.0)
        with pytest.raises(StartupError, match="no node answers"):
            await asyncio.to_thread(fetch, url, "/health/live", timeout_s=5.0)

    asyncio.run(serve(MadeUp(), ask))


@pytest.mark.parametrize(
    ("header", "login"),
    [
        ("Basic YTpiOmM=", ("a", "b:c")),
        ("basic YTo=", ("a", "")),
        ("Basic YQ==", None),
        ("Basic ?", None),
        ("Basic /w==", None),
        ("Bearer YTpi", None),
        ("", None),
    ],
)
def test_basic_header_is_read(header: str, login: tuple[str, str] | None) -> None:
    assert parse_basic(header) == login


@pytest.mark.parametrize(
    ("remote", "expected"),
    [
        ("127.3.2.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("10.0.0.1", False),
        (None, False),
        ("", False),
    ],
)
def test_loopback_is_told_apart(remote: str | None, expected: bool) -> None:
    assert is_loopback(remote) is expected
