"""The command `warren`: reads its arguments, calls what does the work, and turns errors into one line.

Exit codes: 0 done, 2 bad usage or configuration, 1 anything else.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import node
from node.config import ENV_PREFIX, Config, ConfigError, load
from node.dev import DevOptions, run_dev
from node.show import run_status
from node.startup import StartupError, describe

DEV_NODES_MAX = 9


class _Parser(argparse.ArgumentParser):
    """Complains in one line instead of with the whole usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"warren: {message} (see {self.prog} --help)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except ConfigError as error:
        return _fail(str(error), 2)
    except StartupError as error:
        return _fail(str(error), 1)
    except BrokenPipeError:
        # Who read the output has seen enough. Python would complain once more when it closes it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _fail(f"{error.filename}: {describe(error)}" if error.filename else describe(error), 1)
    except KeyboardInterrupt:
        return 130
    return code


def _fail(text: str, code: int) -> int:
    print(f"warren: {text}", file=sys.stderr, flush=True)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="warren", description="Warren, a clustered AMQP 0-9-1 broker.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"warren {node.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="dev | serve | status")
    _add_dev(commands.add_parser("dev", help="run a whole cluster on this machine", allow_abbrev=False))
    _add_serve(commands.add_parser("serve", help="run one node", allow_abbrev=False))
    _add_status(
        commands.add_parser("status", help="show members, shards, queues and alarms", allow_abbrev=False)
    )
    return parser


def _add_dev(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Run a cluster on 127.0.0.1, one process a node. Started again on the same data, it continues."
    )
    parser.add_argument(
        "--nodes", type=int, help=f"how many nodes, 1 to {DEV_NODES_MAX} (default: 3, or as before)"
    )
    parser.add_argument(
        "--data", type=Path, default=Path("warren-data"), help="directory of the data (warren-data)"
    )
    parser.add_argument("--amqp-port", type=_port, default=5672, help="AMQP port of the first node (5672)")
    parser.add_argument("--http-port", type=_port, default=15672, help="HTTP port of the first node (15672)")
    parser.add_argument(
        "--cluster-port", type=_port, default=7672, help="cluster port of the first node (7672)"
    )
    parser.add_argument(
        "--restart", metavar="NAME", help="start a node of the cluster in --data that has died"
    )
    parser.set_defaults(run=_dev)


def _port(text: str) -> int:
    port = int(text) if text.isascii() and text.isdigit() else 0
    if not 0 < port < 65536 - DEV_NODES_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port")
    return port


def _dev(options: argparse.Namespace) -> int:
    if options.nodes is not None and not 1 <= options.nodes <= DEV_NODES_MAX:
        raise ConfigError(f"--nodes: must be 1 to {DEV_NODES_MAX}, not {options.nodes}")
    return run_dev(
        DevOptions(
            data=options.data,
            nodes=options.nodes,
            amqp_port=options.amqp_port,
            http_port=options.http_port,
            cluster_port=options.cluster_port,
            restart=options.restart,
        )
    )


def _add_serve(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        f"Run one node. Every setting is also a variable ({ENV_PREFIX}NAME) and a line of the file; "
        "a flag goes before a variable, a variable before the file."
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file with settings")
    for name, field in Config.model_fields.items():
        default = f" (default: {field.default})" if field.default not in ((), "") else ""
        text = f"{field.description}{default}".replace("%", "%%")
        parser.add_argument(f"--{name.replace('_', '-')}", dest=f"setting_{name}", metavar="VALUE", help=text)
    parser.set_defaults(run=_serve)


def _serve(options: argparse.Namespace) -> int:
    given = vars(options)
    flags = {
        name: given[f"setting_{name}"] for name in Config.model_fields if given[f"setting_{name}"] is not None
    }
    variable = os.environ.get(f"{ENV_PREFIX}CONFIG")
    config = load(options.config or (Path(variable) if variable else None), flags)
    # Imported here, so that `warren status` does not load gRPC, LMDB and the broker.
    from node.app import run

    return run(config)


def _add_status(parser: argparse.ArgumentParser) -> None:
    parser.description = "Ask one node about the cluster."
    parser.add_argument(
        "--http", default="http://127.0.0.1:15672", metavar="URL",
        help="HTTP address of any node; http://user:password@host:port from another machine",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")
    parser.set_defaults(run=_status)


def _status(options: argparse.Namespace) -> int:
    return run_status(options.http, as_json=options.json)
