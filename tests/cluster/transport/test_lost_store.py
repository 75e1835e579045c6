"""A node whose data directory is not the one that its peers knew gets no word in."""

import asyncio

from cluster.envelope import Envelope
from cluster.transport.hello import Identity
from cluster.transport.link import LinkEvents
from cluster.transport.network import Network
from tests.cluster.transport.test_network import free_ports, until


def test_node_with_another_store_is_refused_by_its_peer() -> None:
    """The peer takes nothing of it, and the node's own link never comes up."""

    async def run() -> None:
        ports = free_ports(2)
        received: list[Envelope] = []
        ups: list[int] = []
        judged: list[tuple[int, str, bool]] = []

        def judge(node: int, store: str, rejoin: bool) -> str:
            judged.append((node, store, rejoin))
            return "it comes with another data directory"

        events = LinkEvents(lambda node, _boot: ups.append(node), lambda _node, _refused: None)
        quiet = LinkEvents(lambda _node, _boot: None, lambda _node, _refused: None)
        one = Network(
            Identity("c", 1, 11, "s1"),
            ("127.0.0.1", ports[0]),
            {2: ("127.0.0.1", ports[1])},
            received.append,
            quiet,
            judge_store=judge,
        )
        two = Network(
            Identity("c", 2, 22, "s2"),
            ("127.0.0.1", ports[1]),
            {1: ("127.0.0.1", ports[0])},
            lambda _e: None,
            events,
        )
        await one.start()
        await two.start()
        try:
            await until(lambda: len(judged) >= 2)
            two.send(1, Envelope(2, 22, 11))
            assert judged[0] == (2, "s2", False)
            assert ups == []
            assert received == []
        finally:
            await one.close()
            await two.close()

    asyncio.run(run())
