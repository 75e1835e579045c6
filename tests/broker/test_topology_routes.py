"""Routes through exchanges, against a naive model, and how fast they are."""

import time
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from node.broker import topology_commands as commands
from node.broker.exchange import HeadersPattern
from node.broker.topic import split_words
from node.broker.vhost import ROUTES_WEIGHT_MAX
from tests.broker.test_topic import naive_match
from tests.broker.topology_driver import Topology, message, queue


def test_default_exchange_routes_to_the_queue_of_that_name() -> None:
    """AMQP 3.1.3.1: every queue is bound to the default exchange by its name."""
    topology = Topology()
    topology.queue("q")
    assert topology.route("", "q") == ["q"]
    assert topology.route("", "p") == []
    assert topology.route("no", "q") is None


def test_route_of_several_keys_is_all_that_they_lead_to() -> None:
    """Sender-selected distribution: direct and topic exchanges look at each key, each queue comes once, by age."""
    topology = Topology()
    for name in ("a", "b", "c"):
        topology.queue(name)
    topology.exchange("t", "topic")
    topology.link("amq.direct", "t", "2")
    topology.bind("amq.direct", "c", "1")
    topology.bind("t", "a", "#")
    topology.bind("amq.headers", "b", arguments={"x-match": "any", "kind": 1})
    assert topology.route_all("amq.direct", "1", "1") == ["c"]
    assert topology.route_all("amq.direct", "1", "2", "3") == ["a", "c"]
    assert topology.route_all("", "c", "none", "a") == ["a", "c"]
    assert topology.route_all("amq.headers", "1", "2", headers={"kind": 1}) == ["b"]
    assert topology.route_all("none", "1") is None


def test_alternate_exchange_gets_what_no_key_leads_anywhere() -> None:
    """AMQP 3.1.3.1 by name: also where the default exchange is the alternate."""
    topology = Topology()
    topology.queue("q")
    topology.queue("p")
    topology.exchange("d", "direct", arguments={"alternate-exchange": ""})
    topology.bind("d", "q", "k")
    assert topology.route_all("d", "k", "p") == ["q"]
    assert topology.route_all("d", "x", "p") == ["p"]


def test_route_follows_bindings_between_exchanges_in_a_circle() -> None:
    """Each queue gets the message once, and a cycle ends."""
    topology = Topology()
    for name in ("a", "b"):
        topology.exchange(name, "fanout")
        topology.queue(f"q{name}")
        topology.bind(name, f"q{name}")
    topology.link("a", "b")
    topology.link("b", "a")
    topology.link("a", "a")
    assert topology.route("a") == topology.route("b") == ["qa", "qb"]
    topology.run(commands.unbind_exchange(1, "/", "b", "a", "", {}))
    assert topology.route("a") == ["qa"]
    assert topology.route("b") == ["qa", "qb"]
    topology.run(commands.delete_exchange(1, "/", "a", if_unused=False))
    assert topology.route("b") == ["qb"]


def test_alternate_exchange_takes_what_has_no_other_way() -> None:
    """Also when it comes into being later, and when it is the default exchange."""
    topology = Topology()
    topology.exchange("x", arguments={"alternate-exchange": "rest"})
    topology.queue("q")
    topology.queue("r")
    topology.bind("x", "q", "k")
    assert topology.route("x", "other") == []
    topology.exchange("rest", "fanout")
    topology.bind("rest", "r")
    assert topology.route("x", "other") == ["r"]
    assert topology.route("x", "k") == ["q"]
    topology.exchange("y", "topic", arguments={"alternate-exchange": ""})
    assert topology.route("y", "q") == ["q"]


def test_headers_are_only_decoded_where_needed() -> None:
    """A headers exchange without bindings, and every other type, never asks."""
    topology = Topology()
    topology.queue("q")
    topology.bind("amq.topic", "q", "#")

    unread: Any = None

    assert topology.machine.route("/", "amq.topic", "k", unread) is not None
    assert topology.machine.route("/", "amq.match", "k", unread) == ()
    topology.bind("amq.match", "q", "", {"a": 1})
    assert topology.route("amq.match", "", {"a": 1}) == ["q"]
    assert topology.route("amq.match", "", {"a": 2}) == []


