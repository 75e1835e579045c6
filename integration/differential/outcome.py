"""What a step brought, in a form that is equal where two brokers did the same.

Names that a broker made are numbered, times in x-death are left out. Deliveries are told by consumer, since nobody
promises in which order two consumers of a channel are served; everything else of a channel is told in its order.
"""

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from integration.differential.side import is_barrier
from node.wire.methods import BasicCancel, BasicDeliver, ChannelOpenOk, Method
from node.wire.properties import BasicProperties, decode_header
from tests.amqp_client import ChannelGone, ClientEvent, Confirmed, ConnectionGone, Received, Replied

Outcome = dict[str, list[str]]
"""By channel (`0.1`) or consumer (`0.1 tag`): what came."""

UNTOLD = {"BasicDeliver": {"delivery_tag"}}


def outcome_of(events: list[tuple[int, ClientEvent]], known: Callable[[str], str]) -> Outcome:
    """What came of a step. `known`: gives a broker's own names their numbers."""
    told: Outcome = {}
    confirmed: dict[str, tuple[list[int], list[int]]] = {}
    for link, event in events:
        if is_barrier(event) or isinstance(event, ChannelGone):
            continue
        if isinstance(event, ConnectionGone):
            if event.reply_code < 0:
                told.setdefault(f"{link}", []).append(event.reply_text)
            continue
        place = f"{link}.{event.channel}" if hasattr(event, "channel") else f"{link}"
        if isinstance(event, Confirmed):
            confirmed.setdefault(place, ([], []))[not event.ok].extend(event.seqs)
        elif isinstance(event, Received):
            if isinstance(event.method, BasicDeliver):
                place += f" {known(event.method.consumer_tag)}"
            told.setdefault(place, []).append(
                f"{_method(event.method, known)} {_properties(event, known)} {event.body!r}"
            )
        elif isinstance(event, Replied) and not isinstance(event.method, ChannelOpenOk):
            if isinstance(event.method, BasicCancel):
                place += " cancelled"  # nobody says when, compared with other answers
            told.setdefault(place, []).append(_method(event.method, known))
    for place, (acks, nacks) in confirmed.items():
        told.setdefault(f"{place} confirms", []).append(f"ack {sorted(acks)} nack {sorted(nacks)}")
    return told


def _method(method: Method, known: Callable[[str], str]) -> str:
    kind = type(method).__name__
    untold = UNTOLD.get(kind, set())
    values = [
        f"{field.name}={_value(getattr(method, field.name), known)}"
        for field in fields(method)  # type: ignore[arg-type]
        if field.name not in untold
    ]
    return f"{kind}({', '.join(values)})"


def _properties(event: Received, known: Callable[[str], str]) -> str:
    payload = b"\0\x3c\0\0" + len(event.body).to_bytes(8, "big") + event.properties
    _, properties = decode_header(payload)
    values = ((field.name, getattr(properties, field.name)) for field in fields(BasicProperties))
    return (
        "{" + ", ".join(f"{name}={_value(value, known)}" for name, value in values if value is not None) + "}"
    )


def _value(value: Any, known: Callable[[str], str]) -> str:
    """A field value with its type, since a type is part of what a client sees."""
    if isinstance(value, dict):
        items = sorted(value.items())
        if {"reason", "queue", "count"} <= value.keys():
            items = [(key, "a time" if key == "time" else each) for key, each in items]
        return "{" + ", ".join(f"{key}: {_value(each, known)}" for key, each in items) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_value(each, known) for each in value) + "]"
    if isinstance(value, str):
        return repr(known(value))
    kind = type(value)
    return repr(value) if kind in (int, bool, bytes, type(None)) else f"{kind.__name__}({value!r})"
