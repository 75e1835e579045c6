"""Hostile bytes: each gets the answer that it deserves, memory stays bounded, other clients notice nothing."""

import contextlib
import random
import resource
import threading
import time
from collections.abc import Iterator

import pika
import pytest

from integration.harness import Cluster, Node, wait_for
from integration.nothing_lost import connected
from integration.raw import (
    BODY,
    CONTENT,
    FRAME_MAX,
    HEADER,
    METHOD,
    Close,
    Raw,
    content,
    frame,
    method,
    publish,
    short,
)

SILENT = 2000
HANDSHAKE_S = 10.0
GROWTH_BYTES_MAX = 96 << 20
"""What a node may grow by under any of this, beyond what it needs by itself."""
PATIENCE_S = 2.0
"""A neighbour's confirm may take this long while the machine is busy with the attack."""
MESSAGE_BYTES_MAX = 16 << 20


@pytest.fixture
def node(cluster: Cluster) -> Node:
    return cluster.nodes[0]


class Neighbour(threading.Thread):
    """A client that does nothing wrong, on the same node: how long it ever waits for a confirm."""

    def __init__(self, node: Node) -> None:
        super().__init__(daemon=True)
        self._node = node
        self._stopped = threading.Event()
        self.worst_s = 0.0
        self.count = 0
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            with connected(self._node) as channel:
                channel.queue_declare("neighbour", durable=True)
                channel.confirm_delivery()
                while not self._stopped.wait(0.02):
                    started = time.monotonic()
                    channel.basic_publish("", "neighbour", b"x", pika.BasicProperties(delivery_mode=2))
                    self.worst_s = max(self.worst_s, time.monotonic() - started)
                    self.count += 1
                    channel.basic_get("neighbour", auto_ack=True)
        except Exception as error:
            self.error = error

    def stop(self) -> None:
        self._stopped.set()
        self.join(30)


@pytest.fixture
def peace(node: Node) -> Iterator[Neighbour]:
    """Around each attack: the neighbour is served, and the node's memory is bounded."""
    neighbour = Neighbour(node)
    neighbour.start()
    time.sleep(0.5)
    before = node.rss_bytes()
    yield neighbour
    grown = node.rss_bytes() - before
    neighbour.stop()
    assert neighbour.error is None
    assert neighbour.count > 0
    assert neighbour.worst_s < PATIENCE_S, f"a confirm took {neighbour.worst_s:.1f} s"
    assert grown < GROWTH_BYTES_MAX, f"the node grew by {grown >> 20} MiB"


@pytest.mark.parametrize(
    ("hello", "answer"),
    [
        (b"AMQP\x00\x00\x09\x00", b"AMQP\x00\x00\x09\x01"),
        (b"AMQP\x00\x01\x00\x00", None),
        (b"AMQP\x03\x01\x00\x00", None),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", None),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", None),
        (b"\x00" * 64, None),
    ],
    ids=["0-9-0", "1-0", "sasl", "http", "tls", "zeros"],
)
def test_wrong_protocol_header(node: Node, peace: Neighbour, hello: bytes, answer: bytes | None) -> None:
    """The server says in eight octets what it speaks, and closes (AMQP 2.2.4; 4.2.2)."""
    with Raw(node) as client:
        client.send(hello)
        told = client.end()
    assert len(told) == 8 and told.startswith(b"AMQP")
    assert answer is None or answer == told


def test_garbage_instead_of_a_handshake(node: Node, peace: Neighbour) -> None:
    """Random octets after a right header end the connection."""
    chance = random.Random(1)
    for size in (1, 7, 8, 100, 4096, 100_000):
        with Raw(node) as client:
            client.send(HEADER)
            client.wait(10, 10)
            client.send(b"\xff" + chance.randbytes(size))
            if size >= 8:
                client.end()


def test_garbage_on_an_open_connection(node: Node, peace: Neighbour) -> None:
    """Random octets are no frames: 501 or another hard error, then the end."""
    chance = random.Random(2)
    for size in (64, 1000, 65536, 1 << 20):
        with Raw(node).open() as client:
            client.send(b"\xff" + chance.randbytes(size))
            told = client.until_close()
            assert told is None or (told.channel == 0 and told.code == 501), told
            client.end()


def test_garbage_in_right_frames(node: Node, peace: Neighbour) -> None:
    """Frames that are well-formed, with random octets in them, on open channels and others."""
    chance = random.Random(3)
    for _ in range(200):
        with Raw(node).open() as client:
            data = b""
            for _ in range(5):
                kind = chance.choice((METHOD, METHOD, CONTENT, BODY))
                data += frame(kind, chance.choice((0, 1, 1, 1, 2)), chance.randbytes(chance.randrange(40)))
            client.send(data + method(1, 85, 10, b"\0"))
            client.socket.shutdown(1)
            client.end()


def test_truncated_frames(node: Node, peace: Neighbour) -> None:
    """A client that goes away in the middle of anything leaves nothing behind: not even the message."""
    whole = publish(1, "truncated") + content(1, 3000) + frame(BODY, 1, b"x" * 3000)
    with connected(node) as channel:
        channel.queue_declare("truncated")
    for cut in range(0, len(whole), 97):
        with Raw(node).open() as client:
            client.send(whole[:cut])
    time.sleep(0.5)
    with connected(node) as channel:
        assert channel.queue_declare("truncated", passive=True).method.message_count == 0
        channel.queue_delete("truncated")


