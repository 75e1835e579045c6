"""Special messages: what their properties ask, and how it reaches the queues."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.broker import commands_read, topology_commands
from node.broker.commands import Kind, Options
from node.broker.effects import Refused, Reply
from node.session.sorter import _told_apart
from node.wire import methods as m
from node.wire.primitives import LongstrBytes, Timestamp
from node.wire.properties import BasicProperties
from tests.session.client import Client, Received, content
from tests.session.loopback import Loopback

PUBLISH = {"reply_code": 406, "failed_class_id": 60, "failed_method_id": 40}


def _ready(broker: Loopback, *, user: str = "guest", queues: tuple[str, ...] = ("q",)) -> Client:
    client = broker.connect().login(user=user).open()
    for queue in queues:
        client.call(m.QueueDeclare(queue=queue, durable=True), m.QueueDeclareOk)
    client.call(m.ConfirmSelect(), m.ConfirmSelectOk)
    for queue in queues:  # the first message to a queue has its group create it
        client.publish(queue, b"")
        _get(client, queue)
    client.take()
    broker.commands.clear()
    return client


def _declare(broker: Loopback, name: str, arguments: dict[str, Any]) -> None:
    """A queue with arguments, as another node's client would declare it."""
    command = topology_commands.declare_queue(
        0,
        "/",
        name,
        durable=True,
        exclusive=False,
        auto_delete=False,
        arguments=arguments,
        group=broker.place("/", name),
        session=0,
    )
    broker.submit_elsewhere(0, command)
    broker.run()


def _get(client: Client, queue: str = "q") -> Received:
    client.take()
    client.send(1, m.BasicGet(queue=queue, no_ack=True))
    (received,) = client.take()
    return received


def _runs(broker: Loopback) -> list[tuple[int, Options | None]]:
    """Count and options of each enqueue that this node has submitted since the last call."""
    found: list[tuple[int, Options | None]] = []
    for _, data in broker.commands:
        if data[0] == Kind.ENQUEUE:
            found.append((commands_read.decode_enqueue(data, 5, len(data))[1], None))
        elif data[0] == Kind.ENQUEUE_WITH:
            _, count, _, options = commands_read.decode_enqueue_with(data, 5, len(data))
            found.append((count, options))
    broker.commands.clear()
    return found


def _close_text(client: Client) -> str:
    (close,) = [method for method in client.take_methods() if isinstance(method, m.ChannelClose)]
    assert {key: getattr(close, key) for key in PUBLISH} == PUBLISH
    return str(close.reply_text.removeprefix("PRECONDITION_FAILED - "))


def _options_of(**properties: Any) -> Options | None:
    broker = Loopback()
    client = _ready(broker)
    client.publish("q", b"x", properties=BasicProperties(**properties))
    assert client.take_methods() == [m.BasicAck(2, multiple=False)]
    ((count, options),) = _runs(broker)
    assert count == 1
    return options


def _refusal_of(**properties: Any) -> str:
    client = _ready(Loopback())
    client.publish("q", b"x", properties=BasicProperties(**properties))
    return _close_text(client)


# user-id


def test_user_id_of_the_publisher_is_taken() -> None:
    assert _options_of(user_id="guest") is None


def test_user_id_of_another_is_refused() -> None:
    expected = "user_id property set to 'root' but authenticated user was 'guest'"
    assert _refusal_of(user_id="root") == expected


def test_user_id_is_judged_before_the_expiration() -> None:
    """RabbitMQ's order of checks."""
    expected = "user_id property set to 'root' but authenticated user was 'guest'"
    assert _refusal_of(user_id="root", expiration="x") == expected


def test_impersonator_may_claim_any_user_id() -> None:
    broker = Loopback()
    broker.submit_elsewhere(0, topology_commands.add_user(0, "proxy", b"s", b"h", ("impersonator",)))
    broker.submit_elsewhere(
        0, topology_commands.set_permissions(0, "proxy", "/", configure=".*", write=".*", read=".*")
    )
    broker.run()
    client = _ready(broker, user="proxy")
    client.publish("q", b"x", properties=BasicProperties(user_id="root"))
    received = _get(client)
    assert (received.body, received.properties.user_id) == (b"x", "root")


