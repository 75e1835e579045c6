"""The Helm chart renders to the golden files and keeps what a cluster needs to start from nothing.

`helm` is looked for on the path and where `go install` puts it; without it these tests are skipped, except
in CI, which installs it.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy/helm/warren"
GOLDEN = ROOT / "tests/golden/helm"
CASES = {
    "default": [],
    "one-node": ["--set", "replicaCount=1,cluster.replicas=1,podDisruptionBudget.enabled=false,spread=off"],
    "all": [
        "--set", "replicaCount=5,cluster.name=orders,cluster.replicas=5,cluster.shards=32,spread=hard",
        "--set", "settings.heartbeat_s=30,settings.log_level=debug",
        "--set", "persistence.size=100Gi,persistence.storageClass=fast,persistence.whenScaled=Delete",
        "--set", "service.type=LoadBalancer,auth.existingSecret=logins,serviceAccount.name=broker",
    ],
}  # fmt: skip


def find_helm() -> str | None:
    go_bin = os.environ.get("GOBIN") or str(Path(os.environ.get("GOPATH", Path.home() / "go")) / "bin")
    return shutil.which("helm") or shutil.which("helm", path=go_bin)


HELM = find_helm()
pytestmark = pytest.mark.skipif(HELM is None and not os.environ.get("CI"), reason="helm is not installed")


def helm(*arguments: str) -> str:
    assert HELM is not None, "helm is not installed"
    result = subprocess.run([HELM, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def render(*arguments: str) -> str:
    secret = ["--set", "auth.password=secret"]
    return helm(
        "template",
        "shop",
        str(CHART),
        "--namespace",
        "sales",
        "--kube-version",
        "1.31.0",
        *secret,
        *arguments,
    )


def test_chart_passes_the_strict_linter() -> None:
    helm("lint", "--strict", str(CHART))


@pytest.mark.parametrize("case", list(CASES))
def test_chart_renders_to_its_golden_file(case: str, request: pytest.FixtureRequest) -> None:
    golden = GOLDEN / f"{case}.yaml"
    rendered = render(*CASES[case])
    if request.config.getoption("--rewrite", default=False):
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(rendered)
    assert golden.read_text() == rendered


def test_chart_refuses_an_unknown_value() -> None:
    assert HELM is not None
    result = subprocess.run(
        [HELM, "template", "shop", str(CHART), "--set", "replicaCuont=3"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode != 0
    assert "replicaCuont" in result.stderr


def test_cluster_can_start_from_a_full_stop() -> None:
    """No pod waits for another, and pods find each other before they are ready."""
    rendered = render()
    assert "podManagementPolicy: Parallel" in rendered
    assert "publishNotReadyAddresses: true" in rendered
    assert "/health/ready" in rendered


def test_settings_of_the_chart_are_settings_of_the_node() -> None:
    """A variable that the node does not know would keep it from starting."""
    from node.config import Config

    known = {f"WARREN_{name.upper()}" for name in Config.model_fields}
    rendered = render(*CASES["all"])
    used = [line.split("name: ")[1] for line in rendered.splitlines() if "- name: WARREN_" in line]
    assert set() == set(used) - known
