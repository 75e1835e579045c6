"""`warren status`: asks a node over HTTP and prints tables for a person, or the JSON as it came."""

import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

from node.config import ConfigError
from node.startup import StartupError

TIMEOUT_S = 10.0
QUEUES_SHOWN_MAX = 50

Json = Mapping[str, "str | int | float | bool | list[Json] | None"]


def run_status(url: str, *, as_json: bool) -> int:
    """Print the status of the cluster as the node at `url` sees it."""
    status = fetch(url, "/status", timeout_s=TIMEOUT_S)
    print(json.dumps(status, indent=2) if as_json else render(status), flush=True)
    return 0


def fetch(url: str, path: str, *, timeout_s: float) -> Json:
    """Get JSON from a node.

    Args:
        url: `http://[user:password@]host:port`; a bare `host:port` is taken as HTTP.
        path: what to ask for.
        timeout_s: how long to wait for the answer.

    Raises:
        ConfigError: the URL is none.
        StartupError: no answer, or not that of a node.
    """
    parts = urllib.parse.urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"--http: {url!r} is not http://host:port")
    where = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    request = urllib.request.Request(f"{where}{path}")  # noqa: S310  # the scheme is checked above
    if parts.username is not None:
        login = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
        request.add_header("Authorization", f"Basic {b64encode(login.encode()).decode()}")
    # A node is reached directly: a proxy of the environment would be asked for 127.0.0.1.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=timeout_s) as answer:
            return cast("Json", json.load(answer))
    except urllib.error.HTTPError as error:
        with error:
            raise StartupError(
                f"{where}{path}: {error.code} {error.read(200).decode('utf-8', 'replace').strip()}"
            ) from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        # Whatever answers on the port: what it says may end with a line feed.
        reason = str(getattr(error, "reason", error)).strip()
        raise StartupError(f"no node answers at {where}: {reason}") from error


def render(status: Json) -> str:
    """Format the answer of `/status` as tables."""
    state = "ready" if status["is_ready"] else "not ready"
    here = f"cluster {status['cluster']}, seen by {status['node']} ({state})"
    clients = f"{status['connections']} connections, {status['channels']} channels, up {status['uptime_s']} s"
    queues = _list(status, "queues")
    shown = queues[:QUEUES_SHOWN_MAX]
    parts = [
        f"{here}, version {status['version']}",
        clients,
        "",
        _table("MEMBER ID ADDRESS STATE RTT_MS", [_member(member) for member in _list(status, "members")]),
        "",
        _table("SHARD LEADER REPLICAS TERM COMMIT APPLIED LAG QUEUES LOG_BYTES",
               [_shard(shard) for shard in _list(status, "shards")]),
        "",
        _table("QUEUE VHOST SHARD READY UNACKED DELAYED LETTERS CONSUMERS", [_queue(queue) for queue in shown])
        if shown else "no queues",
    ]  # fmt: skip
    if isinstance(count := status["queue_count"], int) and count > len(shown):
        parts.append(f"... and {count - len(shown)} more queues (--json shows the first {len(queues)})")
    alarms = _list(status, "alarms")
    parts += (
        ["", "alarms"] + [f"  {alarm['name']}: {alarm['text']}" for alarm in alarms]
        if alarms
        else ["", "no alarms"]
    )
    return "\n".join(parts)


def _list(status: Json, key: str) -> list[Json]:
    return cast("list[Json]", status[key])


def _member(member: Json) -> list[str]:
    rtt = "-" if member["rtt_ms"] is None else f"{member['rtt_ms']}"
    return [
        f"{member['name']}",
        f"{member['id']}",
        f"{member['address']}",
        "up" if member["is_up"] else "DOWN",
        rtt,
    ]


def _shard(shard: Json) -> list[str]:
    replicas = _list(shard, "replicas")
    voters = ",".join(str(replica["node"]) for replica in replicas if replica["role"] != "learner")
    lags = [f"{replica['node']}:{replica['lag']}" for replica in replicas if replica["lag"]]
    group = "meta" if shard["group"] == 0 else f"{shard['group']}"
    numbers = [f"{shard[key]}" for key in ("term", "commit", "applied")]
    return [
        group,
        f"{shard['leader'] or 'NONE'}",
        voters,
        *numbers,
        ",".join(lags) or "0",
        f"{shard['queues']}",
        f"{shard['log_bytes']}",
    ]


def _queue(queue: Json) -> list[str]:
    where = f"{queue['node']}" if queue["node"] else f"{queue['shard']}"
    return [
        f"{queue['name']}",
        f"{queue['vhost']}",
        where,
        *[f"{queue[key]}" for key in ("ready", "unacked", "delayed", "letters", "consumers")],
    ]


def _table(header: str, rows: Iterable[Sequence[str]]) -> str:
    lines = [header.split(), *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
