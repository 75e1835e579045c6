"""The settings of one node: where they come from, what they mean, which values are possible.

A setting comes, in falling order, from a flag of `warren serve`, a `WARREN_...` variable, the TOML file,
or its default. The class below is the only list of them: flags, variables and the documented defaults are
all made from it. Units stand last in the names; sizes also take `64MiB`. Nothing on a message's path reads
this module: `node.app` fills the small options of each part from it.
"""

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, cast

from pydantic import BeforeValidator, ByteSize, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError

ENV_PREFIX = "WARREN_"
# Kubernetes and Docker set WARREN_PORT_5672_TCP and the like where a service is called "warren".
_SERVICE_LINK = re.compile(r"_(SERVICE_HOST|SERVICE_PORT|SERVICE_PORT_\w+|PORT|PORT_\d+_TCP(_\w+)?)$")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


class ConfigError(Exception):
    """A setting is wrong; the text is the one line that the user sees. Exit code 2."""


class Address(NamedTuple):
    """A host and a port to listen on or to connect to."""

    host: str
    port: int

    def __str__(self) -> str:
        """Format as the user writes it, with brackets around an IPv6 address."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Peer(NamedTuple):
    """One node of the cluster as the configuration lists it."""

    name: str
    address: Address


def parse_address(value: object) -> Address:
    """Read `host:port`, `[v6]:port` or a bare port (on 127.0.0.1). Raises ValueError with the reason."""
    if isinstance(value, Address):
        return value
    text = str(value).strip()
    host, colon, port = text.rpartition(":")
    if not colon:
        host = "127.0.0.1"
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"{text!r} is not host:port")
    return Address(host, int(port))


def parse_peers(value: object) -> tuple[Peer, ...]:
    """Read `n1=host:port,n2=host:port`, a list of such items or a table of addresses; sorted by name.

    Raises:
        ValueError: with the reason.
    """
    items: Sequence[object]
    if isinstance(value, Mapping):
        items = [f"{name}={address}" for name, address in value.items()]
    else:
        items = value.split(",") if isinstance(value, str) else cast("Sequence[object]", value)
    peers: dict[str, Peer] = {}
    for item in items:
        peer = item if isinstance(item, Peer) else _parse_peer(str(item))
        if peer is None:
            continue
        if peer.name in peers:
            raise ValueError(f"{peer.name!r} is listed twice")
        peers[peer.name] = peer
    return tuple(peers[name] for name in sorted(peers))


def _parse_peer(text: str) -> Peer | None:
    if not text.strip():
        return None
    name, equals, address = text.partition("=")
    if not equals or not _NAME.fullmatch(name.strip()):
        raise ValueError(f"{text.strip()!r} is not name=host:port")
    return Peer(name.strip(), parse_address(address))


def _split(value: object) -> object:
    """Read a list from `a,b` as variables and flags write it; leave a list of the file as it is."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


AddressField = Annotated[Address, NoDecode, BeforeValidator(parse_address)]
PeersField = Annotated[tuple[Peer, ...], NoDecode, BeforeValidator(parse_peers)]
NamesField = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]


