"""What a node claims before it serves: its data directory and its ports, with one clear line where it cannot.

The directory holds `warren.lock` (locked while a process uses it), `warren.pid` and `identity.json`, which
says to which node of which cluster the data belongs. A shell; it knows neither AMQP nor Raft.
"""

import contextlib
import errno
import fcntl
import json
import os
import socket
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from node.config import Address, Config

FORMAT = 1
BACKLOG_MAX = 4096


class StartupError(Exception):
    """The node cannot start; the text is the one line that the user sees. Exit code 1."""


@dataclass(slots=True, frozen=True)
class Identity:
    """Whose data a directory holds. Fixed when the cluster is formed; any difference is refused at start."""

    cluster_name: str
    name: str
    nodes: list[str]
    shards: int
    replicas: int
    format: int = FORMAT

    @classmethod
    def of(cls, config: Config) -> Self:
        """Name the node that the settings describe."""
        names = [peer.name for peer in config.members]
        return cls(config.cluster_name, config.name, names, config.shards, config.replicas)


class DataDirectory:
    """A data directory that this process owns. Keep it until the store is closed."""

    def __init__(self, path: Path, lock: int, *, is_new: bool) -> None:
        """Hold an open lock; use `claim`."""
        self.path = path
        self.is_new = is_new
        self._lock = lock

    def close(self) -> None:
        """Give the directory back: the pid file goes, the data stays."""
        (self.path / "warren.pid").unlink(missing_ok=True)
        os.close(self._lock)


def claim(config: Config) -> DataDirectory:
    """Lock the data directory of `config`, make it if needed, and check whose it is.

    Raises:
        StartupError: in use, of another node or cluster, not writable, or the disk is full.
    """
    path = config.data
    lock = lock_directory(path)
    try:
        is_new = _check_identity(path, Identity.of(config))
        write_file(path / "warren.pid", f"{os.getpid()}\n")
    except OSError as error:
        os.close(lock)
        raise StartupError(f"data directory {path}: {describe(error)}") from error
    except StartupError:
        os.close(lock)
        raise
    return DataDirectory(path, lock, is_new=is_new)


def lock_directory(path: Path) -> int:
    """Make a directory if needed and lock it; returns the open lock. Raises StartupError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = os.open(path / "warren.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise StartupError(f"data directory {path}: {describe(error)}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise StartupError(
            f"data directory {path} is in use by process {read_pid(path) or 'unknown'}"
        ) from error
    return lock


def _check_identity(path: Path, wanted: Identity) -> bool:
    """Compare with the stored identity, or store it; returns whether the directory is new."""
    file = path / "identity.json"
    if not file.exists():
        strangers = [
            entry
            for entry in sorted(os.listdir(path))
            if not entry.startswith(("warren.", "lost+found", "."))
        ]
        if strangers:
            raise StartupError(
                f"data directory {path} holds something else ({strangers[0]}): name an empty one"
            )
        write_file(file, json.dumps(asdict(wanted), indent=1) + "\n")
        return True
    try:
        stored = json.loads(file.read_bytes())
        differing = next((key for key, value in asdict(wanted).items() if stored[key] != value), None)
    except (ValueError, KeyError, TypeError) as error:
        raise StartupError(f"data directory {path}: {file.name} is damaged") from error
    if differing is None:
        return False
    if differing in ("cluster_name", "name"):
        raise StartupError(
            f"data directory {path} belongs to node {stored['name']!r} of cluster "
            f"{stored['cluster_name']!r}, not to node {wanted.name!r} of cluster {wanted.cluster_name!r}"
        )
    raise StartupError(
        f"data directory {path} was formed with {differing} = {stored[differing]}, "
        f"the configuration says {asdict(wanted)[differing]}"
    )


def read_pid(path: Path) -> int | None:
    """Read the process id in `warren.pid`, or None."""
    with contextlib.suppress(OSError, ValueError):
        return int((path / "warren.pid").read_text())
    return None


def is_running(path: Path) -> bool:
    """Tell whether a process holds the data directory."""
    try:
        lock = os.open(path / "warren.lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def write_file(file: Path, text: str) -> None:
    """Replace a small file by `text`, wholly or not at all, and make it durable."""
    spare = file.with_name(f"{file.name}.new")
    with spare.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    spare.replace(file)
    directory = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def listen(address: Address, purpose: str) -> socket.socket:
    """Open a listening socket. Claiming all ports first keeps a node from half starting.

    Args:
        address: where.
        purpose: `amqp`, `http` ...: the setting that the message names.

    Raises:
        StartupError: the port is in use, or the host is not ours.
    """
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        server = socket.socket(family, kind, protocol)
    except OSError as error:
        raise StartupError(f"cannot listen on {address} ({purpose}): {describe(error)}") from error
    try:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(target)
        server.listen(BACKLOG_MAX)
    except OSError as error:
        server.close()
        raise StartupError(f"cannot listen on {address} ({purpose}): {describe(error)}") from error
    server.setblocking(False)
    return server


def describe(error: OSError) -> str:
    """Say in a user's words what went wrong."""
    words = {
        errno.EADDRINUSE: "the port is in use",
        errno.EADDRNOTAVAIL: "this machine has no such address",
        errno.ENOSPC: "no space left on the disk",
        errno.EDQUOT: "the disk quota is used up",
        errno.EACCES: "permission denied",
        errno.EROFS: "the file system is read-only",
    }
    return words.get(error.errno or 0) or error.strerror or str(error)
