"""Sequences of operations from a seed. A seed has a theme, which says what is likely; everything is possible."""

import random
from collections.abc import Callable
from typing import Any

from integration.differential.arguments import (
    EXCHANGE_TYPES,
    bindings,
    headers_of,
    queue_arguments,
    quorum_arguments,
)
from integration.differential.steps import Step
from node.wire.methods import (
    BasicAck,
    BasicCancel,
    BasicConsume,
    BasicGet,
    BasicNack,
    BasicPublish,
    BasicQos,
    BasicRecover,
    BasicReject,
    ChannelClose,
    ConfirmSelect,
    ConnectionClose,
    ExchangeBind,
    ExchangeDeclare,
    ExchangeDelete,
    ExchangeUnbind,
    Method,
    QueueBind,
    QueueDeclare,
    QueueDelete,
    QueuePurge,
    QueueUnbind,
    TxCommit,
    TxRollback,
    TxSelect,
)
from node.wire.properties import BasicProperties

STEPS_MIN, STEPS_MAX = 8, 30
REPLY_QUEUE = "amq.rabbitmq.reply-to"
KEYS = ("", "a", "b", "a.b", "a.b.c", "x")

THEMES: tuple[dict[str, int], ...] = (
    # what exists and what does not
    {"declare": 8, "exchange": 6, "bind": 4, "unbind": 2, "exchange_bind": 2, "exchange_unbind": 1, "delete": 3,
     "exchange_delete": 3, "publish": 2, "get": 1, "purge": 1, "close": 1},
    # where messages go
    {"declare": 2, "exchange": 3, "bind": 8, "unbind": 2, "exchange_bind": 3, "exchange_unbind": 1, "publish": 14,
     "get": 4, "exchange_delete": 1},
    # get and settle
    {"declare": 2, "publish": 10, "get": 10, "settle": 10, "recover": 1, "purge": 1, "delete": 1, "close": 1},
    # consumers
    {"declare": 2, "publish": 12, "consume": 6, "cancel": 2, "qos": 2, "settle": 10, "recover": 1, "delete": 1,
     "get": 1, "close": 1, "purge": 1},
    # limits and dead letters
    {"declare": 2, "publish": 16, "get": 5, "settle": 5, "consume": 1, "purge": 1, "confirm": 1, "bind": 2},
    # transactions
    {"declare": 2, "publish": 10, "get": 5, "settle": 8, "tx": 3, "commit": 5, "rollback": 3, "consume": 1,
     "bind": 1, "confirm": 1, "delete": 1, "close": 1},
    # confirms
    {"declare": 2, "publish": 14, "confirm": 4, "tx": 1, "bind": 2, "exchange": 1, "get": 2, "consume": 1,
     "delete": 1},
    # everything
    {"declare": 3, "exchange": 2, "bind": 3, "unbind": 1, "exchange_bind": 1, "exchange_unbind": 1, "delete": 1,
     "exchange_delete": 1, "publish": 10, "get": 4, "consume": 2, "cancel": 1, "qos": 1, "settle": 6, "recover": 1,
     "purge": 1, "tx": 1, "commit": 1, "rollback": 1, "confirm": 1, "close": 1, "hang_up": 1},
    # quorum queues
    {"declare": 2, "publish": 12, "get": 5, "settle": 8, "consume": 3, "cancel": 1, "qos": 1, "recover": 1,
     "purge": 1, "delete": 1, "confirm": 1, "tx": 1, "commit": 1, "close": 1},
    # requests and replies, and queues that end by themselves
    {"ask": 6, "reply": 6, "consume": 2, "publish": 4, "get": 1, "settle": 2, "expire": 2, "close": 1, "declare": 1,
     "cancel": 1},
)  # fmt: skip
CREATING, ROUTING, GETTING, CONSUMING, LIMITS, TRANSACTIONS, CONFIRMS, ALL, QUORUM, REPLIES = range(
    len(THEMES)
)