# expiration and priority


@pytest.mark.parametrize(
    ("text", "ttl_ms"), [("0", 0), ("60000", 60000), ("+7", 7), ("007", 7), ("315360000000", 315360000000)]
)
def test_expiration_is_the_time_to_live(text: str, ttl_ms: int) -> None:
    assert _options_of(expiration=text) == Options(ttl_ms=ttl_ms)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("12x", '{leftover_string,"x"}'),
        ("1.5", '{leftover_string,".5"}'),
        ('1"\\', '{leftover_string,"\\"\\\\"}'),
        ("1\t\x1b", '{leftover_string,"\\t\\e"}'),
        ("1\x01", "{leftover_string,[1]}"),
        ("1é", '{leftover_string,"é"}'),
        ("1€", "{leftover_string,[226,130,172]}"),
        ("", "no_integer"),
        ("abc", "no_integer"),
        (" 1", "no_integer"),
        ("-", "no_integer"),
        ("-1", "{value_negative,-1}"),
        ("315360000001", "{value_too_large,315360000001}"),
    ],
)
def test_expiration_that_is_no_time_is_refused(text: str, reason: str) -> None:
    assert _refusal_of(expiration=text) == f"invalid expiration '{text}': {reason}"


def test_priority_that_no_queue_tells_apart_asks_nothing() -> None:
    """Else each change of priority would cut a run."""
    assert _options_of(priority=5) is None


def test_priority_is_told_up_to_what_the_queue_knows() -> None:
    broker = Loopback()
    client = _ready(broker)
    _declare(broker, "p", {"x-max-priority": 10})
    for priority in (0, 3, 10, 200):
        client.publish("p", b"", properties=BasicProperties(priority=priority))
    assert [options.priority if options else 0 for _, options in _runs(broker)] == [0, 3, 10, 10]


# CC and BCC


def test_cc_and_bcc_are_further_routing_keys_and_bcc_is_not_told() -> None:
    """Sender-selected distribution: each queue once, though two keys lead to it."""
    broker = Loopback()
    client = _ready(broker, queues=("q", "qq", "qqq", "qqqq"))
    headers = {"CC": ["qq", "q", 5], "BCC": ["qqq", LongstrBytes(b"\xff")], "kept": 1}
    client.publish("q", b"x", properties=BasicProperties(headers=headers))
    assert client.take_methods() == [m.BasicAck(5, multiple=False)]
    for queue in ("q", "qq", "qqq"):
        received = _get(client, queue)
        assert received.body == b"x"
        assert received.properties.headers == {"CC": ["qq", "q", 5], "kept": 1}
        assert isinstance(_get(client, queue).method, m.BasicGetEmpty)
    assert isinstance(_get(client, "qqqq").method, m.BasicGetEmpty)


def test_cc_routes_through_topic_bindings_and_only_what_goes_nowhere_reaches_the_alternate_exchange() -> None:
    broker = Loopback()
    client = _ready(broker, queues=("q", "other"))
    alternate = {"alternate-exchange": "amq.fanout"}
    client.call(m.ExchangeDeclare(exchange="t", type="topic", arguments=alternate), m.ExchangeDeclareOk)
    client.call(m.QueueBind(queue="q", exchange="t", routing_key="*.red"), m.QueueBindOk)
    client.call(m.QueueBind(queue="other", exchange="amq.fanout"), m.QueueBindOk)
    for cc in (["my.red"], ["my.blue"]):
        client.publish("none", b"x", exchange="t", properties=BasicProperties(headers={"CC": cc}))
    assert [_get(client, queue).body for queue in ("q", "q", "other", "other")] == [b"x", None, b"x", None]


@pytest.mark.parametrize(
    ("headers", "term"),
    [
        ({"CC": "q"}, '{unacceptable_type_in_header,"CC",longstr}'),
        ({"BCC": 1}, '{unacceptable_type_in_header,"BCC",signedint}'),
        ({"BCC": None, "CC": {}}, '{unacceptable_type_in_header,"CC",table}'),
    ],
)
def test_cc_and_bcc_must_be_arrays(headers: dict[str, Any], term: str) -> None:
    assert _refusal_of(headers=headers) == f"invalid message: {term}"


