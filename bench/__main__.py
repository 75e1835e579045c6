"""python -m bench: the canonical workloads on a Warren started here, and beside another cluster if asked.

python -m bench [--only NAME,...] [--quick] [--rounds 5] [--against rabbitmq|HOST:PORT,...] [--growth] [--micro]
"""

import argparse
import contextlib
import signal
import sys
from datetime import UTC, datetime

from bench import comparison, growth, machine, micro, report
from bench.clusters import Cluster, ClusterError, Remote, Warren
from bench.generator import LoadError
from bench.rabbitmq import RabbitMq
from bench.report import Growth
from bench.workloads import WORKLOADS, Plan


def main() -> int:
    """Run what was asked for; 0 if every run of Warren came to an end."""
    options = _parser().parse_args()
    plan = _plan(options)
    unknown = set(plan.only) - {workload.name for workload in WORKLOADS} - set(growth.GROWTH)
    if unknown:
        print(f"bench: no workload is called {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    # Clusters that were started here must end with us, however we are told to.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return _run(options, plan)
    except KeyboardInterrupt:
        return 130
    except (ClusterError, LoadError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    names = ", ".join([workload.name for workload in WORKLOADS] + list(growth.GROWTH))
    parser = argparse.ArgumentParser(prog="python -m bench", description="the benchmark of record")
    parser.add_argument("--only", default="", metavar="NAME,...", help=f"of {names}")
    parser.add_argument(
        "--quick", action="store_true", help="1 round of 2 s, small growth: a look, not a figure"
    )
    parser.add_argument("--rounds", type=int, help="runs of each workload on each cluster (5)")
    parser.add_argument("--seconds", type=float, help="measured in each run (8)")
    parser.add_argument(
        "--against",
        metavar="CLUSTER",
        help="rabbitmq (Debian's, started here), or HOST:PORT,... of any AMQP 0-9-1 cluster with guest/guest",
    )
    parser.add_argument(
        "--growth", action="store_true", help="then backlog, queues, connections, disk (long without --quick)"
    )
    parser.add_argument("--micro", action="store_true", help="then each hop by itself")
    parser.add_argument("--publish", action="store_true", help="write docs/performance.md and its plots")
    return parser


def _plan(options: argparse.Namespace) -> Plan:
    plan = Plan(1, 2.0, 0.7, quick=True) if options.quick else Plan()
    plan.rounds = options.rounds or plan.rounds
    plan.seconds = options.seconds or plan.seconds
    plan.only = tuple(name for name in options.only.split(",") if name)
    return plan


def _other(against: str | None) -> Cluster | None:
    if against is None:
        return None
    return RabbitMq() if against == "rabbitmq" else Remote("other", against.split(","))


def _say(line: str) -> None:
    print(line, flush=True)


def _run(options: argparse.Namespace, plan: Plan) -> int:
    about = machine.describe()
    _say(f"commit {about['commit']}, {about['cores']} cores, {about['processor']}, Python {about['python']}")
    chosen = [workload for workload in WORKLOADS if plan.wants(workload.name)]
    results: comparison.Results = {}
    names = ["warren"]
    if chosen:
        with contextlib.ExitStack() as stack:
            other = _other(options.against)
            clusters = [cluster for cluster in (Warren(), other) if cluster is not None]
            for cluster in clusters:
                stack.enter_context(cluster)
            names = [cluster.name for cluster in clusters]
            results = comparison.compare(chosen, clusters, plan, _say)
        _say("\n" + report.plain(report.rows(chosen, results, names)))
    grown = _grow(plan, all_of_it=options.growth)
    hops = micro.run_all(_say) if options.micro else {}
    document = report.as_json(about, plan, results, grown, hops)
    _say(f"\nsaved {report.save(document, datetime.now(UTC).strftime('%Y%m%dT%H%M%SZ'))}")
    if options.publish:
        report.publish(document, chosen)
        _say(f"wrote {report.PAGE}")
    return 1 if any(series["warren"].error for series in results.values()) else 0


def _grow(plan: Plan, *, all_of_it: bool) -> Growth:
    found: Growth = {}
    for name, measure in growth.GROWTH.items():
        if name not in plan.only and not (all_of_it and plan.wants(name)):
            continue
        try:
            found[name] = measure(plan)
        except (ClusterError, LoadError, OSError) as error:
            _say(f"{name:<12} failed: {error}")
            continue
        for row in found[name]:
            met = {True: "met", False: "MISSED", None: ""}[row.is_met]
            _say(f"{name:<12} {row.title}: {report.number(row.figure)} {row.target} {met}".rstrip())
    return found


if __name__ == "__main__":
    sys.exit(main())
