"""Building the load generator, and reading what it says."""

import shutil
from pathlib import Path

import pytest

from bench import generator
from bench.generator import LoadError, arguments, build, figures, run
from bench.histogram import bucket_of

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")


def test_a_report_becomes_rates_and_percentiles() -> None:
    report = {
        "seconds": 2.0,
        "consumed": 20,
        "consume_rate": 10.0,
        "confirm_rate": 12.0,
        "latency": [[bucket_of(4_000_000), 20]],
        "confirm_latency": [[bucket_of(2_000_000), 19], [bucket_of(9_000_000), 1]],
    }
    found = figures(report)
    assert found["rate"] == 10.0
    assert found["p50_ms"] == pytest.approx(4.0, rel=0.02)
    assert found["confirm_p99_ms"] == pytest.approx(9.0, rel=0.02)


def test_a_run_without_consumers_is_rated_by_its_confirms() -> None:
    report = {"consumed": 0, "consume_rate": 0.0, "confirm_rate": 12.0, "latency": [], "confirm_latency": []}
    assert figures(report) == {"consumed": 0.0, "consume_rate": 0.0, "confirm_rate": 12.0, "rate": 12.0}


def test_without_a_compiler_the_reason_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(generator, "BUILT", tmp_path)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(LoadError, match="needs a C compiler"):
        build()


@needs_compiler
def test_it_compiles_without_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(generator, "BUILT", tmp_path)
    monkeypatch.setattr(generator, "FLAGS", ("-O0", *generator.FLAGS[1:], "-Werror"))
    program = build()
    assert build() == program
    assert [file.name for file in tmp_path.iterdir()] == [program.name]


@needs_compiler
def test_settings_become_arguments() -> None:
    assert arguments("traffic", ["a:1", "b:2"], {"size": 128, "rate": 0.5})[1:] == [
        "traffic",
        "hosts=a:1,b:2",
        "size=128",
        "rate=0.5",
    ]


@needs_compiler
@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"sise": 1}, "unknown setting sise=1"),
        ({"size": "big"}, "unknown setting size=big"),
        ({"size": 3}, "size: at least 24"),
        ({}, "cannot connect to 127.0.0.1:1"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(settings: generator.Settings, complaint: str) -> None:
    with pytest.raises(LoadError, match=complaint) as caught:
        run("traffic", ["127.0.0.1:1"], settings)
    assert len(str(caught.value).splitlines()) == 1
