"""Runs every fuzz target of this directory for a share of the time: `python -m tests.fuzz --seconds 60`."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path


def main() -> int:
    """Exit code of the first target that found something, else 0."""
    parser = argparse.ArgumentParser(prog="tests.fuzz", description="coverage-guided fuzzing, with atheris")
    parser.add_argument("--seconds", type=int, default=60, help="for all targets together")
    seconds = parser.parse_args().seconds
    targets = sorted(path.stem for path in Path(__file__).parent.glob("fuzz_*.py"))
    for target in targets:
        share = max(1, seconds // len(targets))
        command = [sys.executable, "-m", f"tests.fuzz.{target}", f"-max_total_time={share}", "-max_len=4096"]
        found = subprocess.run(command, check=False).returncode
        if found:
            return found
    return 0


if __name__ == "__main__":
    sys.exit(main())
