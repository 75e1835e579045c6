"""What finding the queues of a run costs: python -m bench.micro.route.

`first`: a new key each time where the exchange allows it; `again`: the same key again and again. A channel
asks only for keys that it has not used since the topology changed (node/session/publish.py); what it knows
costs a dict look-up.
"""

from collections.abc import Iterator
from itertools import count

from bench.micro.timing import best_us
from cluster.machine import Meta
from node.broker import topology_commands as commands
from node.broker.topology import TopologyMachine
from node.session.plans import Plan, Plans

HEADER = bytes(18)
VHOST = "/"
KEYS = 1000


class Topology:
    """A topology with an exchange of a type and so many bindings."""

    def __init__(self, exchange_type: str, bindings: int, key: str) -> None:
        """`key`: binding key of each, with the binding's number for {}."""
        self.machine = TopologyMachine(1)
        self._index = 0
        self._apply(
            commands.declare_exchange(
                0, VHOST, "e", exchange_type, durable=True, auto_delete=False, internal=False, arguments={}
            )
        )
        for number in range(bindings):
            self._declare(f"q{number}")
            self._apply(commands.bind_queue(0, VHOST, f"q{number}", "e", key.format(number), {}, 0))

    def _declare(self, name: str) -> None:
        self._apply(
            commands.declare_queue(
                0,
                VHOST,
                name,
                group=1,
                session=0,
                durable=True,
                exclusive=False,
                auto_delete=False,
                arguments={},
            )
        )

    def _apply(self, parts: tuple[bytes, ...]) -> None:
        self._index += 1
        self.machine.apply(Meta(self._index, 0, 1), HEADER + b"".join(parts), len(HEADER))

    def cost_us(self, exchange: str, key: str) -> tuple[float, float, int]:
        """Of `route` for {} = a new number each time, and the same; and how many queues it finds."""
        route = self.machine.route
        numbers = _endless()

        def first() -> object:
            return route(VHOST, exchange, key.format(*next(numbers)), dict)

        same = key.format(KEYS // 2, 0)
        found = route(VHOST, exchange, same, dict) or ()
        text = best_us(lambda: key.format(*next(numbers)))
        return (
            best_us(first) - text,
            best_us(lambda: route(VHOST, exchange, same, dict)),
            len(list(found)),
        )


def _endless() -> Iterator[tuple[int, int]]:
    """The number of a binding, and one that is never used twice."""
    return ((number % KEYS, number) for number in count())


def main() -> None:
    """One line an exchange."""
    rows = (
        ("default exchange", Topology("direct", KEYS, "{}"), "", "q{}"),
        ("direct, 1,000 bindings", Topology("direct", KEYS, "k{}"), "e", "k{}"),
        ("fanout to 100", Topology("fanout", 100, ""), "e", "{1}"),
        ("topic, 1,000 `plant.N.*`", Topology("topic", KEYS, "plant.{}.*"), "e", "plant.{0}.{1}"),
        ("topic, 1,000 `#.N`", Topology("topic", KEYS, "#.{}"), "e", "a.b.{1}.{0}"),
    )
    print(f"{'route':<28} {'first':>9} {'again':>9}  queues   (us a call)")
    for name, topology, exchange, key in rows:
        first, again, found = topology.cost_us(exchange, key)
        print(f"{name:<28} {first:>9.2f} {again:>9.2f}  {found:>6}")
    plans, args = Plans(), b"\x00\x02q1\x00"
    plans.known(1)
    plans.keep(args, Plan(((1, (7,)),)))
    known = best_us(lambda: plans.known(1).get(args))
    print(f"{'known to the user':<28} {known:>9.2f}")


if __name__ == "__main__":
    main()