def test_routes_are_kept_within_bounds() -> None:
    """A client that never repeats a routing key cannot fill the memory."""
    topology = Topology()
    topology.queue("q")
    topology.bind("amq.topic", "q", "#")
    for number in range(ROUTES_WEIGHT_MAX // 5 + 10):
        topology.machine.route("/", "amq.topic", str(number), message())
    node = topology.machine._vhosts["/"].exchanges["amq.topic"]
    assert len(node.routes) < 20
    assert topology.machine.route("/", "amq.topic", "k", dict) is topology.machine.route(
        "/", "amq.topic", "k", dict
    )


EXCHANGES = [("d", "direct"), ("f", "fanout"), ("t", "topic"), ("h", "headers"), ("u", "topic")]
NAMES = st.sampled_from([name for name, _ in EXCHANGES])
QUEUES = st.sampled_from(["q1", "q2", "q3"])
KEYS = st.sampled_from(["", "a", "a.b", "#", "*", "a.#", "*.b", "#.b.#"])
TABLES: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [{}, {"k": 1}, {"x-match": "any", "k": 2, "l": 1}]
)
Step = tuple[str, Any, str, str, dict[str, Any]]
STEPS: st.SearchStrategy[list[Step]] = st.lists(
    st.tuples(st.sampled_from(["bind", "unbind"]), NAMES, QUEUES, KEYS, TABLES)
    | st.tuples(st.sampled_from(["link", "unlink"]), NAMES, NAMES, KEYS, st.just({}))
    | st.tuples(st.sampled_from(["declare", "delete"]), st.none(), QUEUES, st.just(""), st.just({})),
    max_size=25,
)


class Naive:
    """The topology as a list of bindings, and a search through all of them."""

    def __init__(self) -> None:
        self.queues = ["q1"]
        self.bindings: list[tuple[str, str, str, str, dict[str, Any]]] = []

    def step(self, action: str, source: str, target: str, key: str, table: dict[str, Any]) -> None:
        if action == "declare" and target not in self.queues:
            self.queues.append(target)
        elif action == "delete" and target in self.queues:
            self.queues.remove(target)
            self.bindings = [b for b in self.bindings if b[:1] != ("bind",) or b[2] != target]
        elif action in ("bind", "link"):
            binding = (action, source, target, key, table)
            if (action == "link" or target in self.queues) and binding not in self.bindings:
                self.bindings.append(binding)
        elif action in ("unbind", "unlink"):
            binding = (action[2:], source, target, key, table)
            self.bindings = [b for b in self.bindings if b != binding]

    def route(self, exchange: str, key: str, headers: dict[str, Any]) -> list[str]:
        reached, found = [exchange], list[str]()
        for current in reached:
            for kind, source, target, pattern, table in self.bindings:
                if source == current and self.matches(current, pattern, table, key, headers):
                    (reached if kind == "link" and target not in reached else found).append(target)
        return [name for name in self.queues if name in found]

    def matches(
        self, exchange: str, pattern: str, table: dict[str, Any], key: str, headers: dict[str, Any]
    ) -> bool:
        kind = dict(EXCHANGES)[exchange]
        if kind == "direct":
            return pattern == key
        if kind == "topic":
            return naive_match(split_words(pattern), split_words(key))
        return kind == "fanout" or HeadersPattern(table).matches(headers)


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_routes_agree_with_naive_model(steps: list[Step]) -> None:
    """After each change, for each exchange: cached or not, the route is what a full search finds."""
    topology, naive = Topology(), Naive()
    topology.queue("q1")
    for name, kind in EXCHANGES:
        topology.exchange(name, kind)
    for action, source, target, key, table in steps:
        if action == "declare":
            topology.queue(target)
        elif action == "delete":
            record = topology.machine.queue("/", target)
            topology.run(commands.delete_queue(1, record.uid if record else 0))
        elif action in ("bind", "unbind"):
            make = commands.bind_queue if action == "bind" else commands.unbind_queue
            topology.run(make(1, "/", target, source, key, table, 7))
        else:
            make_link = commands.bind_exchange if action == "link" else commands.unbind_exchange
            topology.run(make_link(1, "/", target, source, key, table))
        naive.step(action, source, target, key, table)
        for name, _ in EXCHANGES:
            for routing_key, headers in (("a", {}), ("a.b", {"k": 1}), ("", {"l": 1, "k": 1})):
                assert topology.route(name, routing_key, headers) == naive.route(name, routing_key, headers)


