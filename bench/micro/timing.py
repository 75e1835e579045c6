"""How the micro benchmarks measure: the best of several rounds, for the machine only ever makes things slower."""

import time
from collections.abc import Callable

ROUND_S = 0.02


def best_us(call: Callable[[], object], rounds: int = 9) -> float:
    """Microseconds a call in the best round; each round takes about ROUND_S."""
    began = time.perf_counter()
    call()
    calls = max(1, int(ROUND_S / (time.perf_counter() - began + 1e-9)))
    best = float("inf")
    for _ in range(rounds):
        began = time.perf_counter()
        for _ in range(calls):
            call()
        best = min(best, time.perf_counter() - began)
    return best / calls * 1e6
