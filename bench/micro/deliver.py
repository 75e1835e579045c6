"""What a run costs from the publisher's bytes to the consumer's: python -m bench.micro.deliver.

One node without IO and without Raft (every command is applied at once): codec, protocol, session and queue machine.
`publish`: with nobody to take it; `deliver`: what a consumer adds; `ack`: one multiple ack of the run.
"""

import time
from typing import Any

from node.session.ports import PauseReading, ResumeReading
from node.wire import methods
from node.wire.methods import method_frame
from tests.session.client import Client, content
from tests.session.loopback import Loopback

RUNS = 400
KEPT_BYTES_MAX = 8 << 20
BEST_OF = 5
QUEUES = 10
KEYS = 2000
QUEUE = methods.QueueDeclare(queue="q", durable=True)


class Deaf(Loopback):
    """What the broker writes goes nowhere: a client in Python would cost more than the broker."""

    def _output(self) -> bool:
        if not self.is_deaf:
            return super()._output()
        outputs = self.frontend.take_output()
        assert not any(isinstance(output, PauseReading | ResumeReading) for output in outputs)
        self.written += sum(len(chunk) for output in outputs for chunk in getattr(output, "chunks", ()))
        return bool(outputs) or self.frontend.has_work

    def __init__(self, **bounds: Any) -> None:
        self.is_deaf = False
        self.written = 0
        super().__init__(**bounds)


def measure(count: int, size_bytes: int, *, consume: bool, ack: bool) -> float:
    """Microseconds a run of `count` messages."""
    broker = Deaf()
    publisher, consumer = _client(broker), _client(broker)
    publisher.call(methods.ConfirmSelect(), methods.ConfirmSelectOk)
    publisher.call(QUEUE, methods.QueueDeclareOk)
    if consume:
        consumer.call(methods.BasicConsume(queue="q"), methods.BasicConsumeOk)
    broker.is_deaf = True
    runs = min(RUNS, KEPT_BYTES_MAX // (count * size_bytes))
    run = content(1, "q", bytes(size_bytes)) * count
    acks = [method_frame(1, methods.BasicAck(count * (i + 1), multiple=True)) for i in range(runs)]
    began = time.perf_counter()
    for i in range(runs):
        publisher.write(run)
        if ack:
            consumer.write(acks[i])
    spent = time.perf_counter() - began
    assert broker.written >= runs * count * size_bytes * consume
    return spent / runs * 1e6


def measure_keys(burst: int, size_bytes: int) -> float:
    """Microseconds a message of bursts that go to QUEUES queues, each message with another key."""
    broker = Deaf()
    publisher = _client(broker)
    publisher.call(methods.ConfirmSelect(), methods.ConfirmSelectOk)
    publisher.call(methods.ExchangeDeclare(exchange="t", type="topic"), methods.ExchangeDeclareOk)
    for number in range(QUEUES):
        queue = f"q{number}"
        publisher.call(methods.QueueDeclare(queue=queue, durable=True), methods.QueueDeclareOk)
        bind = methods.QueueBind(queue=queue, exchange="t", routing_key=f"*.{number}")
        publisher.call(bind, methods.QueueBindOk)
        _client(broker).call(methods.BasicConsume(queue=queue, no_ack=True), methods.BasicConsumeOk)
    broker.is_deaf = True
    messages = [content(1, f"{n}.{n % QUEUES}", bytes(size_bytes), exchange="t") for n in range(KEYS)]
    bursts = [b"".join(messages[start : start + burst]) for start in range(0, KEYS, burst)]
    spent = 0.0
    for _ in range(2):  # the first round makes the plans
        began = time.perf_counter()
        for data in bursts:
            publisher.write(data)
        spent = time.perf_counter() - began
    assert broker.written >= 2 * KEYS * size_bytes
    return spent / KEYS * 1e6


def _client(broker: Deaf) -> Client:
    return broker.connect().login(capabilities=("publisher_confirms", "basic.nack")).open()


def main() -> None:
    """One line for each shape of a run."""
    print(f"{'messages':>8} {'bytes':>6} {'publish':>9} {'deliver':>9} {'ack':>9}   (us a run)")
    for count, size_bytes in ((1, 1024), (64, 128), (64, 1024), (4, 16384)):
        steps = ((False, False), (True, False), (True, True))
        costs = [
            min(measure(count, size_bytes, consume=consume, ack=ack) for _ in range(BEST_OF))
            for consume, ack in steps
        ]
        publish, with_consumer, with_ack = costs
        print(
            f"{count:>8} {size_bytes:>6} {publish:>9.1f} {with_consumer - publish:>9.1f} "
            f"{with_ack - with_consumer:>9.1f}"
        )
    for burst in (1, 10, 100):
        cost = min(measure_keys(burst, 256) for _ in range(BEST_OF))
        print(f"{burst:>8} {256:>6} {cost:>9.1f} us a message to {QUEUES} queues, each with another key")


if __name__ == "__main__":
    main()