class Keeper:
    """Keeps where messages went as a channel does: what was found, as long as the version of the routes stands."""

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        self.version = -1
        self.kept: dict[tuple[str, str], list[str]] = {}

    def route(self, exchange: str, key: str) -> list[str] | None:
        if self.version != self.topology.machine.routes_version:
            self.version = self.topology.machine.routes_version
            self.kept.clear()
        found = self.kept.get((exchange, key)) or self.topology.route(exchange, key)
        if found:
            self.kept[exchange, key] = found
        return found


CHANGES = st.lists(
    st.tuples(st.sampled_from(["declare", "delete"]), QUEUES, st.just(""))
    | st.tuples(st.sampled_from(["bind", "unbind"]), QUEUES, st.sampled_from(["a", "b", "c"]))
    | st.tuples(st.sampled_from(["link", "unlink"]), st.sampled_from(["a", "b"]), st.sampled_from(["b", "c"]))
    | st.tuples(st.sampled_from(["make", "remove"]), st.sampled_from(["a", "b", "c"]), st.just("")),
    max_size=30,
)
ALTERNATES = {"a": {"alternate-exchange": "c"}, "b": {"alternate-exchange": ""}, "c": {}}


@settings(max_examples=300, deadline=None)
@given(CHANGES)
def test_kept_route_is_that_of_today_while_its_version_stands(steps: list[tuple[str, str, str]]) -> None:
    """A new queue or exchange leaves the version alone where nothing that was found before can be wrong now."""
    topology = Topology()
    keeper = Keeper(topology)
    for action, one, other in steps:
        if action == "declare":
            topology.queue(one)
        elif action == "delete":
            record = topology.machine.queue("/", one)
            topology.run(commands.delete_queue(1, record.uid if record else 0))
        elif action == "make":
            topology.exchange(one, "direct", arguments=ALTERNATES[one])
        elif action == "remove":
            topology.run(commands.delete_exchange(1, "/", one, if_unused=False))
        elif action in ("bind", "unbind"):
            make = commands.bind_queue if action == "bind" else commands.unbind_queue
            topology.run(make(1, "/", one, other, "q1", {}, 7))
        else:
            make_link = commands.bind_exchange if action == "link" else commands.unbind_exchange
            topology.run(make_link(1, "/", other, one, "q1", {}))
        for exchange in ("", "a", "b", "c"):
            for key in ("q1", "q2"):
                assert keeper.route(exchange, key) == topology.route(exchange, key)


def test_declaring_a_queue_leaves_the_routes_of_others_alone() -> None:
    """Publishers would have to look for theirs again, with each declaration of anybody."""
    topology = Topology()
    topology.queue("q")
    version = topology.machine.routes_version
    topology.queue("p")
    topology.exchange("x", "fanout")
    assert topology.machine.routes_version == version
    topology.bind("x", "p")
    assert topology.machine.routes_version > version


def test_new_queue_is_reached_from_an_exchange_that_had_another_way() -> None:
    """The default exchange as an alternate, behind an exchange that also routes elsewhere: what was kept is wrong."""
    topology = Topology()
    topology.queue("p")
    topology.exchange("x", "fanout")
    topology.exchange("y", "direct", arguments={"alternate-exchange": ""})
    topology.bind("x", "p")
    topology.link("x", "y")
    assert topology.route("x", "q") == ["p"]
    version = topology.machine.routes_version
    topology.queue("q")
    assert topology.machine.routes_version > version
    assert topology.route("x", "q") == ["p", "q"]


def test_ten_thousand_bindings_are_fast() -> None:
    """Binding, matching and deleting cost what they touch: 10k bindings in well under 3 s."""
    topology = Topology()
    started = time.perf_counter()
    for number in range(1000):
        name, keys = f"q{number}", [f"{number}.*.{n}" for n in range(10)]
        binds = [commands.bind_queue(0, "/", name, "amq.topic", key, {}, 1) for key in keys]
        topology.run(queue(name), *binds)
    for number in range(1000):
        assert topology.route("amq.topic", f"{number}.x.3") == [f"q{number}"]
    for record in list(topology.machine.queues()):
        topology.run(commands.delete_queue(0, record.uid))
    assert topology.route("amq.topic", "1.x.3") == []
    assert time.perf_counter() - started < 3