def test_mandatory_message_is_returned_when_no_key_leads_anywhere() -> None:
    broker = Loopback()
    client = _ready(broker)
    headers = {"BCC": ["nobody"]}
    client.publish("none", b"x", mandatory=True, properties=BasicProperties(headers=headers))
    returned, ack = client.take()
    assert (returned.method.reply_text, returned.body, returned.properties.headers) == ("NO_ROUTE", b"x", {})
    assert ack.method == m.BasicAck(2, multiple=False)
    assert broker.frontend.pending_bytes == 0


def test_headers_exchange_sees_each_special_message() -> None:
    client = _ready(Loopback())
    client.call(m.QueueBind(queue="q", exchange="amq.headers", arguments={"kind": "a"}), m.QueueBindOk)
    for kind in ("a", "b", "a"):
        properties = BasicProperties(headers={"kind": kind}, expiration="60000")
        client.publish("", kind.encode(), exchange="amq.headers", properties=properties)
    assert [_get(client).body for _ in range(3)] == [b"a", b"a", None]


# x-delay, x-deliver-at, x-dedup-id


@pytest.mark.parametrize(
    ("headers", "options"),
    [
        ({"x-delay": 5000}, Options(delay_ms=5000)),
        ({"x-delay": "5000"}, Options(delay_ms=5000)),
        ({"x-delay": 1500.7}, Options(delay_ms=1500)),
        ({"x-delay": 4294967295}, Options(delay_ms=4294967295)),
        ({"x-delay": 0}, None),
        ({"x-delay": -5000}, None),
        ({"x-deliver-at": 1_800_000_000_000}, Options(deliver_at_ms=1_800_000_000_000)),
        ({"x-deliver-at": Timestamp(1_800_000_000)}, Options(deliver_at_ms=1_800_000_000_000)),
        ({"x-dedup-id": ""}, None),
        ({"x-dedup-id": "é" * 127}, Options(dedup_ids=("é".encode() * 127,))),
    ],
)
def test_headers_become_options(headers: dict[str, Any], options: Options | None) -> None:
    assert _options_of(headers=headers) == options


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        ({"x-delay": "soon"}, "invalid x-delay 'soon': no_integer"),
        ({"x-delay": True}, "invalid x-delay 'true': no_integer"),
        ({"x-delay": float("nan")}, "invalid x-delay 'nan': no_integer"),
        ({"x-delay": 1 << 32}, "invalid x-delay '4294967296': {value_too_large,4294967296}"),
        ({"x-deliver-at": None}, "invalid x-deliver-at 'undefined': no_integer"),
        ({"x-deliver-at": 1 << 62}, f"invalid x-deliver-at '{1 << 62}': {{value_too_large,{1 << 62}}}"),
        ({"x-dedup-id": 7}, "invalid x-dedup-id: expected longstr, got signedint"),
        ({"x-dedup-id": "x" * 256}, "invalid x-dedup-id: longer than 255 bytes"),
    ],
)
def test_headers_that_make_no_sense_are_refused(headers: dict[str, Any], text: str) -> None:
    assert _refusal_of(headers=headers) == text


# runs


def test_messages_that_ask_the_same_make_one_run() -> None:
    broker = Loopback()
    client = _ready(broker)
    client.write(
        b"".join(
            content(
                1,
                "q",
                name,
                properties=BasicProperties(expiration="9", headers={"x-dedup-id": name.decode()}),
            )
            for name in (b"a", b"b", b"c")
        )
    )
    assert _runs(broker) == [(3, Options(ttl_ms=9, dedup_ids=(b"a", b"b", b"c")))]
    assert client.take_methods() == [m.BasicAck(4, multiple=True)]
    assert broker.frontend.pending_bytes == 0


