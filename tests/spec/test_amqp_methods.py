"""The methods of AMQP 0-9-1 with RabbitMQ's extensions, typed in from the specification, not from our code.

Each line: class id, method id, name (`*` synchronous, `#` with content), the arguments by domain type.
o octet, s short, l long, L longlong, b bit, S shortstr, X longstr, T table.
"""

from __future__ import annotations

import pytest

from node.wire.methods import Method, all_methods

SPECIFICATION = """
10 10 connection.start* ooTXX
10 11 connection.start-ok TSXS
10 20 connection.secure* X
10 21 connection.secure-ok X
10 30 connection.tune* sls
10 31 connection.tune-ok sls
10 40 connection.open* SSb
10 41 connection.open-ok S
10 50 connection.close* sSss
10 51 connection.close-ok -
10 60 connection.blocked S
10 61 connection.unblocked -
10 70 connection.update-secret* XS
10 71 connection.update-secret-ok -
20 10 channel.open* S
20 11 channel.open-ok X
20 20 channel.flow* b
20 21 channel.flow-ok b
20 40 channel.close* sSss
20 41 channel.close-ok -
30 10 access.request* Sbbbbb
30 11 access.request-ok s
40 10 exchange.declare* sSSbbbbbT
40 11 exchange.declare-ok -
40 20 exchange.delete* sSbb
40 21 exchange.delete-ok -
40 30 exchange.bind* sSSSbT
40 31 exchange.bind-ok -
40 40 exchange.unbind* sSSSbT
40 51 exchange.unbind-ok -
50 10 queue.declare* sSbbbbbT
50 11 queue.declare-ok Sll
50 20 queue.bind* sSSSbT
50 21 queue.bind-ok -
50 30 queue.purge* sSb
50 31 queue.purge-ok l
50 40 queue.delete* sSbbb
50 41 queue.delete-ok l
50 50 queue.unbind* sSSST
50 51 queue.unbind-ok -
60 10 basic.qos* lsb
60 11 basic.qos-ok -
60 20 basic.consume* sSSbbbbT
60 21 basic.consume-ok S
60 30 basic.cancel* Sb
60 31 basic.cancel-ok S
60 40 basic.publish# sSSbb
60 50 basic.return# sSSS
60 60 basic.deliver# SLbSS
60 70 basic.get* sSb
60 71 basic.get-ok# LbSSl
60 72 basic.get-empty S
60 80 basic.ack Lb
60 90 basic.reject Lb
60 100 basic.recover-async b
60 110 basic.recover* b
60 111 basic.recover-ok -
60 120 basic.nack Lbb
85 10 confirm.select* b
85 11 confirm.select-ok -
90 10 tx.select* -
90 11 tx.select-ok -
90 20 tx.commit* -
90 21 tx.commit-ok -
90 30 tx.rollback* -
90 31 tx.rollback-ok -
"""
ROWS = [line.split() for line in SPECIFICATION.strip().splitlines()]
LETTERS = {
    "Octet": "o",
    "Short": "s",
    "Long": "l",
    "Longlong": "L",
    "Bit": "b",
    "Shortstr": "S",
    "Longstr": "X",
    "Table": "T",
}
# What a client that was not written by us puts on the wire, by pamqp's encoders.
WIRE: dict[str, tuple[str, dict[str, object]]] = {
    "queue.declare": ("0032000a000001710200000000", {"queue": "q", "durable": True}),
    "basic.qos": ("003c000a00000000000501", {"prefetch_count": 5, "global_": True}),
    "basic.nack": ("003c0078000000000000000903", {"delivery_tag": 9, "multiple": True}),
    "basic.deliver": (
        "003c003c01630000000000000007010165016b",
        {"consumer_tag": "c", "delivery_tag": 7, "redelivered": True, "exchange": "e", "routing_key": "k"},
    ),
    "connection.tune": (
        "000a001e07ff00020000003c",
        {"channel_max": 2047, "frame_max": 131072, "heartbeat": 60},
    ),
    "channel.close": (
        "001400280194024e460032000a",
        {"reply_code": 404, "reply_text": "NF", "failed_class_id": 50, "failed_method_id": 10},
    ),
}
BY_NAME: dict[str, type[Method]] = {made.name: made for made in all_methods()}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[2])
def test_method_is_as_specified(row: list[str]) -> None:
    """AMQP 0-9-1 section 1 (classes and methods), with the extensions of RabbitMQ."""
    class_id, method_id, name, arguments = row
    made = BY_NAME[name.rstrip("*#")]
    assert (made.class_id, made.method_id) == (int(class_id), int(method_id))
    assert made.synchronous == name.endswith("*")
    assert made.has_content == name.endswith("#")
    assert "".join(LETTERS[kind] for _, kind in made.layout) == arguments.rstrip("-")


def test_there_is_no_other_method() -> None:
    """Nothing beyond the specification and its known extensions is taken."""
    assert sorted(BY_NAME) == sorted(row[2].rstrip("*#") for row in ROWS)


@pytest.mark.parametrize("made", all_methods(), ids=lambda made: made.name)
def test_class_is_named_after_the_method(made: type[Method]) -> None:
    assert made.__name__.lower() == made.name.replace(".", "").replace("-", "")


@pytest.mark.parametrize("name", WIRE)
def test_method_has_the_bytes_of_the_specification(name: str) -> None:
    expected, fields = WIRE[name]
    assert BY_NAME[name](**fields).encode().hex() == expected
