"""`warren dev`: a cluster on this machine, one child process a node, for trying and for testing.

The parent only starts, watches and ends its children; each is an ordinary `warren serve` on a file that the
parent wrote, so a node may as well be started by hand. A node that dies stays dead until it is asked for:
what dies on purpose in a test must not come back by itself. `--restart` leaves a note that the parent finds.
"""

import ctypes
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from node.config import Config, ConfigError, load
from node.show import Json, fetch
from node.startup import StartupError, is_running, lock_directory, read_pid, write_file

HOST = "127.0.0.1"
NODES_USUAL = 3
READY_S_MAX = 60.0
END_S_MAX = 15.0
TURN_S = 0.05
PR_SET_PDEATHSIG = 1
# Settings of one node: a variable of the shell must not give all nodes the same name or port.
OWN_SETTINGS = ("NAME", "CLUSTER_NAME", "DATA", "AMQP", "HTTP", "CLUSTER", "PEERS", "CONFIG")


@dataclass(slots=True, frozen=True)
class DevOptions:
    """What the user asked for. `nodes`: None for as many as before, or the usual number."""

    data: Path
    nodes: int | None
    amqp_port: int
    http_port: int
    cluster_port: int
    restart: str | None


@dataclass(slots=True)
class Child:
    """A node and its process, if it has one that is ours."""

    config: Config
    file: Path
    process: subprocess.Popen[bytes] | None = None
    log_start: int = 0

    @property
    def log(self) -> Path:
        """Where the node's output goes."""
        return self.config.data / "warren.log"

    @property
    def note(self) -> Path:
        """The file by which `--restart` asks for this node."""
        return self.config.data / "warren.restart"


def run_dev(options: DevOptions) -> int:
    """Run the cluster until it is told to end; returns the exit code."""
    if options.restart is not None:
        return _restart(options.data, options.restart)
    lock = lock_directory(options.data)
    try:
        write_file(options.data / "warren.pid", f"{os.getpid()}\n")
        names = _names(options)
        files = [_write_config(options, names, number) for number in range(len(names))]
        return _Supervisor([Child(load(file, {}), file) for file in files]).run()
    finally:
        (options.data / "warren.pid").unlink(missing_ok=True)
        os.close(lock)


def _names(options: DevOptions) -> list[str]:
    existing = len(sorted(options.data.glob("n[1-9]/warren.toml")))
    count = options.nodes or existing or NODES_USUAL
    if existing and count != existing:
        raise ConfigError(f"--nodes: {options.data} holds a cluster of {existing} nodes, not {count}")
    return [f"n{number + 1}" for number in range(count)]


def _write_config(options: DevOptions, names: list[str], number: int) -> Path:
    """Write the settings of a node; the ports may change from run to run, names and data may not."""
    home = options.data.absolute() / names[number]
    home.mkdir(exist_ok=True)
    text = ["# Written by `warren dev` at each start."]
    values = {
        "name": names[number],
        "data": str(home),
        "amqp": f"{HOST}:{options.amqp_port + number}",
        "http": f"{HOST}:{options.http_port + number}",
        "cluster": f"{HOST}:{options.cluster_port + number}",
        "peers": ",".join(f"{name}={HOST}:{options.cluster_port + i}" for i, name in enumerate(names)),
    }
    text += [f"{key} = {_toml(value)}" for key, value in values.items()]
    write_file(home / "warren.toml", "\n".join(text) + "\n")
    return home / "warren.toml"


def _toml(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _restart(data: Path, name: str) -> int:
    """Have a dead node started by the `warren dev` that runs on the data, or run it here if there is none."""
    file = data / name / "warren.toml"
    if "/" in name or not file.exists():
        raise ConfigError(f"--restart: there is no node {name!r} in {data}")
    child = Child(load(file, {}), file)
    if is_running(child.config.data):
        raise StartupError(f"node {name} is running as process {read_pid(child.config.data)}")
    if not is_running(data):
        lock = lock_directory(data)
        try:
            return _Supervisor([child]).run()
        finally:
            os.close(lock)
    write_file(child.note, "")
    deadline = time.monotonic() + READY_S_MAX
    while child.note.exists() or not _is_ready(child):
        if time.monotonic() > deadline or not is_running(data):
            raise StartupError(f"node {name} is not ready: see {child.log}")
        if not child.note.exists() and not is_running(child.config.data) and (line := _complaint(child)):
            raise StartupError(f"node {name}: {line}")
        time.sleep(TURN_S)
    print(f"ready    {name} again, amqp://{child.config.amqp}", flush=True)
    return 0


@dataclass(slots=True)
class _Supervisor:
    children: list[Child]
    _ending: bool = field(default=False)

    def run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._end)
        try:
            return self._run()
        finally:
            _end_all(self.children)

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        self._ending = True

    def _run(self) -> int:
        started = time.monotonic()
        for child in self.children:
            child.note.unlink(missing_ok=True)
            _start(child)
        if not self._wait_until_ready(started + READY_S_MAX):
            return 0
        print(_welcome(self.children, time.monotonic() - started), flush=True)
        while not self._ending:
            for child in self.children:
                self._look_after(child)
            time.sleep(TURN_S)
        return 0

    def _wait_until_ready(self, deadline: float) -> bool:
        """Wait until every node serves and knows a leader of every group; False if told to end before."""
        waiting = list(self.children)
        while waiting and not self._ending:
            for child in waiting:
                if child.process is not None and child.process.poll() is not None:
                    self._give_up(child)
            waiting = [child for child in waiting if not _is_ready(child)]
            if waiting and time.monotonic() > deadline:
                names = ", ".join(child.config.name for child in waiting)
                raise StartupError(f"not ready after {READY_S_MAX:.0f} s: {names} (see {waiting[0].log})")
            time.sleep(TURN_S)
        return not self._ending

    def _give_up(self, child: Child) -> None:
        assert child.process is not None
        line = _complaint(child) or f"ended with code {child.process.returncode}, see {child.log}"
        if child.process.returncode == 2:
            raise ConfigError(f"node {child.config.name}: {line}")
        raise StartupError(f"node {child.config.name}: {line}")

    def _look_after(self, child: Child) -> None:
        """Say that a node has ended; start the one that was asked for."""
        name = child.config.name
        if child.process is not None and (code := child.process.poll()) is not None:
            child.process = None
            how = f"by signal {-code}" if code < 0 else f"with code {code}"
            print(f"node {name} ended {how}; to start it again: {serve_line(child)}", flush=True)
        if child.note.exists():
            child.note.unlink()
            if not is_running(child.config.data):
                _start(child)


