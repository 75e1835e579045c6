"""Medians, ratios, verdicts, and what is written of them."""

import xml.etree.ElementTree as ET

import pytest

from bench import report, svg
from bench.comparison import Results, Series, topology, verdicts
from bench.growth import GROWTH, Row
from bench.workloads import WORKLOADS, Plan, Target, Workload, at_least, at_most

FAST = Workload("fast", "a fast one", {"queues": 2, "size": 10}, (at_least(6), at_most(0.5, "p99_ms")))
FAR = Workload("far", "from afar", {}, (Target("rate", 0.7, beside="fast"),))


def series(*rates: float, p99_ms: float = 1.0) -> Series:
    return Series([{"rate": rate, "p99_ms": p99_ms} for rate in rates])


RESULTS: Results = {
    "fast": {"warren": series(60, 90, 72), "rabbitmq": series(10, 10, 12, p99_ms=4.0)},
    "far": {"warren": series(30, 54, 36), "rabbitmq": Series(error="traffic: no route")},
    "fast beside far": {"warren": series(60, 90, 72)},
}


def test_the_middle_and_the_spread_of_the_rounds() -> None:
    one = series(60, 90, 72)
    assert one.median("rate") == 72
    assert one.spread("rate") == pytest.approx(30 / 72)
    assert one.median("p42") is None
    assert Series().spread("rate") is None


def test_ratios_are_taken_round_by_round() -> None:
    rate, p99 = verdicts(FAST, RESULTS, "warren", "rabbitmq")
    assert (rate.ratio, rate.low, rate.high, rate.is_met) == (6, 6, 9, True)
    assert (p99.ratio, p99.is_met) == (0.25, True)


def test_a_target_may_be_another_workload_here() -> None:
    (verdict,) = verdicts(FAR, RESULTS, "warren", None)
    assert verdict.ratio == pytest.approx(0.5)
    assert not verdict.is_met


def test_without_another_cluster_there_is_no_ratio() -> None:
    assert verdicts(FAST, RESULTS, "warren", None) == []


def test_the_table_names_what_was_missed_and_what_failed() -> None:
    table = report.rows([FAST, FAR], RESULTS, ["warren", "rabbitmq"])
    assert len({len(row) for row in table}) == 1
    assert table[1][-1].startswith("rate 6.00x (6.00 to 9.00), >= 6: met; p99 0.25x")
    assert "0.50x" in table[2][-1] and "MISSED" in table[2][-1]
    assert "failed: traffic: no route" in table[2]
    assert report.plain(table).count("\n") == 2
    assert report.markdown(table).splitlines()[1] == "|" + "---|" * len(table[0])


def test_messages_that_did_not_come_are_shown() -> None:
    late = Series([{"rate": 10.0, "lost_or_late": 3.0}])
    table = report.rows([FAST], {"fast": {"warren": late}}, ["warren"])
    assert "3 missing" in table[1][1]


def test_what_is_saved_can_be_read_again() -> None:
    growth = {"idle": [Row("cpu", 1.5, "<= 2", is_met=True)]}
    machine = {"commit": "c"}
    document = report.as_json(machine, Plan(), RESULTS, growth, {})
    results, rows = report.load(document)
    assert results["fast"]["warren"].median("rate") == 72
    assert rows == growth


def test_results_of_several_runs_are_put_together() -> None:
    one = report.as_json({"commit": "a"}, Plan(), RESULTS, {}, {"codec": "old"})
    other = report.as_json({"commit": "b"}, Plan(), {}, {"idle": [Row("cpu", 1.5)]}, {"codec": "new"})
    whole = report.merged([one, other])
    assert whole["machine"] == {"commit": "a"}
    assert list(whole["workloads"]) == list(RESULTS) and list(whole["growth"]) == ["idle"]
    assert whole["micro"] == {"codec": "new"} and one["micro"] == {"codec": "old"}


def test_only_the_generated_part_of_the_page_changes() -> None:
    page = f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n"
    once = report.replaced(page, "new")
    assert once.startswith("before\n") and once.endswith("\nafter\n")
    assert "new" in once and "old" not in once
    assert report.replaced(once, "new") == once


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (123456.7, "123,457"), (123.4, "123"), (12.34, "12.3"), (0.1234, "0.12")]
)
def test_figures_have_three_digits(value: float | None, text: str) -> None:
    assert report.number(value) == text


def test_a_plot_is_a_picture_with_a_bar_for_each_value() -> None:
    picture = svg.bars("rates <1>", ["a", "b & c"], {"warren": [1000, 20], "rabbitmq": [10, None]})
    root = ET.fromstring(picture)
    bars = [r for r in root.iter("{http://www.w3.org/2000/svg}rect") if r.get("x") == str(svg.LEFT)]
    # Three values, and the first name of the legend.
    assert len(bars) == 4


def test_a_plot_of_nothing_is_a_picture() -> None:
    ET.fromstring(svg.bars("nothing", ["a"], {"warren": [None]}))


def test_workloads_have_names_of_their_own() -> None:
    names = [workload.name for workload in WORKLOADS] + list(GROWTH)
    assert len(set(names)) == len(names)
    beside = [target.beside for workload in WORKLOADS for target in workload.targets if target.beside]
    assert set(beside) <= set(names)


def test_only_the_topology_is_declared_and_deleted() -> None:
    assert topology(FAST.settings, "fast") == {"name": "bench-fast", "queues": 2}
