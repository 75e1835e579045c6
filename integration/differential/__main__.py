"""python -m integration.differential --seeds 1-2000     (needs Debian's rabbitmq-server)"""

import argparse
import collections
import contextlib
import math
import queue
import re
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from integration.differential.brokers import Missing, both
from integration.differential.generator import sequence
from integration.differential.lockstep import Difference, Lockstep
from integration.differential.shrink import shrunk
from integration.differential.steps import Step

BUILT_IN = re.compile(r"amq\.(?:direct|fanout|topic|headers|match)\b")
"""Exchanges that all sequences have in common, while every other name is of one seed only."""
PROGRESS_SEQUENCES = 100
"""Between two lines that say how far it is: about half a minute."""


@dataclass(slots=True)
class Tally:
    """What the workers found."""

    done: int = 0
    steps: int = 0
    explained: collections.Counter[str] = field(default_factory=collections.Counter)
    failed: list[int] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    built_in: dict[str, threading.Lock] = field(
        default_factory=lambda: collections.defaultdict(threading.Lock)
    )


@contextlib.contextmanager
def _alone(steps: list[Step], tally: Tally) -> Iterator[None]:
    """Meanwhile nobody else uses the built-in exchanges of these steps: the brokers would see it at different times."""
    names = sorted({name for step in steps for name in BUILT_IN.findall(f"{step.method}")})
    with contextlib.ExitStack() as held:
        for name in names:
            with tally.lock:
                lock = tally.built_in[name]
            held.enter_context(lock)
        yield


def play(lockstep: Lockstep, seed: int, tally: Tally, *, shrink: bool) -> None:
    """Run one seed; print what differs."""
    steps = sequence(seed)
    report = ""
    with _alone(steps, tally):
        result = lockstep.run(steps)
        difference = result.difference
        if difference is not None and difference.row is None:
            steps = steps[: difference.step + 1]
            if shrink:
                steps = shrunk(steps, lambda rest: _is_alike(lockstep.run(rest).difference, difference))
                difference = lockstep.run(steps).difference or difference
            report = "\n".join(
                [f"seed {seed}, step {difference.step}:", *(f"  {step}" for step in steps), f"{difference}"]
            )
    with tally.lock:
        tally.done += 1
        tally.steps += result.steps_done
        tally.explained.update(result.explained)
        if difference is not None and difference.row is not None:
            tally.explained[difference.row] += 1
        if report:
            tally.failed.append(seed)
            print(report, flush=True)
        if tally.done % PROGRESS_SEQUENCES == 0:
            print(f"{tally.done} sequences, {len(tally.failed)} differ unexplained", file=sys.stderr)


def _is_alike(found: Difference | None, wanted: Difference) -> bool:
    """Whether a shorter sequence shows a difference of its own that no row explains."""
    return found is not None and found.row is None and wanted.row is None


def run(
    seeds: list[int],
    asked: argparse.Namespace,
    rabbitmq: tuple[str, int],
    warren: list[tuple[str, int]],
) -> Tally:
    """All seeds, a few at a time, each worker against another node of Warren."""
    deadline = time.monotonic() + asked.seconds
    tally, waiting = Tally(), queue.SimpleQueue[int]()
    for seed in seeds:
        waiting.put(seed)

    def work(number: int) -> None:
        lockstep = Lockstep(rabbitmq, warren[number % len(warren)])
        try:
            while time.monotonic() < deadline:
                play(lockstep, waiting.get_nowait(), tally, shrink=not asked.no_shrink)
        except queue.Empty:
            return
        finally:
            lockstep.close()

    workers = [threading.Thread(target=work, args=(number,)) for number in range(asked.jobs)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return tally


def main() -> int:
    """Start both brokers, run, and say how it went."""
    parser = argparse.ArgumentParser(prog="python -m integration.differential", description=__doc__)
    parser.add_argument("--seeds", default="1-2000", help="first-last, or one")
    parser.add_argument("--jobs", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no sequence after so long")
    parser.add_argument("--no-shrink", action="store_true")
    parser.add_argument("--rabbitmq", type=int, help="AMQP port of one that runs")
    parser.add_argument("--warren", type=int, nargs="+", help="AMQP ports of one that runs")
    asked = parser.parse_args()
    first, _, last = asked.seeds.partition("-")
    seeds = list(range(int(first), int(last or first) + 1))
    started = time.monotonic()
    if asked.rabbitmq and asked.warren:
        hosts = ("127.0.0.1", asked.rabbitmq), [("127.0.0.1", port) for port in asked.warren]
        tally = run(seeds, asked, *hosts)
    else:
        try:
            with both() as hosts:
                started = time.monotonic()
                tally = run(seeds, asked, *hosts)
        except Missing as error:
            print(f"differential: {error}", file=sys.stderr)
            return 2
    took_s = time.monotonic() - started
    for row, count in sorted(tally.explained.items()):
        print(f"{count:6} x {row}")
    print(
        f"{tally.done} sequences, {tally.steps} steps in {took_s:.0f} s; "
        f"{len(tally.failed)} differ unexplained: {sorted(tally.failed)}"
    )
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())
