"""Debian's RabbitMQ as a cluster of three nodes on this machine, to be measured beside; or as one, to be compared with.

python -m bench.rabbitmq start|stop     (`python -m bench --against rabbitmq` does both by itself)

It has ports, a directory, cookies and an epmd of its own, and meddles with no other RabbitMQ. The package's
scripts must run as root or as the user rabbitmq. A node may open as many files as this process.
"""

import argparse
import contextlib
import os
import pwd
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.clusters import SCRATCH, ClusterError

AMQP_PORT = 26440
NODES = 3
USER = "rabbitmq"
START_S_MAX = 120
FOLDER = SCRATCH / "warren-bench-rabbitmq"


class RabbitMq:
    """Starts the nodes, joins them, ends them; the data goes with them."""

    def __init__(self, folder: Path = FOLDER, nodes: int = NODES, ports_from: int = AMQP_PORT) -> None:
        """`ports_from`: first of the AMQP ports; those between nodes lie 10 above, that of epmd 20 above."""
        self.name = "rabbitmq"
        self.hosts = [f"127.0.0.1:{ports_from + i}" for i in range(nodes)]
        self._folder = folder
        self._nodes = nodes
        self._ports_from = ports_from
        self._started: list[subprocess.Popen[bytes]] = []

    def pids(self) -> list[int]:
        """The Erlang machine of each node that runs; the file may be older than the process that has its number now."""
        found = []
        for node in range(1, self._nodes + 1):
            file = self._folder / f"n{node}" / "mnesia" / f"{_name(node)}.pid"
            with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
                pid = int(file.read_text())
                if os.fsencode(file.parent) in Path(f"/proc/{pid}/environ").read_bytes():
                    found.append(pid)
        return found

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the nodes and join them."""
        if shutil.which("rabbitmq-server") is None:
            raise ClusterError("RabbitMQ is not here: on Debian, apt-get install rabbitmq-server")
        shutil.rmtree(self._folder, ignore_errors=True)
        for node in range(1, self._nodes + 1):
            self._prepare(node)
        self._own()
        for node in range(1, self._nodes + 1):
            self._start(node)
            self._control(node, "await_startup", "--timeout", str(START_S_MAX))
        for node in range(2, self._nodes + 1):
            self._control(node, "stop_app")
            self._control(node, "join_cluster", _name(1))
            self._control(node, "start_app")
        self._control(1, "enable_feature_flag", "all")
        for node in range(1, self._nodes + 1):
            self._control(node, "await_online_nodes", str(self._nodes))

    def stop(self) -> None:
        """End the nodes and their epmd."""
        # Nobody needs the data: killed they are gone at once, where a node that is told to stop may take minutes.
        nodes = [os.pidfd_open(pid) for pid in self.pids()]
        for node in nodes:
            signal.pidfd_send_signal(node, signal.SIGKILL)
            select.select([node], [], [])  # it has ended
            os.close(node)
        while self._started:
            process = self._started.pop()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if shutil.which("epmd"):
            # It ends by itself only when asked to, and only when no node is registered.
            subprocess.run(["epmd", "-kill"], env=self._environment(1), capture_output=True, check=False)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _prepare(self, node: int) -> None:
        home = self._folder / f"n{node}"
        (home / "log").mkdir(parents=True)
        lines = [
            f"listeners.tcp.1 = 127.0.0.1:{self._ports_from + node - 1}",
            "loopback_users = none",
            "log.console = false",
        ]
        (home / "rabbitmq.conf").write_text("\n".join(lines) + "\n")
        (home / "enabled_plugins").write_text("[].\n")
        cookie = self._folder / ".erlang.cookie"
        cookie.write_text("WARRENBENCH")
        cookie.chmod(0o400)

    def _own(self) -> None:
        """The package's scripts change to the user rabbitmq, who must be able to write here."""
        if os.geteuid() != 0:
            return
        user = pwd.getpwnam(USER)
        for path in [self._folder, *self._folder.rglob("*")]:
            os.chown(path, user.pw_uid, user.pw_gid)

    def _environment(self, node: int) -> dict[str, str]:
        home = self._folder / f"n{node}"
        return {
            **os.environ,
            "HOME": str(self._folder),
            "ERL_EPMD_PORT": str(self._ports_from + 20),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": _name(node),
            "RABBITMQ_DIST_PORT": str(self._ports_from + 10 + node - 1),
            "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
            "RABBITMQ_MNESIA_BASE": str(home / "mnesia"),
            "RABBITMQ_LOG_BASE": str(home / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "enabled_plugins"),
            "RABBITMQ_PID_FILE": str(home / "mnesia" / f"{_name(node)}.pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"-setcookie {self._cookie()}",
            "RABBITMQ_CTL_ERL_ARGS": f"-setcookie {self._cookie()}",
        }

    @staticmethod
    def _cookie() -> str:
        return "WARRENBENCH"

    def _start(self, node: int) -> None:
        # Not as root: the package's script would change the user by `su`, which leaves 1,024 open files, enough for
        # some 180 quorum queues; with more of them a node answers no client any more.
        user = USER if os.geteuid() == 0 else None
        with (self._folder / f"n{node}.out").open("ab") as output:
            process = subprocess.Popen(
                ["rabbitmq-server"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._environment(node),
                cwd=self._folder,
                user=user,
                group=user,
                start_new_session=True,
            )
        self._started.append(process)
        # await_startup gives up at once while the node is not even registered.
        deadline = time.monotonic() + START_S_MAX
        while not self._control(node, "ping", must_succeed=False):
            if time.monotonic() > deadline:
                raise ClusterError(f"node {node} of RabbitMQ did not start: see {self._folder}")
            time.sleep(0.5)

    def _control(self, node: int, *command: str, must_succeed: bool = True) -> bool:
        tool = "rabbitmq-diagnostics" if command[0] == "ping" else "rabbitmqctl"
        done = subprocess.run(
            [tool, "--quiet", "--node", _name(node), "--erlang-cookie", self._cookie(), *command],
            env=self._environment(node),
            cwd=self._folder,
            capture_output=True,
            text=True,
            timeout=START_S_MAX,
            check=False,
        )
        if must_succeed and done.returncode != 0:
            raise ClusterError(
                f"rabbitmqctl {' '.join(command)}: {(done.stderr or done.stdout).strip()[:300]}"
            )
        return done.returncode == 0


def _name(node: int) -> str:
    return f"warrenbench{node}@localhost"


def main() -> int:
    """Start or stop, for use by hand."""
    parser = argparse.ArgumentParser(prog="python -m bench.rabbitmq", description="RabbitMQ on this machine")
    parser.add_argument("command", choices=("start", "stop"))
    cluster = RabbitMq()
    try:
        if parser.parse_args().command == "stop":
            cluster.stop()
        else:
            cluster.start()
            print(",".join(cluster.hosts))
    except ClusterError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
