"""Clients as most tests of sessions begin with them."""

from node.wire import methods as m
from tests.session.client import Client
from tests.session.loopback import Loopback


def ready(broker: Loopback, *capabilities: str) -> Client:
    """A client with the durable queue q."""
    client = broker.connect().login(capabilities=capabilities).open()
    client.call(m.QueueDeclare(queue="q", durable=True), m.QueueDeclareOk)
    return client


def ready_count(client: Client) -> int:
    """The ready messages in q, as a watching client is told."""
    return client.call(m.QueueDeclare(queue="q", passive=True), m.QueueDeclareOk, channel=9).message_count


def watched(broker: Loopback) -> Client:
    """A client on channel 9 that looks on."""
    return broker.connect().login().open(9)
