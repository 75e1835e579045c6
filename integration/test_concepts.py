"""The examples of docs/concepts/, each taken from its page and run as it stands there, on one cluster for all."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from integration.harness import HOST, Cluster

PAGES = sorted((Path(__file__).parents[1] / "docs/concepts").glob("*.md"))
CONNECT = 'pika.ConnectionParameters("localhost"'
RUN_S_MAX = 30


def examples(page: Path) -> list[str]:
    """The Python blocks of a page."""
    return re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


def test_every_page_has_one_example() -> None:
    """The index has none."""
    counts = {page.stem: len(examples(page)) for page in PAGES}
    assert counts == {page.stem: int(page.stem != "README") for page in PAGES}


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.stem != "README"], ids=lambda page: page.stem
)
def test_example_runs(cluster: Cluster, page: Path) -> None:
    """With the address of a node for `localhost`: the next page's example talks to the next node."""
    nodes = cluster.nodes
    port = nodes[PAGES.index(page) % len(nodes)].amqp
    (example,) = examples(page)
    assert CONNECT in example
    program = example.replace(CONNECT, f'pika.ConnectionParameters("{HOST}", {port}')
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=RUN_S_MAX, check=False
    )
    assert done.returncode == 0, done.stderr
