"""Settings: where they come from, which goes first, and the one line that a wrong one gives."""

from pathlib import Path

import pytest

from node.config import Address, Config, ConfigError, load, parse_address


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.startswith("WARREN_")]:
        monkeypatch.delenv(name)


def write(path: Path, text: str) -> Path:
    file = path / "warren.toml"
    file.write_text(text)
    return file


def complaint(file: Path | None, flags: dict[str, str]) -> str:
    with pytest.raises(ConfigError) as caught:
        load(file, flags)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_defaults_are_a_node_that_is_alone() -> None:
    config = load(None, {})
    assert config.amqp == Address("127.0.0.1", 5672)
    assert [("n1", Address("127.0.0.1", 7672))] == list(config.members)
    assert config.node_id == 1
    assert config.message_size_bytes_max == 16 << 20
    assert config.loopback_users == ("guest",)


def test_flag_goes_before_variable_and_variable_before_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path, 'shards = 1\nreplicas = 1\nheartbeat_s = 1\nhttp = "127.0.0.1:1"')
    monkeypatch.setenv("WARREN_REPLICAS", "2")
    monkeypatch.setenv("WARREN_HEARTBEAT_S", "2")
    config = load(file, {"heartbeat_s": "3"})
    assert (config.shards, config.replicas, config.heartbeat_s, config.http.port) == (1, 2, 3, 1)


@pytest.mark.parametrize(
    "text", ['peers = "b=h:2,a=h:1"', 'peers = ["b=h:2", "a=h:1"]', 'peers = { b = "h:2", a = "h:1" }']
)
def test_peers_are_numbered_by_name(tmp_path: Path, text: str) -> None:
    config = load(write(tmp_path, text), {"name": "b"})
    assert [peer.name for peer in config.members] == ["a", "b"]
    assert config.node_id == 2


def test_sizes_take_units() -> None:
    assert load(None, {"cache_bytes_max": "32MiB"}).cache_bytes_max == 32 << 20


def test_empty_variable_is_an_empty_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARREN_LOOPBACK_USERS", "")
    assert load(None, {}).loopback_users == ()


@pytest.mark.parametrize(
    ("text", "address"),
    [("[::1]:5", Address("::1", 5)), ("5", Address("127.0.0.1", 5)), ("a.b:65535", Address("a.b", 65535))],
)
def test_address_is_read(text: str, address: Address) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", "a:", ":5", "a:0", "a:65536", "a:-1", "a:b", "a:١"])
def test_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not host:port"):
        parse_address(text)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"amqp": "nowhere"}, "--amqp: 'nowhere' is not host:port"),
        ({"shards": "0"}, "--shards: Input should be greater than or equal to 1, not '0'"),
        ({"name": "a b"}, "--name: 'a b' is not a name of up to 63 letters, digits, '-', '_' and '.'"),
        ({"peers": "n2=h:1"}, "peers: 'n1', the name of this node, is not among them"),
        ({"peers": "n1=h:1,n1=h:2"}, "--peers: 'n1' is listed twice, not 'n1=h:1,n1=h:2'"),
        (
            {"log_level": "loud"},
            "--log-level: Input should be 'debug', 'info', 'warning' or 'error', not 'loud'",
        ),
        ({"election_timeout_ms": "100"}, "election_timeout_ms: must be at least 3 times raft_heartbeat_ms"),
    ],
)
def test_bad_flag_is_named(flags: dict[str, str], expected: str) -> None:
    assert complaint(None, flags) == expected


def test_bad_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARREN_HEARTBEAT_S", "soon")
    assert complaint(None, {}).startswith("WARREN_HEARTBEAT_S: ")


def test_unknown_variable_is_named_but_not_those_of_service_links(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "WARREN_PORT",
        "WARREN_SERVICE_HOST",
        "WARREN_PORT_5672_TCP_ADDR",
        "WARREN_SERVICE_PORT_AMQP",
    ):
        monkeypatch.setenv(name, "x")
    load(None, {})
    monkeypatch.setenv("WARREN_HARTBEAT_S", "1")
    assert complaint(None, {}) == "unknown setting in the environment: WARREN_HARTBEAT_S"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("shards = 'many'", "{}: shards: "),
        ("shard = 1", "{}: unknown setting 'shard'"),
        ("shards = = 1", "cannot read configuration {}: "),
        ("\udcff", "cannot read configuration {}: "),
    ],
)
def test_bad_file_is_named(tmp_path: Path, text: str, expected: str) -> None:
    file = tmp_path / "warren.toml"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert complaint(file, {}).startswith(expected.format(file))


def test_missing_file_is_named(tmp_path: Path) -> None:
    assert (
        complaint(tmp_path / "no", {})
        == f"cannot read configuration {tmp_path / 'no'}: No such file or directory"
    )


def test_every_setting_has_a_help_text() -> None:
    assert [name for name, field in Config.model_fields.items() if not field.description] == []
