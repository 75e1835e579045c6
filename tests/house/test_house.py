"""The rules of the house that a machine can check, on the real tree. docs/STYLE.md says why they are rules."""

import ast
import importlib.metadata
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = ("node", "cluster", "tests", "integration", "bench", "examples")
PRODUCT = ("node", "cluster")
GENERATED = ROOT / "cluster/wire"
FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 60
ARCHITECTURE_LINES_MAX = 180

# Complete as the specification is, also where nothing here uses a row yet.
TABLES = ("node/errors.py", "node/wire/methods.py", "node/broker/topology_commands.py")

# Word: what to say instead.
BANNED = {
    r"\bFIX" + r"ME\b": "an issue",
    r"\bXX" + r"X\b": "an issue",
    r"\bTO" + r"DO\b": "an issue",
    r"\bmaster\b": "leader",
    r"\bslave\b": "follower",
    r"\bwhitelist\b": "allowed",
    r"\bblacklist\b": "refused",
    # What belongs to one machine or one workplace has no place here.
    r"(?<![\w.$}/-])/wo" + r"rk/": "a path of the repository",
    r"(?<![\w.-])\.\./sha" + r"red\b": "a path of the repository",
    r"[\"'\s(=]/tm" + r"p/": "a temporary directory",
}
TEXT_SUFFIXES = (
    ".py",
    ".pyx",
    ".pyi",
    ".md",
    ".toml",
    ".yaml",
    ".yml",
    ".sh",
    ".proto",
    ".tpl",
    ".json",
    ".js",
    ".c",
    ".txt",
)


def sources(*folders: str) -> list[Path]:
    files = [file for folder in folders for file in sorted((ROOT / folder).rglob("*.py"))]
    return [file for file in files if GENERATED not in file.parents and "node_modules" not in file.parts]


def name(file: Path) -> str:
    return str(file.relative_to(ROOT))


def texts() -> Iterator[Path]:
    skipped = {
        ".git",
        ".venv",
        "node_modules",
        "build",
        "warren-data",
        ".mypy_cache",
        ".ruff_cache",
        ".hypothesis",
    }
    for file in sorted(ROOT.rglob("*")):
        inside = file.relative_to(ROOT).parts
        is_text = file.suffix in TEXT_SUFFIXES or file.name in ("Makefile", "Dockerfile", "run")
        if is_text and file.is_file() and not skipped & set(inside) and not inside[0].endswith(".egg-info"):
            yield file


def test_files_are_short() -> None:
    lengths = {name(file): len(file.read_text().splitlines()) for file in sources(*CODE)}
    assert {file: lines for file, lines in lengths.items() if lines > FILE_LINES_MAX} == {}


def test_functions_are_short() -> None:
    long = []
    for file in sources(*CODE):
        for item in ast.walk(ast.parse(file.read_text())):
            if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef):
                body = item.body[1:] if ast.get_docstring(item) is not None else item.body
                lines = (item.end_lineno or 0) - (body[0].lineno if body else item.lineno) + 1
                if lines > FUNCTION_LINES_MAX:
                    long.append(f"{name(file)}:{item.lineno} {item.name}: {lines} lines")
    assert long == []


def test_modules_say_what_they_are() -> None:
    """A module opens with a docstring; an empty one needs none."""
    silent = []
    for file in sources(*CODE):
        tree = ast.parse(file.read_text())
        if tree.body and not ast.get_docstring(tree):
            silent.append(name(file))
    assert silent == []


def test_first_sentence_ends() -> None:
    """The first paragraph of a module's docstring is a sentence, of any length."""
    wrong = []
    for file in sources(*PRODUCT):
        docstring = ast.get_docstring(ast.parse(file.read_text())) or ""
        first = docstring.split("\n\n")[0].strip()
        if first and first[-1] not in ".:;)":
            wrong.append(name(file))
    assert wrong == []


