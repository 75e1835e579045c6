"""Prepares a suite, runs it against a broker, and reads what it reports."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path

from integration.suites.suites import HERE, Suite

PORT_OF_SUITES = "5672"
RUN_S_MAX = 1800

Results = dict[str, str]
"""Test -> passed, failed or skipped. A test that ran more than once, as some do, has its last word."""


class SuiteError(Exception):
    """The suite could not be prepared, or left no report."""


def run(suite: Suite, sources: Path, port: int) -> Results:
    """Run the suite of the sources against 127.0.0.1:port."""
    if not sources.is_dir():
        raise SuiteError(f"no sources at {sources}")
    python = _environment(suite, sources)
    with tempfile.TemporaryDirectory(prefix="warren-suite-", dir=sources.parent) as scratch:
        copy, report = Path(scratch) / sources.name, Path(scratch) / "report.xml"
        shutil.copytree(sources, copy, ignore=shutil.ignore_patterns(".git", "node_modules", ".venv*"))
        _adapt(suite, sources, copy, port)
        words = {"python": python, "port": str(port), "report": str(report)}
        own = {name: value.format(**words) for name, value in suite.variables}
        with (sources.parent / f"{suite.name}-{port}.log").open("wb") as log:
            subprocess.run(
                [word.format(**words) for word in suite.command],
                cwd=copy, env={**os.environ, "PYTHONPATH": str(copy), **own}, timeout=RUN_S_MAX,
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, check=False,
            )  # fmt: skip
        if not report.exists():
            raise SuiteError(f"{suite.name} left no report: see {log.name}")
        return read_report(report)


def read_report(report: Path) -> Results:
    """The outcome of each test of a JUnit report."""
    results: Results = {}
    repeated: Counter[str] = Counter()

    def walk(element: ET.Element, path: str) -> None:
        for child in element:
            if child.tag == "testsuite":
                walk(child, f"{path}{child.get('name')} > ")
            elif child.tag == "testcase":
                # pytest puts all in one suite, and the place in the name of a class.
                place = path if child.get("classname") == "test" else f"{child.get('classname')}::"
                name = f"{place}{child.get('name')}"
                repeated[name] += 1
                results[name if repeated[name] == 1 else f"{name} #{repeated[name]}"] = _outcome(child)

    walk(ET.parse(report).getroot(), "")
    return results


def _outcome(case: ET.Element) -> str:
    if case.find("failure") is not None or case.find("error") is not None:
        return "failed"
    return "skipped" if case.find("skipped") is not None else "passed"


def _environment(suite: Suite, sources: Path) -> str:
    """Install the packages beside the sources, once; returns the interpreter."""
    if suite.is_node:
        home = sources.parent / f"node-{suite.name}"
        if not (home / "node_modules").exists():
            home.mkdir(exist_ok=True)
            (home / "package.json").write_text("{}")
            _must(["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", *suite.packages], home)
        return "node"
    home = sources.parent / f"venv-{suite.name}"
    python = home / "bin" / "python"
    if not python.exists():
        _must([sys.executable, "-m", "venv", str(home)], sources)
        own = (str(sources),) if suite.with_metadata else ()
        try:
            _must([str(python), "-m", "pip", "install", "--quiet", *suite.packages, *own], sources)
        except SuiteError:
            shutil.rmtree(home)
            raise
    return str(python)


def _adapt(suite: Suite, sources: Path, copy: Path, port: int) -> None:
    """Make the copy speak to our broker."""
    for pattern in suite.rewritten:
        for file in copy.glob(pattern):
            text = file.read_text()
            file.write_text(re.sub(rf"\b{PORT_OF_SUITES}\b", str(port), text))
    for name, ours in suite.replaced:
        shutil.copyfile(HERE / ours, copy / name)
    if suite.is_node:
        (copy / "node_modules").symlink_to(sources.parent / f"node-{suite.name}" / "node_modules")


def _must(command: list[str], directory: Path) -> None:
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SuiteError(f"{' '.join(command[:4])}: {(done.stderr or done.stdout).strip()[-500:]}")
