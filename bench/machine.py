"""Where and when figures were taken: they mean nothing without."""

import importlib.metadata
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parent.parent
LIBRARIES = ("grpcio", "lmdb", "uvloop")


def describe() -> dict[str, str | int | float | bool]:
    """Commit, machine and versions. `is_dirty`: there were changes that are in no commit."""
    return {
        "commit": _git("rev-parse", "--short=12", "HEAD") or "unknown",
        "is_dirty": bool(_git("status", "--porcelain", "--untracked-files=no", "--", "node", "cluster")),
        "taken": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": _processor(),
        "cores": os.cpu_count() or 0,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
        **{name: importlib.metadata.version(name) for name in LIBRARIES},
    }


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
