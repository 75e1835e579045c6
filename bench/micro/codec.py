"""What the codec costs a message: `python -m bench.micro.codec`.

scan of runs of publishes to one exchange, and content_frames of the same as deliveries, for several sizes of body. The
buffers are small enough for the caches, as those that a socket fills are. Best of several rounds, in nanoseconds.
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


def measure(module: ModuleType, body_bytes: int, rounds: int) -> tuple[int, float, float]:
    """Messages in a run, ns a message of scan, ns a message of content_frames."""
    one = publish(b"x" * body_bytes)
    count = max(1, STREAM_BYTES // len(one))
    stream = one * count
    (item,), _ = module.scan(stream, FRAME_MAX, RUN_BYTES_MAX)
    packed, exrk = item[4], item[2][:-1]
    head = struct.pack(">I", 60 << 16 | 60) + b"\x05ctag1"
    scan_ns = best_ns(lambda: module.scan(stream, FRAME_MAX, RUN_BYTES_MAX), count, rounds)
    frames_ns = best_ns(
        lambda: module.content_frames(packed, 0, count, 1, head, 1, b"\x00" + exrk, FRAME_MAX), count, rounds
    )
    return count, scan_ns, frames_ns


def main() -> None:
    """Print one line for each codec and size."""
    parser = argparse.ArgumentParser(description="what the codec costs a message")
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    modules = [codec, reference] if codec.COMPILED else [reference]
    print(f"{'codec':<10} {'body':>6} {'run':>5} {'scan ns':>9} {'frames ns':>9}")
    for module in modules:
        name = "compiled" if module is codec else "reference"
        for body_bytes in BODY_SIZES:
            count, scan_ns, frames_ns = measure(module, body_bytes, rounds)
            print(f"{name:<10} {body_bytes:>6} {count:>5} {scan_ns:>9.0f} {frames_ns:>9.0f}")
        acks = b"".join(method_frame(1, BasicAck(delivery_tag=tag)) for tag in range(1, 1001))
        ack_ns = best_ns(lambda: module.scan(acks, FRAME_MAX, RUN_BYTES_MAX), 1000, rounds)  # noqa: B023
        print(f"{name:<10} {'acks':>6} {1000:>5} {ack_ns:>9.0f}")


if __name__ == "__main__":
    main()