def _start(child: Child) -> None:
    child.config.data.mkdir(parents=True, exist_ok=True)
    hidden = {f"WARREN_{name}" for name in OWN_SETTINGS}
    parent = os.getpid()
    with child.log.open("ab") as log:
        child.log_start = log.tell()
        child.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "node", "serve", "--config", str(child.file)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={key: value for key, value in os.environ.items() if key not in hidden},
            # A group of its own: Ctrl-C reaches the parent alone, which then ends the nodes in order.
            process_group=0,
            # The parent has one thread, so running code between fork and exec is safe.
            preexec_fn=lambda: _end_with(parent),  # noqa: PLW1509
        )


def _end_with(parent: int) -> None:
    """Have the kernel end this process when its parent dies, even by SIGKILL."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _end_all(children: list[Child]) -> None:
    running = [
        child.process for child in children if child.process is not None and child.process.poll() is None
    ]
    for process in running:
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGCONT)
    deadline = time.monotonic() + END_S_MAX
    for process in running:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _is_ready(child: Child) -> bool:
    try:
        status: Json = fetch(f"http://{child.config.http}", "/status?queues=0", timeout_s=1.0)
    except StartupError:
        return False
    shards = status["shards"]
    assert isinstance(shards, list)
    # Another cluster may answer on this port while our node is about to find it taken.
    is_ours = status["pid"] == read_pid(child.config.data)
    return is_ours and bool(status["is_ready"]) and all(shard["leader"] for shard in shards)


def _complaint(child: Child) -> str | None:
    """The line that a node printed when it could not start."""
    try:
        with child.log.open("rb") as log:
            log.seek(child.log_start)
            lines = log.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return None
    found = [line.removeprefix("warren: ") for line in lines if line.startswith("warren: ")]
    return found[-1] if found else None


def command() -> str:
    """How the user calls the command `warren` from where they stand."""
    script = Path(sys.argv[0])
    if script.name == "warren":
        return shlex.quote(sys.argv[0])
    return f"{shlex.quote(sys.executable)} -m node"


def serve_line(child: Child) -> str:
    """The line that starts a node by hand."""
    return f"{command()} serve --config {shlex.quote(str(child.file))}"


def _welcome(children: list[Child], took_s: float) -> str:
    first, last = children[0].config, children[-1].config
    nodes = "1 node" if len(children) == 1 else f"{len(children)} nodes"
    lines = [
        f"ready    {nodes} after {took_s:.1f} s, data in {first.data.parent}",
        "",
        "connect  " + "\n         ".join(f"{_url(child.config)}  {child.config.name}" for child in children),
        f"status   http://{first.http}/status",
        "",
        f"try      send through {first.name}, take it from {last.name}, look at the cluster:",
        _try(first, "c.queue_declare('hello', durable=True); c.basic_publish('', 'hello', b'hi')"),
        _try(last, "print(c.basic_get('hello', auto_ack=True)[2])"),
        f"  {command()} status --http http://{first.http}",
        "",
        "restart  a node that died:",
        *[f"  {serve_line(child)}" for child in children],
        "",
        "Ctrl-C ends the cluster; the data stays.",
    ]
    return "\n".join(lines)


def _url(config: Config) -> str:
    return f"amqp://guest:guest@{config.amqp}"


def _try(config: Config, calls: str) -> str:
    channel = f"pika.BlockingConnection(pika.URLParameters('{_url(config)}')).channel()"
    return f'  {shlex.quote(sys.executable)} -c "import pika; c = {channel}; {calls}"'