@pytest.mark.parametrize("announced", [FRAME_MAX + 1, 1 << 24, 0xFFFFFFFF], ids=["by-one", "16-MiB", "4-GiB"])
def test_frame_larger_than_negotiated(node: Node, peace: Neighbour, announced: int) -> None:
    """501, as soon as the size is read: the octets are not waited for."""
    with Raw(node).open() as client:
        client.send(publish(1, "q") + b"\x03\x00\x01" + announced.to_bytes(4, "big"))
        client.send(b"x" * 4096)
        told = client.until_close()
    assert told is not None and (told.channel, told.code) == (0, 501), told
    assert told.text.startswith("FRAME_ERROR - ")


def test_frame_end_is_wrong(node: Node, peace: Neighbour) -> None:
    """501."""
    with Raw(node).open() as client:
        client.send(frame(METHOD, 1, b"\x00\x55\x00\x0a\x00", end=b"\x00"))
        told = client.until_close()
    assert told is not None and (told.channel, told.code) == (0, 501), told


@pytest.mark.parametrize(
    ("announced", "sent"),
    [(10, 11), (10, 5000), (0, 1), (70_000, 70_001)],
    ids=["by-one", "by-much", "empty", "large"],
)
def test_body_longer_than_announced(node: Node, peace: Neighbour, announced: int, sent: int) -> None:
    """501 or 505; the message is not taken."""
    with connected(node) as channel:
        channel.queue_declare("longer")
    with Raw(node).open() as client:
        client.send(publish(1, "longer") + content(1, announced) + frame(BODY, 1, b"x" * sent))
        told = client.until_close()
    assert told is not None and told.channel == 0 and told.code in (501, 505), told
    with connected(node) as channel:
        time.sleep(0.2)
        left = channel.queue_declare("longer", passive=True).method.message_count
        channel.queue_delete("longer")
    # An empty body is complete with its header: the frame after it is one too many.
    assert left == (1 if announced == 0 else 0)


def test_message_too_large(node: Node, peace: Neighbour) -> None:
    """A header that announces more than the broker takes closes the channel, before any octet of the body."""
    for size in (MESSAGE_BYTES_MAX + 1, 1 << 40, (1 << 64) - 1):
        with Raw(node).open() as client:
            client.send(publish(1, "q") + content(1, size))
            told = client.until_close()
        assert told is not None and told.code in (406, 501), told
        assert "larger than" in told.text or "exceeds" in told.text


def test_largest_message_passes(node: Node, peace: Neighbour) -> None:
    """16 MiB is not too large."""
    body = random.Random(4).randbytes(MESSAGE_BYTES_MAX)
    with connected(node) as channel:
        channel.queue_declare("largest", durable=True)
        channel.confirm_delivery()
        channel.basic_publish("", "largest", body)
        assert body == channel.basic_get("largest", auto_ack=True)[2]
        channel.queue_delete("largest")


def test_half_messages_do_not_fill_the_memory(node: Node, peace: Neighbour) -> None:
    """Connections that announce large messages and stop in the middle hold what they sent, not what they announced."""
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            client = stack.enter_context(Raw(node).open())
            client.send(publish(1, "q") + content(1, MESSAGE_BYTES_MAX) + frame(BODY, 1, b"x" * 100_000))
        time.sleep(1)


def test_method_flood_without_reading(node: Node, peace: Neighbour) -> None:
    """A client that asks and never reads is not read any more; what it is owed does not pile up."""
    with Raw(node, timeout_s=2.0).open() as client:
        asked = method(1, 50, 10, b"\0\0" + short("unread") + b"\x00" + b"\0\0\0\0") * 100
        with contextlib.suppress(TimeoutError):
            for _ in range(2000):
                client.socket.sendall(asked)
        time.sleep(1)


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        (frame(METHOD, 1, b"\x00\x3c"), (501, 502, 503)),
        (method(1, 60, 99), (503, 540)),
        (method(1, 99, 10), (503, 540)),
        (method(7, 60, 20, b"\0\0" + short("q") + short("") + b"\0\0\0\0\0"), (504,)),
        (content(1, 3), (505,)),
        (frame(BODY, 1, b"xyz"), (505,)),
        (publish(1, "q") + method(1, 85, 10, b"\0"), (505,)),
        (publish(1, "q") + content(1, 3, class_id=50), (505,)),
        (method(1, 20, 10, short("")), (504,)),
        (frame(8, 1, b""), (501, 505)),
    ],
    ids=[
        "short-method", "unknown-method", "unknown-class", "closed-channel", "header-alone", "body-alone",
        "no-header", "wrong-class", "second-open", "heartbeat-on-channel",
    ],
)  # fmt: skip
def test_protocol_broken(node: Node, peace: Neighbour, frames: bytes, code: tuple[int, ...]) -> None:
    """Hard errors close the connection with their code."""
    with Raw(node).open() as client:
        client.send(frames)
        told = client.until_close()
        assert isinstance(told, Close), "closed without a word"
        assert told.channel == 0 and told.code in code, told


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_silent_connections(node: Node, peace: Neighbour) -> None:
    """2,000 connections that say nothing cost little, and each is closed after the handshake's time."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = SILENT + 200
    if soft < wanted:
        if hard < wanted:
            pytest.skip(f"this process may open {hard} files, {wanted} are needed")
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Raw(node, timeout_s=60)) for _ in range(SILENT)]
        opened_s = time.monotonic() - started
        accepted = wait_for(lambda: node.status(timeout_s=10)["connections"] >= SILENT, HANDSHAKE_S / 2)
        assert accepted, f"{node.status()['connections']} of {SILENT} were accepted"
        for client in clients:
            client.end()
        took_s = time.monotonic() - started
    assert HANDSHAKE_S - 1 < took_s < opened_s + HANDSHAKE_S + 10, f"closed after {took_s:.1f} s"
