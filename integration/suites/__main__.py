"""python -m integration.suites: test suites that others wrote, against any broker, and one broker beside another.

python -m integration.suites --suite NAME --sources DIR --broker HOST:PORT [--save FILE]
python -m integration.suites --compare FILE FILE      (first the one that counts, RabbitMQ's; then Warren's)

DIR is the suite's repository, fetched beforehand; what it needs is installed beside it. Exit code 1: a test failed,
or, comparing, one failed that passes on the first broker.
"""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

from integration.suites.runner import Results, SuiteError, run
from integration.suites.suites import SUITES


def main() -> int:
    """Run or compare."""
    options = _parser().parse_args()
    if options.compare:
        return compare(*(json.loads(Path(file).read_text()) for file in options.compare))
    if not (options.suite and options.sources and options.broker):
        print("suites: --suite, --sources and --broker are needed", file=sys.stderr)
        return 2
    host, _, port = options.broker.rpartition(":")
    if host not in ("127.0.0.1", "localhost"):
        print("suites: several suites know only brokers of this machine", file=sys.stderr)
        return 2
    try:
        results = run(SUITES[options.suite], options.sources.resolve(), int(port))
    except SuiteError as error:
        print(f"suites: {error}", file=sys.stderr)
        return 2
    if options.save:
        options.save.write_text(json.dumps(results, indent=1, sort_keys=True))
    failed = [test for test, outcome in results.items() if outcome == "failed"]
    print(f"{options.suite}: {_counts(results)}", *failed, sep="\n  ")
    return 1 if failed else 0


def compare(stock: Results, ours: Results) -> int:
    """Print what passes on the first broker and not on the second; 1 where there is such a test."""
    lost = [test for test, outcome in stock.items() if outcome == "passed" and ours.get(test) != "passed"]
    print(f"first:  {_counts(stock)}\nsecond: {_counts(ours)}")
    print(f"pass on the first and not on the second: {len(lost)}")
    for test in lost:
        print(f"  {test}: {ours.get(test, 'not run')}")
    return 1 if lost else 0


def _counts(results: Results) -> str:
    count = Counter(results.values())
    return ", ".join(f"{count[outcome]} {outcome}" for outcome in ("passed", "failed", "skipped"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m integration.suites", description="suites of clients")
    parser.add_argument("--suite", choices=sorted(SUITES))
    parser.add_argument("--sources", type=Path, metavar="DIR", help="the suite's repository")
    parser.add_argument("--broker", metavar="HOST:PORT")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the outcomes, to be compared")
    parser.add_argument("--compare", nargs=2, metavar="FILE", help="two saved files")
    return parser


if __name__ == "__main__":
    sys.exit(main())
