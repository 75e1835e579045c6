"""`python -m tests.sim`: run simulated clusters by seed; see --help."""

import argparse
import multiprocessing
import sys
import time
from collections.abc import Iterable, Iterator

from tests.sim.run import EVENTS, Report, Run
from tests.sim.trace import LINES_KEPT, digest, told

Job = tuple[int, int, str, bool]
"""Seed, events, mode, whether to keep the whole trace."""


def run_job(job: Job) -> Report:
    """One run, in this process."""
    seed, events, mode, keep_trace = job
    return Run(seed, events, mode, keep_trace=keep_trace).execute()


def reports(jobs: list[Job], processes: int) -> Iterator[Report]:
    """All runs, in the order of the jobs."""
    if processes == 1:
        yield from map(run_job, jobs)
        return
    with multiprocessing.Pool(processes) as pool:
        yield from pool.imap(run_job, jobs, chunksize=4)


def tell(report: Report, mode: str, *, whole: bool) -> None:
    """Print the end of a trace, and how to see it again."""
    for line in report.trace if whole else report.trace[-LINES_KEPT:]:
        print(told(line))
    print(report.where, end="")
    if report.failure:
        print(f"seed {report.seed}: {report.failure}")
        print(
            f"replay: python -m tests.sim --seed {report.seed} --events {report.events} --mode {mode} --trace",
            flush=True,
        )


def seeds_of(text: str) -> Iterable[int]:
    """Read "A-B" or a single seed."""
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def main() -> int:
    """Run what the command line says; 1 if a seed failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description="Simulated clusters, by seed.")
    parser.add_argument("--seed", type=int, help="one seed")
    parser.add_argument("--count", type=int, default=1, help="so many seeds, from --seed on")
    parser.add_argument("--seeds", help="seeds A-B")
    parser.add_argument("--events", type=int, default=EVENTS, help="events before calm is restored")
    parser.add_argument("--mode", choices=("safety", "liveness", "both"), default="safety")
    parser.add_argument("--trace", action="store_true", help="print every event")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    args = parser.parse_args()
    first = args.seed if args.seed is not None else 1
    seeds = seeds_of(args.seeds) if args.seeds else range(first, first + args.count)
    failures = 0
    for mode in ("safety", "liveness") if args.mode == "both" else (args.mode,):
        jobs = [(seed, args.events, mode, args.trace) for seed in seeds]
        begun = time.monotonic()
        failed, totals = [], Report(0, 0)
        for report in reports(jobs, args.jobs):
            if args.trace or report.failure:
                tell(report, mode, whole=args.trace)
            if args.trace:
                print(f"trace {digest(report.trace)}")
            if report.failure:
                failed.append(report.seed)
            for name in ("steps", "published", "confirmed", "delivered", "elections", "installs"):
                setattr(totals, name, getattr(totals, name) + getattr(report, name))
            for kind, count in report.faults.items():
                totals.faults[kind] = totals.faults.get(kind, 0) + count
        seconds = time.monotonic() - begun
        print(
            f"{mode}: {len(jobs)} seeds of {args.events} events in {seconds:.1f} s: {totals.steps} events in all, "
            f"{totals.published} published, {totals.confirmed} confirmed, {totals.delivered} delivered, "
            f"{totals.elections} elections, {totals.installs} snapshots installed, "
            f"{sum(totals.faults.values())} faults"
        )
        print("faults: " + ", ".join(f"{kind} {count}" for kind, count in sorted(totals.faults.items())))
        if failed:
            print(f"FAILED: {len(failed)} seeds: {' '.join(map(str, failed))}")
        failures += len(failed)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
