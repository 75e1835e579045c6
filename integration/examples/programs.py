"""Running the programs under examples/, as their READMEs say."""

import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"
ANSWER_S_MAX = 30.0
LANGUAGES = ("py", "js")


def install_modules() -> None:
    """Install amqplib once, as examples/README.md says."""
    if not (EXAMPLES / "node_modules/amqplib").is_dir():
        assert shutil.which("npm"), "npm is not installed"
        subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=EXAMPLES, check=True, timeout=300)


def command(program: str, *arguments: str) -> list[str]:
    """How to start a program, by its path under examples/."""
    return [sys.executable if program.endswith(".py") else "node", str(EXAMPLES / program), *arguments]


def run(url: str, program: str, *arguments: str) -> str:
    """Run a program that ends; returns its output."""
    result = subprocess.run(
        command(program, *arguments),
        env={**os.environ, "AMQP_URL": url},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


class Watched:
    """A program that runs until it is ended, and the lines that it prints."""

    def __init__(self, url: str, program: str, *arguments: str) -> None:
        self._process = subprocess.Popen(
            command(program, *arguments),
            env={**os.environ, "AMQP_URL": url},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.first = self.line()

    def __enter__(self) -> "Watched":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(10)
        self._reader.join(10)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.rstrip("\n"))

    def line(self) -> str:
        """The next line, once it is there."""
        return self._lines.get(timeout=ANSWER_S_MAX)

    def has_line(self, within_s: float) -> bool:
        """Whether a line comes in time; `line` has it still."""
        deadline = time.monotonic() + within_s
        while self._lines.empty() and time.monotonic() < deadline:
            time.sleep(0.01)
        return not self._lines.empty()

    def is_silent(self, for_s: float = 0.5) -> bool:
        """Whether nothing more comes."""
        time.sleep(for_s)
        return self._lines.empty()
