"""Figures as a table for the terminal, as JSON, and as the generated part of docs/performance.md.

python -m bench.report FILE...      publishes saved results; what several files have is taken from the last
"""

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import svg
from bench.comparison import Results, Series, Verdict, verdicts
from bench.growth import Row
from bench.machine import ROOT
from bench.workloads import WORKLOADS, Plan, Workload

RESULTS = ROOT / "bench/results"
PAGE = ROOT / "docs/performance.md"
PLOTS = ROOT / "docs/performance"
BEGIN = "<!-- written by `python -m bench --publish`: begin -->"
END = "<!-- end -->"
PARTS = ("workloads", "growth", "micro")
FIGURES = {"rate": "rate", "p50_ms": "p50", "p99_ms": "p99"}

Cells = list[list[str]]
Growth = dict[str, list[Row]]


def number(value: float | None) -> str:
    """A figure with three digits that count, and no more than are there."""
    if value is None:
        return "-"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def percent(value: float | None) -> str:
    """A share as a percentage."""
    return "-" if value is None else f"{100 * value:.0f} %"


def verdict_text(verdict: Verdict) -> str:
    """Ratio with its range, target, and whether it is met."""
    target = verdict.target
    sign = ">=" if target.is_floor else "<="
    name = FIGURES[target.figure] + (f" to `{target.beside}`" if target.beside else "")
    reached = f"{name} {number(verdict.ratio)}x ({number(verdict.low)} to {number(verdict.high)})"
    return f"{reached}, {sign} {target.bound:g}: {'met' if verdict.is_met else 'MISSED'}"


def rows(workloads: Iterable[Workload], results: Results, names: Sequence[str]) -> Cells:
    """A row for each workload that was run: figures of each cluster, then the targets."""
    head = ["workload"]
    for name in names:
        head += [f"{name} /s", "spread", "p50 ms", "p99 ms"]
    table = [[*head, "targets"]]
    other = names[1] if len(names) > 1 else None
    for workload in workloads:
        if workload.name not in results:
            continue
        cells = [workload.title]
        for name in names:
            cells += _cells(results[workload.name][name])
        found = verdicts(workload, results, names[0], other)
        table.append([*cells, "; ".join(verdict_text(verdict) for verdict in found)])
    return table


def _cells(series: Series) -> list[str]:
    if series.error is not None:
        return [f"failed: {series.error}", "", "", ""]
    late = sum(series.values("lost_or_late"))
    rate = number(series.median("rate")) + (f" ({late:.0f} missing)" if late else "")
    return [
        rate,
        percent(series.spread("rate")),
        number(series.median("p50_ms")),
        number(series.median("p99_ms")),
    ]


def growth_rows(growth: Growth) -> Cells:
    """A row for each figure of growth."""
    table = [["what", "figure", "target", ""]]
    for found in growth.values():
        for row in found:
            met = {True: "met", False: "MISSED", None: ""}[row.is_met]
            table.append([row.title, number(row.figure), row.target, met])
    return table


def plain(table: Cells) -> str:
    """A table for the terminal."""
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    lines = []
    for row in table:
        cells = [row[0].ljust(widths[0])] + [
            cell.rjust(width) if i < len(row) - 2 else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row[1:], widths[1:], strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def markdown(table: Cells) -> str:
    """A table for a page."""
    first, *rest = [f"| {' | '.join(row)} |" for row in table]
    return "\n".join([first, "|" + "---|" * len(table[0]), *rest])


def as_json(
    machine: dict[str, Any], plan: Plan, results: Results, growth: Growth, micro: dict[str, str]
) -> dict[str, Any]:
    """Everything that was measured."""
    return {
        "machine": machine,
        "plan": {"rounds": plan.rounds, "seconds": plan.seconds, "warmup": plan.warmup, "quick": plan.quick},
        "workloads": {
            name: {
                cluster: {
                    "runs": one.runs,
                    "error": one.error,
                    "rate": one.median("rate"),
                    "spread": one.spread("rate"),
                }
                for cluster, one in series.items()
            }
            for name, series in results.items()
        },
        "growth": {name: [asdict(row) for row in found] for name, found in growth.items()},
        "micro": micro,
    }


def save(document: dict[str, Any], name: str) -> Path:
    """Write it under bench/results."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    file = RESULTS / f"{name}.json"
    file.write_text(json.dumps(document, indent=1) + "\n")
    return file


def load(document: dict[str, Any]) -> tuple[Results, Growth]:
    """What `as_json` wrote."""
    results: Results = {
        name: {cluster: Series(one["runs"], one["error"]) for cluster, one in series.items()}
        for name, series in document["workloads"].items()
    }
    growth = {name: [Row(**row) for row in found] for name, found in document["growth"].items()}
    return results, growth


def publish(document: dict[str, Any], workloads: Sequence[Workload]) -> None:
    """Save as the published result, draw the plots, and write the generated part of docs/performance.md."""
    save(document, "published")
    results, growth = load(document)
    names = list(next(iter(results.values()))) if results else []
    PLOTS.mkdir(parents=True, exist_ok=True)
    parts = [_provenance(document)]
    if results:
        for figure, title, file in (
            ("rate", "messages a second", "rates"),
            ("p99_ms", "p99 end to end, ms", "latency"),
        ):
            labels = [workload.title for workload in workloads if workload.name in results]
            bars = {
                name: [
                    results[workload.name][name].median(figure)
                    for workload in workloads
                    if workload.name in results
                ]
                for name in names
            }
            (PLOTS / f"{file}.svg").write_text(svg.bars(title, labels, bars))
            parts.append(f"![{title}](performance/{file}.svg)")
        parts.append(markdown(rows(workloads, results, names)))
    if growth:
        parts += ["### Growth", markdown(growth_rows(growth))]
    if document["micro"]:
        hops = [f"#### {name}\n\n```\n{text.strip()}\n```" for name, text in document["micro"].items()]
        parts += ["### Hop by hop", *hops]
    PAGE.write_text(replaced(PAGE.read_text(), "\n\n".join(parts)))


def merged(documents: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One document of several; machine and plan are the first one's."""
    first, *others = documents
    whole = {**first, **{part: dict(first[part]) for part in PARTS}}
    for document in others:
        for part in PARTS:
            whole[part].update(document[part])
    return whole


def replaced(page: str, generated: str) -> str:
    """The page with a new generated part."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{generated}\n\n{END}{after}"


def _provenance(document: dict[str, Any]) -> str:
    machine, plan = document["machine"], document["plan"]
    dirty = " with changes" if machine["is_dirty"] else ""
    warning = "**A quick look on a machine in use: no figures of record.** " if plan["quick"] else ""
    return (
        f"{warning}Taken {machine['taken']} at commit {machine['commit']}{dirty}: {machine['cores']} cores "
        f"({machine['processor']}), {machine['memory_gib']} GiB, Linux {machine['kernel']}, Python "
        f"{machine['python']}; {plan['rounds']} x {plan['seconds']:g} s, load average "
        f"{machine['load_before']:.1f} at the start. Figures are medians; the spread is (largest - smallest) / "
        "median of the rounds, and a ratio stands with the smallest and largest of its rounds."
    )


def main() -> None:
    """Publish what was saved."""
    parser = argparse.ArgumentParser(prog="python -m bench.report", description="write docs/performance.md")
    parser.add_argument("files", nargs="+", type=Path, help="saved results")
    publish(merged([json.loads(file.read_text()) for file in parser.parse_args().files]), WORKLOADS)


if __name__ == "__main__":
    main()
