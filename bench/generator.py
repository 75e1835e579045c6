"""Builds the load generator in C at first use, and runs its jobs."""

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, cast

from bench.histogram import Histogram

SOURCES = Path(__file__).parent / "load"
BUILT = Path(__file__).parent.parent / "build" / "bench"
FLAGS = ("-O2", "-std=gnu17", "-Wall", "-Wextra", "-pthread")

Settings = dict[str, str | int | float]
Figures = dict[str, float]
"""What one run of a job measured: rates in 1/s, times in ms, counts."""


class LoadError(Exception):
    """The load generator could not be built, or a job failed: one line."""


def build() -> Path:
    """The program, compiled anew only when a source has changed."""
    files = sorted([*SOURCES.glob("*.c"), *SOURCES.glob("*.h")])
    digest = hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()[:12]
    program = BUILT / f"load-{digest}"
    if program.exists():
        return program
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise LoadError("the load generator needs a C compiler: on Debian, apt-get install gcc libc6-dev")
    BUILT.mkdir(parents=True, exist_ok=True)
    unfinished = program.with_suffix(".new")
    command = [compiler, *FLAGS, "-o", str(unfinished), *[str(file) for file in files if file.suffix == ".c"]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LoadError(f"cannot compile the load generator: {done.stderr.strip()[:400]}")
    unfinished.rename(program)
    return program


def arguments(job: str, hosts: list[str], settings: Settings) -> list[str]:
    """The command line of a job."""
    return [
        str(build()),
        job,
        f"hosts={','.join(hosts)}",
        *[f"{key}={value}" for key, value in settings.items()],
    ]


def run(job: str, hosts: list[str], settings: Settings, *, timeout_s: float = 600.0) -> Figures:
    """Run a job to its end.

    Raises:
        LoadError: with what the load generator said.
    """
    command = arguments(job, hosts, settings)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        raise LoadError(f"{job}: not done after {timeout_s:.0f} s") from None
    if done.returncode != 0:
        raise LoadError(f"{job}: {done.stderr.strip() or f'ended with {done.returncode}'}")
    return figures(json.loads(done.stdout))


def figures(report: dict[str, Any]) -> Figures:
    """Read the report of a job: percentiles in place of histograms."""
    found: Figures = {}
    for key, value in report.items():
        if not isinstance(value, list):
            found[key] = float(value)
            continue
        histogram = Histogram(cast("list[tuple[int, int]]", value))
        prefix = "" if key == "latency" else f"{key.removesuffix('_latency')}_"
        for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0)):
            figure = histogram.percentile_ms(share)
            if figure is not None:
                found[f"{prefix}{name}_ms"] = figure
    found.setdefault(
        "rate", found["consume_rate"] if found.get("consumed") else found.get("confirm_rate", 0.0)
    )
    return found
