"""What each hop of a message costs by itself, so that a change of the whole can be placed."""

import subprocess
import sys
from collections.abc import Callable

HOPS = ("codec", "route", "declare", "consensus", "link", "queue", "deliver", "store")
"""In the order of a message's path; each is a module that runs by itself."""


def run_all(say: Callable[[str], None]) -> dict[str, str]:
    """Run each in a process of its own; what each printed."""
    found = {}
    for hop in HOPS:
        say(f"\n-- {hop}")
        done = subprocess.run(
            [sys.executable, "-m", f"bench.micro.{hop}"], capture_output=True, text=True, check=False
        )
        found[hop] = done.stdout if done.returncode == 0 else f"failed: {done.stderr.strip()[-300:]}"
        say(found[hop].rstrip())
    return found
