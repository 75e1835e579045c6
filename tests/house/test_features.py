"""Every test that docs/features.md names exists, and every feature has both."""

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/features.md"
ACROSS_LEADERS = "integration/test_features_failover.py"
ROW = re.compile(
    r"^\| (?P<feature>[^|]+) \| [^|]+ \| `(?P<test>[^`|]+)` \| `(?P<across>[^`|]+)` \|$", re.MULTILINE
)


@cache
def names_in(file: str) -> frozenset[str]:
    """The names of the functions in a file; none if it is not there."""
    path = ROOT / file
    if not path.is_file():
        return frozenset()
    body = ast.parse(path.read_text()).body
    return frozenset(node.name for node in body if isinstance(node, ast.FunctionDef))


def exists(named: str) -> bool:
    file, _, test = named.rpartition("::")
    return test.startswith("test_") and test in names_in(file or ACROSS_LEADERS)


def test_named_tests_exist() -> None:
    """A link that leads nowhere proves nothing."""
    rows = list(ROW.finditer(PAGE.read_text()))
    missing = [name for row in rows for name in row.group("test", "across") if not exists(name)]
    assert rows and missing == []


def test_each_row_is_whole() -> None:
    """Each feature names a test and one across a change of leader."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    titles = [line for line in lines if line.startswith("| feature |")]
    assert len(ROW.findall(PAGE.read_text())) == len(lines) - len(titles)


def test_each_test_across_leaders_is_named() -> None:
    """Nothing is shown that the table does not tell of."""
    named = {row["across"] for row in ROW.finditer(PAGE.read_text())}
    shown = {name for name in names_in(ACROSS_LEADERS) if name.startswith("test_")}
    assert shown == {name for name in named if "::" not in name}
