"""A client that sends everything at once and leaves: it is answered first, and what it published is there."""

import struct

import pytest

from integration.harness import Cluster
from integration.nothing_lost import connected
from integration.raw import METHOD, Raw, content, method, publish, short

DECLARE_OK, CLOSE_OK, CONNECTION_CLOSE, CONNECTION_CLOSE_OK = (50, 11), (20, 41), (10, 50), (10, 51)
CLOSE = struct.pack(">H", 200) + short("") + struct.pack(">HH", 0, 0)
DURABLE = 2
NODES = ("n1", "n2", "n3")
"""One of them leads the metadata group."""


def _declares(prefix: str) -> bytes:
    arguments = bytes((DURABLE,)) + struct.pack(">I", 0)
    return b"".join(
        method(1, 50, 10, b"\0\0" + short(f"{prefix}{number}") + arguments) for number in range(3)
    )


def _methods(client: Raw, last: tuple[int, int]) -> list[tuple[int, int]]:
    """Those that come, up to this one."""
    found: list[tuple[int, int]] = []
    while last not in found and (frame := client.read()) is not None:
        assert frame[0] == METHOD
        found.append(struct.unpack_from(">HH", frame[2]))
    return found


@pytest.fixture(params=NODES)
def client(request: pytest.FixtureRequest, cluster: Cluster) -> Raw:
    node = next(node for node in cluster.nodes if node.name == request.param)
    return Raw(node).open()


def test_methods_are_answered_before_the_channel_closes(client: Raw) -> None:
    with client:
        client.send(_declares("channel") + method(1, 20, 40, CLOSE))
        assert _methods(client, CLOSE_OK) == [DECLARE_OK] * 3 + [CLOSE_OK]


def test_methods_are_answered_before_the_connection_closes(client: Raw) -> None:
    with client:
        client.send(_declares("connection") + method(0, 10, 50, CLOSE))
        assert _methods(client, CONNECTION_CLOSE_OK) == [DECLARE_OK] * 3 + [CONNECTION_CLOSE_OK]


def test_methods_are_answered_before_an_error(client: Raw) -> None:
    with client:
        client.send(_declares("error") + method(1, 50, 99))
        assert _methods(client, CONNECTION_CLOSE) == [DECLARE_OK] * 3 + [CONNECTION_CLOSE]


def test_messages_without_confirms_are_there_when_close_is_answered(client: Raw, cluster: Cluster) -> None:
    with client:
        client.send(_declares("messages") + (publish(1, "messages0") + content(1, 0)) * 500)
        client.send(method(0, 10, 50, CLOSE))
        assert _methods(client, CONNECTION_CLOSE_OK)[-1] == CONNECTION_CLOSE_OK
    for node in cluster.nodes:
        with connected(node) as channel:
            assert channel.queue_declare("messages0", passive=True).method.message_count == 500
    with connected(cluster.nodes[0]) as channel:
        channel.queue_purge("messages0")