def test_queue_gets_plain_and_special_messages_of_a_burst_in_order() -> None:
    """AMQP 4.7: a run ends where the next message to one of its queues asks something else."""
    broker = Loopback()
    client = _ready(broker, queues=("q", "qq"))
    sent = [("q", None), ("qq", "5"), ("q", "5"), ("q", "6"), ("qq", "5"), ("q", None), ("q", None)]
    client.write(
        b"".join(
            content(1, queue, bytes((at,)), properties=BasicProperties(expiration=expiration))
            for at, (queue, expiration) in enumerate(sent)
        )
    )
    assert client.take_methods() == [m.BasicAck(9, multiple=True)]
    for queue in ("q", "qq"):
        expected = [bytes((at,)) for at, (to, _) in enumerate(sent) if to == queue]
        assert [_get(client, queue).body for _ in expected] == expected


def test_messages_before_a_faulty_one_are_published_and_later_ones_are_not() -> None:
    """Within one run as between runs; and all that was charged is given back."""
    broker = Loopback()
    client, watcher = _ready(broker), _ready(broker)
    expirations = ("60000", "60000", "never", "60000")
    client.write(
        b"".join(
            content(1, "q", bytes((at,)), properties=BasicProperties(expiration=expiration))
            for at, expiration in enumerate(expirations)
        )
    )
    assert _close_text(client) == "invalid expiration 'never': no_integer"
    assert [_get(watcher).body for _ in range(3)] == [b"\0", b"\1", None]
    assert broker.frontend.pending_bytes == 0


def test_faulty_message_is_judged_after_those_before_it_found_their_way() -> None:
    """One that no queue takes waits for the metadata, and the fault behind it waits too."""
    broker = Loopback()
    client = _ready(broker)
    broker.held[0] = None
    frames = [
        content(1, key, b"x", mandatory=True, properties=BasicProperties(expiration=expiration))
        for key, expiration in (("nowhere", "1"), ("nowhere", "x"))
    ]
    client.write(b"".join(frames))
    assert client.take() == []
    del broker.held[0]
    broker.run()
    assert [type(method) for method in client.take_methods()] == [
        m.BasicReturn,
        m.BasicAck,
        m.ChannelClose,
    ]
    assert broker.frontend.pending_bytes == 0


def test_large_message_that_comes_frame_by_frame_is_special_too() -> None:
    broker = Loopback()
    client = _ready(broker)
    whole = content(1, "q", b"x" * 100_000, properties=BasicProperties(expiration="5"))
    client.write(whole[:70_000])
    client.write(whole[70_000:])
    assert _runs(broker) == [(1, Options(ttl_ms=5))]


# nacks


LIMITED = {"x-max-length": 1, "x-overflow": "reject-publish"}


def _held_up(broker: Loopback, client: Client, frames: bytes) -> dict[int, list[int]]:
    """Publish while no group applies; the tickets in each group that await an answer."""
    for group in (1, 2):
        broker.held[group] = None
    broker.commands.clear()
    client.write(frames)
    tickets: dict[int, list[int]] = {}
    for group, data in broker.commands:
        if data[0] in (Kind.ENQUEUE, Kind.ENQUEUE_WITH):
            ticket, _, _ = commands_read.decode_enqueue(data, 5, len(data))
            tickets.setdefault(group, []).append(ticket)
    for group in (1, 2):
        broker.drop_held(group)
    return tickets


def _answer(broker: Loopback, group: int, ticket: int, value: object) -> None:
    broker.frontend.on_effects(group, [Reply(ticket, value)])
    broker.run()


def test_refused_messages_are_nacked_and_the_others_confirmed() -> None:
    broker = Loopback()
    client = _ready(broker)
    _declare(broker, "full", LIMITED)
    tickets = _held_up(broker, client, b"".join(content(1, "full", b"x", mandatory=True) for _ in range(6)))
    ((group, (ticket,)),) = tickets.items()
    _answer(broker, group, ticket, Refused(((1, 2), (4, 5))))
    assert client.take_methods() == [
        m.BasicAck(2, multiple=False),
        m.BasicNack(4, multiple=True),
        m.BasicAck(5, multiple=False),
        m.BasicNack(7, multiple=True),
    ]
    assert broker.frontend.pending_bytes == 0