def test_words_are_ours() -> None:
    found = []
    for file in texts():
        for number, line in enumerate(file.read_text(errors="replace").splitlines(), 1):
            for pattern, instead in BANNED.items():
                if re.search(pattern, line):
                    found.append(f"{name(file)}:{number}: say {instead}: {line.strip()[:80]}")
    assert found == []


def test_proto_holds_no_python() -> None:
    """With an `__init__.py`, proto/ would hide another well-known package of that name."""
    assert [name(file) for file in (ROOT / "proto").rglob("*.py")] == []


def test_names_are_claimed_by_nobody_else() -> None:
    """Other distributions install packages called `node` and `cluster`; here only ours may."""
    owners = importlib.metadata.packages_distributions()
    for package in PRODUCT:
        assert set(owners.get(package, [])) <= {"warren-broker"}
        assert Path(__import__(package).__file__).is_relative_to(ROOT)


def test_asserts_are_on() -> None:
    assert __debug__


def test_every_function_of_the_product_is_used() -> None:
    """A name that stands nowhere else is dead; tests do not count as use, the simulator and the benchmarks do."""
    pattern = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
    uses: dict[str, int] = {}
    users = [
        *sources(*PRODUCT, "bench"),
        *(ROOT / "node").rglob("*.pyx"),
        *(ROOT / "tests/sim").rglob("*.py"),
    ]
    for file in [*users, ROOT / "pyproject.toml"]:
        for word in pattern.findall(file.read_text()):
            uses[word] = uses.get(word, 0) + 1
    dead = []
    for file in sources(*PRODUCT):
        for item in ast.parse(file.read_text()).body:
            if (
                isinstance(item, ast.FunctionDef | ast.ClassDef)
                and uses[item.name] < 2
                and name(file) not in TABLES
            ):
                dead.append(f"{name(file)}:{item.lineno} {item.name}")
    assert dead == []


def test_architecture_names_what_exists() -> None:
    """Each module, and each function named with its module, is there; the page stays readable."""
    page = ROOT / "ARCHITECTURE.md"
    text = page.read_text()
    assert len(text.splitlines()) <= ARCHITECTURE_LINES_MAX
    missing = [
        path for path in re.findall(r"`([\w/]+\.(?:pyx?|proto))`", text) if not (ROOT / path).is_file()
    ]
    for module, owner, function in re.findall(
        r"`((?:node|cluster)/[\w/]+\.pyx?)`[:,]? `(?:(\w+)\.)?(\w+)`", text
    ):
        source = (ROOT / module).read_text()
        if not re.search(rf"\b{function}\b", source) or not re.search(rf"\b{owner}\b", source):
            missing.append(f"{module}: {owner} {function}")
    assert missing == []


def test_architecture_leaves_no_package_out() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    packages = [file.parent for folder in PRODUCT for file in sorted((ROOT / folder).glob("*/__init__.py"))]
    assert [name(package) for package in packages if f"{name(package)}/" not in text] == []


def test_decisions_are_numbered_without_gaps() -> None:
    files = sorted((ROOT / "docs/adr").glob("*.md"))
    numbers = [int(file.name[:4]) for file in files]
    assert list(range(1, len(files) + 1)) == numbers


@pytest.mark.parametrize("part", ["Status", "Context", "Decision", "Consequences"])
def test_decisions_have_their_parts(part: str) -> None:
    files = sorted((ROOT / "docs/adr").glob("*.md"))
    assert [
        name(file) for file in files if not re.search(rf"(?mi)^(#+ |\*\*|- )?{part}\b", file.read_text())
    ] == []


def test_links_between_documents_lead_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")]
    broken = []
    for page in (page for page in pages if "node_modules" not in page.parts):
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text()):
            if not (page.parent / target).exists():
                broken.append(f"{name(page)}: {target}")
    assert broken == []


def test_changelog_has_an_unreleased_part() -> None:
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text()
