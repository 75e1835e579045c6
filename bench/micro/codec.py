"""What the codec costs a message: `python -m bench.micro.codec`.

scan of runs of publishes to one exchange, and content_frames of the same as deliveries, for several sizes of
body. `warm`: one buffer again and again, from the caches: what the codec itself costs. `cold`: one pass over
buffers that no cache holds: with what reading them costs on top. Best of several rounds, a message.
"""

from __future__ import annotations

import argparse
import struct
import time
from collections.abc import Callable
from types import ModuleType

from node.wire import codec, reference
from node.wire.methods import BasicAck, BasicPublish, frame, method_frame
from node.wire.properties import BasicProperties, encode_header

FRAME_MAX = 131072
RUN_BYTES_MAX = 262144
STREAM_BYTES = 65536
COLD_BYTES = 64 << 20
ACK_COUNT = 1000
BODY_SIZES = (0, 100, 1024, 16384)


def publish(body: bytes) -> bytes:
    """A publish as most clients send it: persistent, with a content type and two headers."""
    properties = BasicProperties(
        content_type="application/json", headers={"trace": "0123456789abcdef", "attempt": 1}, delivery_mode=2
    )
    method = method_frame(1, BasicPublish(exchange="orders", routing_key="order.created"))
    content = frame(2, 1, encode_header(len(body), properties))
    return method + content + (frame(3, 1, body) if body else b"")


def best_ns(call: Callable[[], object], messages: int, rounds: int) -> float:
    """Nanoseconds a message in the best round; each round takes about 20 ms."""
    began = time.perf_counter()
    call()
    calls = max(1, int(0.02 / (time.perf_counter() - began + 1e-9)))
    best = float("inf")
    for _ in range(rounds):
        began = time.perf_counter()
        for _ in range(calls):
            call()
        best = min(best, time.perf_counter() - began)
    return best / calls / messages * 1e9


def cold_ns(call: Callable[[bytes], object], data: bytes, messages: int, rounds: int) -> float:
    """Nanoseconds a message over COLD_BYTES of copies of `data`, each touched once."""
    copies = [bytes(bytearray(data)) for _ in range(max(1, COLD_BYTES // len(data)))]
    best = float("inf")
    for _ in range(max(1, rounds // 5)):
        began = time.perf_counter()
        for copy in copies:
            call(copy)
        best = min(best, time.perf_counter() - began)
    return best / len(copies) / messages * 1e9


def measure(module: ModuleType, body_bytes: int, rounds: int) -> tuple[int, list[float]]:
    """Messages in a run; ns a message of scan warm and cold, of content_frames warm and cold."""
    one = publish(b"x" * body_bytes)
    count = max(1, STREAM_BYTES // len(one))
    stream = one * count
    (item,), _ = module.scan(stream, FRAME_MAX, RUN_BYTES_MAX)
    ((_, _, packed),) = item[2]
    head = struct.pack(">I", 60 << 16 | 60) + b"\x05ctag1"

    def scan(data: bytes) -> object:
        return module.scan(data, FRAME_MAX, RUN_BYTES_MAX)

    def deliver(data: bytes) -> object:
        return module.content_frames(data, 0, count, 1, head, 1, b"\x00", b"", FRAME_MAX)

    return count, [
        best_ns(lambda: scan(stream), count, rounds),
        cold_ns(scan, stream, count, rounds),
        best_ns(lambda: deliver(packed), count, rounds),
        cold_ns(deliver, packed, count, rounds),
    ]


def main() -> None:
    """Print one line for each codec and size."""
    parser = argparse.ArgumentParser(description="what the codec costs a message")
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    print(f"{'codec':<10} {'body':>6} {'run':>5}   scan warm, cold   frames warm, cold   (ns a message)")
    for name, module in (("compiled", codec), ("reference", reference)):
        if name == "compiled" and not codec.COMPILED:
            continue
        for body_bytes in BODY_SIZES:
            count, figures = measure(module, body_bytes, rounds)
            print(f"{name:<10} {body_bytes:>6} {count:>5}" + "".join(f"{ns:>9.0f}" for ns in figures))
        print(f"{name:<10} {'acks':>6} {ACK_COUNT:>5}{measure_acks(module, rounds):>9.1f}")


def measure_acks(module: ModuleType, rounds: int) -> float:
    """Nanoseconds an acknowledgement of a long range of single ones."""
    acks = b"".join(method_frame(1, BasicAck(delivery_tag=tag)) for tag in range(1, ACK_COUNT + 1))
    return best_ns(lambda: module.scan(acks, FRAME_MAX, RUN_BYTES_MAX), ACK_COUNT, rounds)


if __name__ == "__main__":
    main()
