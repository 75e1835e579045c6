"""Headers exchanges (AMQP 3.1.3.4, with the x-match modes of RabbitMQ), and the arguments of bindings."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.broker.exchange import HeadersPattern, check_binding
from node.broker.values import encode_table
from node.errors import PreconditionFailed
from node.wire.primitives import Long, Timestamp


@pytest.mark.parametrize(
    ("arguments", "headers", "expected"),
    [
        ({}, {}, True),
        ({"a": 1}, {"a": 1, "b": 2}, True),
        ({"a": 1, "b": 2}, {"a": 1}, False),
        ({"x-match": "all", "a": 1}, {"a": 2}, False),
        ({"x-match": "any", "a": 1, "b": 2}, {"b": 2}, True),
        ({"x-match": "any", "a": 1}, {"b": 1}, False),
        ({"x-match": "any"}, {}, False),
        ({"a": None}, {"a": "whatever"}, True),
        ({"a": None}, {}, False),
        ({"a": 1}, {"a": Long(1)}, True),
        ({"a": 1}, {"a": True}, False),
        ({"a": 1}, {"a": 1.0}, True),
        ({"a": 1}, {"a": Timestamp(1)}, True),
        ({"a": "raw"}, {"a": b"raw"}, True),
        ({"a": "1"}, {"a": 1}, False),
        ({"x-a": 1}, {}, True),
        ({"x-match": "all-with-x", "x-a": 1}, {}, False),
        ({"x-match": "all-with-x", "x-a": 1}, {"x-a": 1}, True),
        ({"x-match": "any", "x-a": 1}, {"x-a": 1}, False),
        ({"x-match": "any-with-x", "x-a": 1}, {"x-a": 1}, True),
    ],
)
def test_headers_match(arguments: dict[str, Any], headers: dict[str, Any], expected: bool) -> None:
    """All or any of the conditions are met; type and value count, the width of an integer does not."""
    assert HeadersPattern(arguments).matches(headers) is expected


TABLES = st.dictionaries(
    st.sampled_from(["a", "b", "x-c", "x-d"]), st.sampled_from([1, 2, True, "1", None]), max_size=4
)


@given(TABLES, TABLES, st.sampled_from([None, "all", "any", "all-with-x", "any-with-x"]))
def test_headers_agree_with_definition(
    conditions: dict[str, Any], headers: dict[str, Any], mode: str | None
) -> None:
    """The pattern is the definition, for every mode."""
    counted = {
        k: v for k, v in conditions.items() if not k.startswith("x-") or (mode or "").endswith("with-x")
    }
    met = [
        k in headers and (v is None or (type(v) is type(headers[k]) and v == headers[k]))
        for k, v in counted.items()
    ]
    expected = any(met) if (mode or "all").startswith("any") else all(met)
    arguments = conditions if mode is None else {"x-match": mode, **conditions}
    assert HeadersPattern(arguments).matches(headers) is expected


def test_binding_is_refused_when_x_match_is_unknown() -> None:
    """406 names the value, or its type."""
    with pytest.raises(PreconditionFailed) as refused:
        check_binding("headers", "", encode_table({"x-match": "some"}))
    expected = 'Invalid x-match field value <<"some">>; expected all, any, all-with-x, or any-with-x'
    assert refused.value.text == expected
    with pytest.raises(PreconditionFailed) as refused:
        check_binding("headers", "", encode_table({"x-match": 5}))
    assert refused.value.text == "Invalid x-match field type signedint (value 5); expected longstr"
    check_binding("topic", "", encode_table({"x-match": "some"}))
