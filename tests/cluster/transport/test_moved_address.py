"""A peer that speaks to this node is alive, even where the address that this node knows of it refuses."""

import asyncio

import pytest

from cluster.transport import link
from cluster.transport.hello import Identity
from cluster.transport.link import LinkEvents
from cluster.transport.network import Network
from tests.cluster.transport.test_network import free_ports, until


class Moved:
    """Node 2 dials node 1, which knows another address of node 2, where nobody listens."""

    def __init__(self) -> None:
        one_port, two_port, old_port = free_ports(3)
        self.downs: list[bool] = []
        self.ups: list[int] = []
        self.one = Network(
            Identity("c", 1, 11),
            ("127.0.0.1", one_port),
            {2: ("127.0.0.1", old_port)},
            lambda _envelope: None,
            LinkEvents(lambda _node, _boot: None, lambda _node, refused: self.downs.append(refused)),
        )
        self.two = Network(
            Identity("c", 2, 22),
            ("127.0.0.1", two_port),
            {1: ("127.0.0.1", one_port)},
            lambda _envelope: None,
            LinkEvents(lambda node, _boot: self.ups.append(node), lambda _node, _refused: None),
        )

    async def start(self) -> None:
        """Until node 2 speaks to node 1."""
        await self.one.start()
        await until(lambda: True in self.downs)
        self.downs.clear()
        await self.two.start()
        await until(lambda: self.ups == [1])


def test_refusal_at_an_old_address_does_not_make_a_peer_dead() -> None:
    """Containers change addresses when they restart; whoever ended their sessions for it would cut off clients."""

    async def run() -> None:
        moved = Moved()
        await moved.start()
        moved.downs.clear()
        await until(lambda: len(moved.downs) >= 2)
        assert moved.downs == [False] * len(moved.downs)
        await moved.two.close()
        await until(lambda: True in moved.downs)
        await moved.one.close()

    asyncio.run(run())


def test_a_refusal_counts_as_soon_as_the_peer_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed process's address may refuse before the last of its streams has ended here; whoever waits for it
    need not wait until the address is tried the next time."""
    monkeypatch.setattr(link, "RETRY_MS_MIN", 60_000)
    monkeypatch.setattr(link, "RETRY_MS_MAX", 60_000)

    async def run() -> None:
        moved = Moved()
        await moved.start()
        await until(lambda: False in moved.downs)  # tried because of the hello
        await moved.two.close()
        await until(lambda: True in moved.downs)
        await moved.one.close()

    asyncio.run(run())
