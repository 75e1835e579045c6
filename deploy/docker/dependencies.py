"""Print the dependencies that pyproject.toml lists, one a line, for the image's dependency layer."""

import tomllib
from pathlib import Path

with Path("pyproject.toml").open("rb") as stream:
    print("\n".join(tomllib.load(stream)["project"]["dependencies"]))
