"""What the tests of this directory share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.harness import Cluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes for a whole module, whose tests leave them as they were."""
    directory: Path = tmp_path_factory.mktemp("cluster")
    with Cluster(directory) as running:
        yield running