def test_refusals_count_within_the_messages_of_the_full_queue() -> None:
    """A burst mixes queues: a run that may be refused has a ticket of its own, though it shares its group."""
    broker = Loopback()
    client = _ready(broker)
    _declare(broker, "small", LIMITED)
    keys = ("q", "small", "q", "small", "small", "q")
    tickets = _held_up(broker, client, b"".join(content(1, key, b"x") for key in keys))
    ((group, (plain, full)),) = tickets.items()
    _answer(broker, group, full, Refused(((0, 1),)))
    assert client.take_methods() == [
        m.BasicNack(3, multiple=False),
        m.BasicNack(5, multiple=False),
        m.BasicAck(6, multiple=False),
    ]
    _answer(broker, group, plain, 0)
    assert client.take_methods() == [m.BasicAck(7, multiple=True)]


def test_message_that_one_of_its_queues_refused_is_nacked_once_all_have_answered() -> None:
    """RabbitMQ: a message is confirmed when every queue has it."""
    broker = Loopback()
    client = _ready(broker)
    for queue in ("full", "small"):
        _declare(broker, queue, LIMITED)
        client.call(m.QueueBind(queue=queue, exchange="amq.fanout"), m.QueueBindOk)
    tickets = _held_up(
        broker, client, b"".join(content(1, "", b"x", exchange="amq.fanout") for _ in range(4))
    )
    (one, (first,)), (other, (second,)) = tickets.items()
    _answer(broker, one, first, Refused(((1, 1),)))
    assert client.take() == []
    _answer(broker, other, second, Refused(((0, 1),)))
    assert client.take_methods() == [m.BasicNack(3, multiple=True), m.BasicAck(5, multiple=True)]


def test_refusal_without_confirms_tells_nobody() -> None:
    broker = Loopback()
    _declare(broker, "full", LIMITED)
    client = broker.connect().login().open()
    ((group, (ticket,)),) = _held_up(broker, client, content(1, "full", b"x", mandatory=True)).items()
    _answer(broker, group, ticket, Refused(((0, 0),)))
    assert client.take() == []
    assert broker.frontend.pending_bytes == 0


RANGES = st.lists(st.tuples(st.integers(1, 4), st.integers(0, 3)), max_size=6)


@given(RANGES, st.lists(st.tuples(st.integers(0, 30), st.integers(0, 6)), max_size=5))
def test_told_apart_agrees_with_counting(gaps: list[tuple[int, int]], refused: list[tuple[int, int]]) -> None:
    """Each position is one number; the naive model writes them all out."""
    numbers, at = [], 0
    for gap, more in gaps:
        numbers.append((at + gap, at + gap + more))
        at += gap + more
    positions = sorted((first, first + more) for first, more in refused)
    taken, given_back = _told_apart(numbers, positions)
    flat = [number for first, last in numbers for number in range(first, last + 1)]
    bad = {position for first, last in positions for position in range(first, last + 1)}
    assert _flat(taken) == [number for position, number in enumerate(flat) if position not in bad]
    assert _flat(given_back) == [number for position, number in enumerate(flat) if position in bad]


def _flat(ranges: list[tuple[int, int]]) -> list[int]:
    return [number for first, last in ranges for number in range(first, last + 1)]


def test_priorities_of_a_burst_make_a_run_each_and_keep_their_order() -> None:
    """A queue that tells them apart needs no order between them; one that does not keeps it."""
    broker = Loopback()
    client = broker.connect().login().open()
    arguments = {"x-max-priority": 2}
    client.call(m.QueueDeclare(queue="q", durable=True, arguments=arguments), m.QueueDeclareOk)
    client.call(m.QueueDeclare(queue="plain", durable=True), m.QueueDeclareOk)

    def publish(queue: str) -> int:
        before = broker.submitted
        client.write(
            b"".join(
                content(1, queue, b"%d" % number, properties=BasicProperties(priority=number % 5))
                for number in range(30)
            )
        )
        return broker.submitted - before

    def taken(queue: str) -> list[int]:
        client.send(1, *[m.BasicGet(queue=queue, no_ack=True)] * 30)
        return [int(item.body or b"") for item in client.take()]

    assert publish("q") == 1 + 3  # with the command that hands the queue to its group
    assert taken("q") == sorted(range(30), key=lambda number: -min(number % 5, 2))
    assert publish("plain") == 1 + 1
    assert taken("plain") == list(range(30))