class Config(BaseSettings):
    """Every setting of a node. The descriptions are the help texts of the flags."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, extra="forbid", frozen=True, validate_default=True
    )

    name: str = Field("n1", description="name of this node, unique in the cluster and never changed")
    cluster_name: str = Field(
        "warren", description="name of the cluster; the same on each node, never changed"
    )
    data: Path = Field(Path("warren-data/n1"), description="data directory of this node")
    amqp: AddressField = Field(
        Address("127.0.0.1", 5672), description="where AMQP clients connect, host:port"
    )
    http: AddressField = Field(
        Address("127.0.0.1", 15672), description="where status, health and metrics are served, host:port"
    )
    cluster: AddressField = Field(
        Address("127.0.0.1", 7672), description="where the other nodes connect, host:port"
    )
    peers: PeersField = Field(
        (),
        description="all nodes with the address under which others reach them: n1=host:port,n2=host:port,...",
    )

    shards: int = Field(16, ge=1, le=1024, description="number of shards; fixed when the cluster is formed")
    replicas: int = Field(
        3, ge=1, le=7, description="voting replicas of a shard; fixed when the cluster is formed"
    )

    rejoin: bool = Field(
        False, description="the old data directory of this node is lost, all others are up: come back blank"
    )

    default_user: str = Field("guest", min_length=1, description="user that a new cluster starts with")
    default_password: str = Field("guest", description="password of that user in a new cluster")
    loopback_users: NamesField = Field(("guest",), description="users who may only connect from this machine")

    frame_size_bytes_max: ByteSize = Field(
        ByteSize(131072), ge=4096, description="largest AMQP frame offered"
    )
    message_size_bytes_max: ByteSize = Field(
        ByteSize(16 << 20), ge=1, le=128 << 20, description="largest body of a message"
    )
    channels_max: int = Field(2047, ge=1, le=65535, description="most channels of a connection")
    connections_max: int = Field(65536, ge=1, description="most client connections of this node")
    heartbeat_s: int = Field(60, ge=0, le=65535, description="heartbeat interval offered to clients; 0: none")

    raft_heartbeat_ms: int = Field(
        200, ge=10, le=10000, description="interval of the heartbeats between nodes"
    )
    election_timeout_ms: int = Field(
        2000, ge=50, le=100000, description="silence after which an election starts"
    )
    session_grace_ms: int = Field(
        5000, ge=2000, description="how long the sessions of a silent node are kept; nodes speak every 500 ms"
    )

    store_size_bytes_max: ByteSize = Field(
        ByteSize(256 << 30),
        ge=64 << 20,
        description="largest size of the store; a bound, nothing is reserved",
    )
    disk_free_bytes_min: ByteSize = Field(
        ByteSize(256 << 20), ge=0, description="free disk space below which publishes are refused"
    )
    cache_bytes_max: ByteSize = Field(
        ByteSize(16 << 20), ge=1 << 20, description="memory for recent log entries"
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="what is logged")

    @field_validator("name", "cluster_name")
    @classmethod
    def _check_name(cls, value: str) -> str:
        if not _NAME.fullmatch(value):
            raise ValueError(f"{value!r} is not a name of up to 63 letters, digits, '-', '_' and '.'")
        return value

    @model_validator(mode="after")
    def _check_together(self) -> "Config":
        if self.peers and self.name not in [peer.name for peer in self.peers]:
            raise ValueError(f"peers: {self.name!r}, the name of this node, is not among them")
        if self.election_timeout_ms < 3 * self.raft_heartbeat_ms:
            raise ValueError("election_timeout_ms: must be at least 3 times raft_heartbeat_ms")
        return self

    @property
    def members(self) -> tuple[Peer, ...]:
        """All nodes in the order of their ids (1, 2, ...): by name. A node without peers is alone."""
        return self.peers or (Peer(self.name, self.cluster),)

    @property
    def node_id(self) -> int:
        """The id of this node, from 1."""
        return [peer.name for peer in self.members].index(self.name) + 1

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003  # the base class names it
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # the base class names it
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # the base class names it
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read variables only: `load` merges file and flags itself, so that it can name the one at fault."""
        return env_settings, init_settings


def load(file: Path | None, flags: Mapping[str, str]) -> Config:
    """Build the settings from file, variables and flags.

    Args:
        file: a TOML file, or None.
        flags: setting name to text, only those that were given.

    Raises:
        ConfigError: one line that names the setting and where it was set.
    """
    stored = _read(file) if file else {}
    _refuse_unknown(file, stored)
    # Flags go before variables: what is set by a flag must not be seen in the environment.
    hidden = {
        key: os.environ.pop(key)
        for key in [f"{ENV_PREFIX}{name.upper()}" for name in flags]
        if key in os.environ
    }
    try:
        return Config(**{**stored, **flags})  # type: ignore[arg-type]  # texts; pydantic converts them
    except ValidationError as error:
        raise ConfigError(_explain(error, file, stored, flags)) from None
    except SettingsError as error:
        raise ConfigError(str(error)) from None
    finally:
        os.environ.update(hidden)


def _refuse_unknown(file: Path | None, stored: Mapping[str, object]) -> None:
    for name in stored:
        if name not in Config.model_fields:
            raise ConfigError(f"{file}: unknown setting {name!r}")
    known = [f"{ENV_PREFIX}{name.upper()}" for name in Config.model_fields]
    for variable in sorted(os.environ):
        if not variable.startswith(ENV_PREFIX) or variable in known or variable == f"{ENV_PREFIX}CONFIG":
            continue
        if not _SERVICE_LINK.search(variable):
            raise ConfigError(f"unknown setting in the environment: {variable}")


def _read(file: Path) -> dict[str, object]:
    try:
        with file.open("rb") as stream:
            return tomllib.load(stream)
    except OSError as error:
        raise ConfigError(f"cannot read configuration {file}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read configuration {file}: {error}".replace("\n", " ")) from None


def _explain(
    error: ValidationError, file: Path | None, stored: Mapping[str, object], flags: Mapping[str, str]
) -> str:
    """Turn the first complaint into one line."""
    first = error.errors(include_url=False, include_context=False)[0]
    reason = first["msg"].removeprefix("Value error, ").replace("\n", " ")
    if not first["loc"]:
        return reason
    name = str(first["loc"][0])
    if name in flags:
        origin = f"--{name.replace('_', '-')}"
    elif f"{ENV_PREFIX}{name.upper()}" in os.environ:
        origin = f"{ENV_PREFIX}{name.upper()}"
    else:
        origin = f"{file}: {name}" if name in stored else name
    return (
        f"{origin}: {reason}"
        if repr(first["input"]) in reason
        else f"{origin}: {reason}, not {first['input']!r}"
    )
