"""Runs workloads on one cluster or alternately on two, and keeps every run's figures."""

import contextlib
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from bench import generator
from bench.clusters import Cluster, cpu_s
from bench.generator import Figures, LoadError, Settings
from bench.workloads import WORKLOADS, Plan, Target, Workload

TOPOLOGY = ("name", "queues", "exchange", "bindings", "kind", "ttl", "length", "priorities", "dead")


@dataclass(slots=True)
class Series:
    """The runs of one workload on one cluster, in order."""

    runs: list[Figures] = field(default_factory=list)
    error: str | None = None

    def values(self, figure: str) -> list[float]:
        """A figure of every run that has it."""
        return [run[figure] for run in self.runs if figure in run]

    def median(self, figure: str) -> float | None:
        """The figure in the median of the runs."""
        values = self.values(figure)
        return statistics.median(values) if values else None

    def spread(self, figure: str) -> float | None:
        """(largest - smallest) / median."""
        values = self.values(figure)
        middle = statistics.median(values) if values else 0.0
        return (max(values) - min(values)) / middle if middle else None


Results = dict[str, dict[str, Series]]
"""Workload to cluster to series; and what a workload is measured beside (`beside`), for the first cluster only."""


@dataclass(slots=True, frozen=True)
class Verdict:
    """A target and what was reached: the median ratio and the smallest and largest of the rounds."""

    target: Target
    ratio: float
    low: float
    high: float

    @property
    def is_met(self) -> bool:
        """Whether the median ratio keeps the bound."""
        return self.ratio >= self.target.bound if self.target.is_floor else self.ratio <= self.target.bound


def compare(
    workloads: Sequence[Workload], clusters: Sequence[Cluster], plan: Plan, say: Callable[[str], None]
) -> Results:
    """Run everything; the order of what is measured in a round turns around from one to the next."""
    results: Results = {}
    for workload in workloads:
        series = {cluster.name: Series() for cluster in clusters}
        results[workload.name] = series
        turns = [(workload, cluster, series[cluster.name]) for cluster in clusters]
        for target in workload.targets:
            if target.beside is not None:
                base = next(other for other in WORKLOADS if other.name == target.beside)
                measure_of = Series()
                results[beside(target.beside, workload)] = {clusters[0].name: measure_of}
                turns.append((base, clusters[0], measure_of))
        for measured, cluster, one in turns:
            with _errors_of(one):
                prepare(measured, cluster)
        for number in range(plan.rounds):
            for measured, cluster, one in turns if number % 2 == 0 else turns[::-1]:
                with _errors_of(one):
                    if one.error is None:
                        one.runs.append(measure(measured, cluster, plan))
        for measured, cluster, _ in turns:
            with contextlib.suppress(LoadError):
                clean(measured, cluster)
        say(_line(workload, series))
    return results


def beside(name: str, workload: Workload) -> str:
    """Where the results are kept of a workload that was measured in turns with one whose target it is the measure of.

    Minutes apart a machine may have another speed.
    """
    return f"{name} beside {workload.name}"


def verdicts(workload: Workload, results: Results, ours: str, other: str | None) -> list[Verdict]:
    """Each target of a workload that these results can judge."""
    found = []
    for target in workload.targets:
        mine = results[workload.name][ours].values(target.figure)
        if target.beside is not None:
            key = beside(target.beside, workload)
            base = results[key][ours].values(target.figure) if key in results else []
        else:
            base = results[workload.name][other].values(target.figure) if other is not None else []
        ratios = [a / b for a, b in zip(mine, base, strict=False) if b > 0]
        if ratios:
            found.append(Verdict(target, statistics.median(ratios), min(ratios), max(ratios)))
    return found


def prepare(workload: Workload, cluster: Cluster) -> None:
    """Declare what the workload needs."""
    if workload.job == "traffic":
        generator.run("setup", cluster.hosts, topology(workload.settings, workload.name))


def clean(workload: Workload, cluster: Cluster) -> None:
    """Delete it."""
    if workload.job == "traffic":
        generator.run("teardown", cluster.hosts, topology(workload.settings, workload.name))


def topology(settings: Settings, name: str) -> Settings:
    """The part of a workload's settings that says what is declared."""
    return {"name": f"bench-{name}", **{key: value for key, value in settings.items() if key in TOPOLOGY}}


def measure(workload: Workload, cluster: Cluster, plan: Plan) -> Figures:
    """One run: its figures, and the CPU time of the brokers for 1,000 messages where they run here."""
    settings = {**workload.settings, "name": f"bench-{workload.name}", "seconds": plan.seconds}
    if workload.job == "traffic":
        settings["warmup"] = plan.warmup
        generator.run("purge", cluster.hosts, topology(workload.settings, workload.name))
    before = sum(cpu_s(pid) for pid in cluster.pids())
    figures = generator.run(workload.job, cluster.hosts, settings)
    used_s = sum(cpu_s(pid) for pid in cluster.pids()) - before
    done = figures.get("consumed") or figures.get("done", 0.0)
    if used_s > 0 and done:
        figures["broker_cpu_ms_per_1000"] = used_s * 1e6 / done
    if workload.job == "declare":
        _forget(cluster, int(figures["done"]), int(settings.get("clients", 1)))
    if workload.settings.get("window") != 0 and figures.get("missing", 0) > 0:
        figures["lost_or_late"] = figures["missing"]
    return figures


def _forget(cluster: Cluster, declared: int, clients: int) -> None:
    """Delete the queues that a run of `declare` left; the clients may have come unequally far."""
    name = "bench-declare20" if clients > 1 else "bench-declare"
    generator.run("teardown", cluster.hosts, {"name": name, "queues": 2 * declared + clients})


@contextlib.contextmanager
def _errors_of(series: Series) -> Iterator[None]:
    """What fails on one cluster is said of it, and the rest goes on."""
    try:
        yield
    except LoadError as error:
        series.error = series.error or str(error)


def _line(workload: Workload, series: dict[str, Series]) -> str:
    parts = []
    for name, one in series.items():
        rate, p99 = one.median("rate"), one.median("p99_ms")
        text = one.error or f"{rate or 0:,.0f}/s" + ("" if p99 is None else f" p99 {p99:.1f} ms")
        parts.append(f"{name} {text}")
    return f"{workload.name:<10} " + "   ".join(parts)
