"""A peer that speaks to this node is alive, even where the address that this node knows of it refuses."""

import asyncio

from cluster.transport.hello import Identity
from cluster.transport.link import LinkEvents
from cluster.transport.network import Network
from tests.cluster.transport.test_network import free_ports, until


def test_refusal_at_an_old_address_does_not_make_a_peer_dead() -> None:
    """Containers change addresses when they restart; whoever ended their sessions for it would cut off clients."""

    async def run() -> None:
        one_port, two_port, old_port = free_ports(3)
        downs: list[bool] = []
        ups: list[int] = []
        one = Network(
            Identity("c", 1, 11),
            ("127.0.0.1", one_port),
            {2: ("127.0.0.1", old_port)},
            lambda _envelope: None,
            LinkEvents(lambda _node, _boot: None, lambda _node, refused: downs.append(refused)),
        )
        two = Network(
            Identity("c", 2, 22),
            ("127.0.0.1", two_port),
            {1: ("127.0.0.1", one_port)},
            lambda _envelope: None,
            LinkEvents(lambda node, _boot: ups.append(node), lambda _node, _refused: None),
        )
        await one.start()
        await until(lambda: True in downs)
        await two.start()
        await until(lambda: ups == [1])
        downs.clear()
        await until(lambda: len(downs) >= 2)
        assert downs == [False] * len(downs)
        await two.close()
        await until(lambda: True in downs)
        await one.close()

    asyncio.run(run())