class Generator:
    """Makes the steps of one seed."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._theme = seed % len(THEMES)
        self._prefix = f"d{seed}."
        self._queues = [f"{self._prefix}q{number}" for number in range(3)]
        self._exchanges = [f"{self._prefix}x{number}" for number in range(3)]
        self._types: dict[str, str] = {}
        self._has_priorities = False
        self._bodies = 0
        self._tags = 0

    def steps(self) -> list[Step]:
        """The whole sequence: first something to work with, then what the theme brings."""
        made = self._opening()
        kinds, weights = zip(*THEMES[self._theme].items(), strict=True)
        for kind in self._chance.choices(kinds, weights, k=self._chance.randint(STEPS_MIN, STEPS_MAX)):
            step: Callable[[], Step] = getattr(self, f"_{kind}")
            made.append(self._placed(step()))
        return made

    def _opening(self) -> list[Step]:
        if self._theme == CREATING:
            return []
        if self._theme == REPLIES:
            return [
                Step(QueueDeclare(queue=self._queues[0])),
                Step(BasicConsume(queue=REPLY_QUEUE, no_ack=not self._one_in(10), consumer_tag="replies")),
            ]
        made = [Step(self._declaration(name)) for name in self._queues[: self._chance.choice((1, 2, 3))]]
        if self._theme in (ROUTING, LIMITS, CONFIRMS, ALL):
            for name in self._exchanges[:2]:
                self._types[name] = self._chance.choice(("direct", "fanout", "topic", "headers"))
                made.append(Step(ExchangeDeclare(exchange=name, type=self._types[name])))
            made += [self._bind() for _ in range(3)]
        if self._theme == TRANSACTIONS:
            made.append(Step(TxSelect()))
        if self._theme == CONFIRMS:
            made.append(Step(ConfirmSelect()))
        return made

    def _placed(self, step: Step) -> Step:
        """Sometimes on another channel, rarely on another connection."""
        if self._theme in (CREATING, ALL, CONSUMING) and self._one_in(8):
            step.connection = 1
        if self._theme in (CONSUMING, ALL) and self._one_in(4):
            step.channel = 2
        return step

    def _one_in(self, count: int) -> bool:
        return self._chance.randrange(count) == 0

    def _queue(self) -> str:
        """Mostly one that should be there."""
        chance = self._chance.randrange(40)
        if chance == 0:
            return f"{self._prefix}none"
        if chance == 1:
            return ""
        if chance == 2:
            return "amq.gen#0"
        return self._chance.choice(self._queues)

    def _exchange_name(self) -> str:
        chance = self._chance.randrange(30)
        if chance == 0:
            return f"{self._prefix}none"
        if chance == 1:
            return ""
        if chance == 2:
            return self._chance.choice(("amq.direct", "amq.fanout", "amq.topic", "amq.headers", "amq.match"))
        return self._chance.choice(self._exchanges)

    def _declaration(self, name: str) -> QueueDeclare:
        if self._theme == QUORUM:
            odd = self._one_in(15)
            return QueueDeclare(
                queue=name or self._queues[0],
                durable=not (odd and self._one_in(2)),
                exclusive=odd and self._one_in(2),
                arguments=quorum_arguments(self._chance, self._queues),
            )
        arguments = queue_arguments(
            self._chance, self._queues, self._exchanges, rich=self._theme in (CREATING, LIMITS), queue=name,
            wrong=self._theme in (CREATING, ALL),
        )  # fmt: skip
        self._has_priorities = self._has_priorities or "x-max-priority" in arguments
        return QueueDeclare(
            queue=name,
            durable=self._chance.random() < 0.6,
            exclusive=self._one_in(8),
            auto_delete=self._one_in(8),
            arguments=arguments,
        )

    # One method for each kind of step

    def _declare(self) -> Step:
        chance = self._chance.randrange(20)
        if chance == 0:
            return Step(self._declaration(""))
        if chance == 1:
            return Step(self._declaration("amq.q" if self._one_in(2) else "amq.gen#0"))
        method = self._declaration(self._queue())
        if chance < 7:
            method.passive = True
        if chance == 7:
            method.no_wait = True
        if chance > 14:
            method.arguments = {}
        return Step(method)

    def _exchange(self) -> Step:
        name = self._exchange_name()
        kind = self._types.get(name) if self._chance.random() < 0.6 else None
        kind = kind or self._chance.choice(EXCHANGE_TYPES)
        self._types.setdefault(name, kind)
        arguments: dict[str, Any] = {}
        if self._one_in(5):
            arguments["alternate-exchange"] = self._chance.choice(
                [*self._exchanges, f"{self._prefix}none", ""]
            )
        if self._theme == CREATING and self._one_in(12):
            arguments["alternate-exchange"] = self._chance.choice([7, True, None])
        return Step(
            ExchangeDeclare(
                exchange=name if self._chance.randrange(25) else "amq.mine",
                type=kind,
                passive=self._one_in(6),
                durable=self._one_in(3),
                auto_delete=self._one_in(6),
                internal=self._one_in(10),
                no_wait=self._one_in(12),
                arguments=arguments,
            )
        )

    def _bind(self) -> Step:
        exchange = self._exchange_name()
        key, arguments = bindings(self._chance, self._types.get(exchange, "direct"))
        return Step(
            QueueBind(
                queue=self._queue(),
                exchange=exchange,
                routing_key=key,
                arguments=arguments,
                no_wait=self._one_in(15),
            )
        )

    def _unbind(self) -> Step:
        exchange = self._exchange_name()
        key, arguments = bindings(self._chance, self._types.get(exchange, "direct"))
        return Step(QueueUnbind(queue=self._queue(), exchange=exchange, routing_key=key, arguments=arguments))

    def _exchange_bind(self) -> Step:
        source = self._exchange_name()
        key, arguments = bindings(self._chance, self._types.get(source, "direct"))
        return Step(
            ExchangeBind(
                destination=self._exchange_name(), source=source, routing_key=key, arguments=arguments
            )
        )

    def _exchange_unbind(self) -> Step:
        source = self._exchange_name()
        key, arguments = bindings(self._chance, self._types.get(source, "direct"))
        return Step(
            ExchangeUnbind(
                destination=self._exchange_name(), source=source, routing_key=key, arguments=arguments
            )
        )

    def _delete(self) -> Step:
        return Step(
            QueueDelete(
                queue=self._queue(),
                if_unused=self._one_in(4),
                if_empty=self._one_in(4),
                no_wait=self._one_in(12),
            )
        )

    def _exchange_delete(self) -> Step:
        return Step(
            ExchangeDelete(
                exchange=self._exchange_name(), if_unused=self._one_in(3), no_wait=self._one_in(12)
            )
        )

    def _publish(self) -> Step:
        exchange, key = "", self._queue()
        if self._theme in (ROUTING, CONFIRMS, ALL, CREATING) and self._chance.random() < 0.7:
            exchange, key = self._exchange_name(), self._chance.choice(KEYS)
        self._bodies += 1
        body = f"m{self._bodies}".encode()
        immediate = self._one_in(80)
        if self._one_in(12) and not immediate:
            body += b"." * self._chance.choice((8, 30, 5000, 200_000))
        properties, wait_ms = self._properties()
        return Step(
            BasicPublish(exchange=exchange, routing_key=key, mandatory=self._one_in(3), immediate=immediate),
            properties=properties,
            body=body,
            wait_ms=wait_ms,
        )

    def _properties(self) -> tuple[BasicProperties, int]:
        properties = BasicProperties(delivery_mode=self._chance.choice((None, 1, 2)))
        wait_ms = 0
        if self._theme in (LIMITS, ALL):
            if self._one_in(5):
                properties.priority = self._chance.choice((0, 1, 2, 5, 200))
            if self._one_in(6):
                properties.expiration = self._chance.choice(
                    ("60000", "30", "30", "0", "soon", "-1", "1.5", "")
                )
                if properties.expiration == "30" and self._has_priorities:
                    # What expires behind a message of another priority differs on purpose (docs/deviations.md).
                    properties.expiration = "60000"
                wait_ms = 120 if properties.expiration == "30" else 0
        if self._one_in(15):
            properties.user_id = self._chance.choice(("guest", "guest", "other"))
        if self._one_in(10):
            properties.content_type, properties.correlation_id = "text/plain", "c1"
            properties.message_id, properties.app_id, properties.type = "m1", "app", "kind"
            properties.timestamp, properties.reply_to = 1_700_000_000, "somewhere"
        if self._one_in(3 if self._theme == ROUTING else 10):
            properties.headers = headers_of(self._chance, self._queues)
        return properties, wait_ms

    def _get(self) -> Step:
        return Step(BasicGet(queue=self._queue(), no_ack=self._one_in(4)))

    def _settle(self) -> Step:
        pick = self._chance.randrange(5)
        tag = None
        if self._one_in(25):
            pick, tag = None, self._chance.choice((0, 99))  # type: ignore[assignment]
        kind = self._chance.randrange(10)
        method: Method
        if kind < 5:
            method = BasicAck(delivery_tag=tag or 0, multiple=self._one_in(4))
        elif kind < 8:
            method = BasicNack(delivery_tag=tag or 0, multiple=self._one_in(4), requeue=self._one_in(2))
        else:
            method = BasicReject(delivery_tag=tag or 0, requeue=self._one_in(2))
        return Step(method, pick=pick)

    def _recover(self) -> Step:
        return Step(BasicRecover(requeue=not self._one_in(10)))

    def _ask(self) -> Step:
        self._bodies += 1
        return Step(
            BasicPublish(routing_key=self._queues[0]),
            properties=BasicProperties(reply_to=REPLY_QUEUE, correlation_id=f"c{self._bodies}"),
            body=f"m{self._bodies}".encode(),
        )

    def _reply(self) -> Step:
        """To whom asked, if an address was seen yet; a reply may be mandatory, and the address looked at."""
        address = f"{REPLY_QUEUE}#{0 if self._chance.random() < 0.8 else 1}"
        if self._one_in(6):
            return Step(QueueDeclare(queue=address, passive=not self._one_in(3)))
        self._bodies += 1
        return Step(
            BasicPublish(routing_key=address, mandatory=self._one_in(3)), body=f"m{self._bodies}".encode()
        )

    def _expire(self) -> Step:
        """A queue that has ended when it is looked at next."""
        self._tags += 1
        return Step(
            QueueDeclare(queue=f"{self._prefix}e{self._tags}", arguments={"x-expires": 60}), wait_ms=250
        )

    def _purge(self) -> Step:
        return Step(QueuePurge(queue=self._queue(), no_wait=self._one_in(10)))

    def _consume(self) -> Step:
        self._tags += 1
        tag = f"t{self._tags}" if self._chance.randrange(8) else self._chance.choice(("", "t1"))
        arguments: dict[str, Any] = {}
        if self._one_in(8):
            arguments["x-priority"] = self._chance.choice((0, 5, -3, 5, "high"))
        return Step(
            BasicConsume(
                queue=self._queue(),
                consumer_tag=tag,
                no_ack=self._one_in(3),
                exclusive=self._one_in(8),
                no_local=self._one_in(8),
                no_wait=self._one_in(10) and bool(tag),
                arguments=arguments,
            )
        )

    def _cancel(self) -> Step:
        return Step(BasicCancel(consumer_tag=f"t{self._chance.randint(1, max(1, self._tags))}"))

    def _qos(self) -> Step:
        return Step(
            BasicQos(
                prefetch_count=self._chance.choice((0, 1, 2, 3)),
                global_=self._one_in(4),
                prefetch_size=1 if self._one_in(20) else 0,
            )
        )

    def _tx(self) -> Step:
        return Step(TxSelect())

    def _commit(self) -> Step:
        return Step(TxCommit())

    def _rollback(self) -> Step:
        return Step(TxRollback())

    def _confirm(self) -> Step:
        return Step(ConfirmSelect(no_wait=self._one_in(6)))

    def _close(self) -> Step:
        return Step(ChannelClose(reply_code=200, reply_text="bye"))

    def _hang_up(self) -> Step:
        return Step(ConnectionClose(reply_code=200, reply_text="bye"))


def sequence(seed: int) -> list[Step]:
    """The steps of a seed."""
    return Generator(seed).steps()
