"""What a node claims before it serves, and the one line where it cannot."""

import os
import socket
from pathlib import Path

import pytest

from node.config import Address, Config, load
from node.startup import StartupError, claim, is_running, listen, read_pid


def config(path: Path, **flags: str) -> Config:
    return load(None, {"data": str(path / "data"), **flags})


def refusal(settings: Config) -> str:
    with pytest.raises(StartupError) as caught:
        claim(settings).close()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_directory_is_claimed_and_given_back(tmp_path: Path) -> None:
    settings = config(tmp_path)
    directory = claim(settings)
    assert directory.is_new
    assert read_pid(settings.data) == os.getpid()
    assert is_running(settings.data)
    directory.close()
    assert not is_running(settings.data)
    assert read_pid(settings.data) is None
    again = claim(settings)
    assert not again.is_new
    again.close()


def test_directory_in_use_is_refused(tmp_path: Path) -> None:
    directory = claim(config(tmp_path))
    assert refusal(config(tmp_path)) == f"data directory {tmp_path}/data is in use by process {os.getpid()}"
    directory.close()


def test_directory_of_another_cluster_is_refused(tmp_path: Path) -> None:
    claim(config(tmp_path)).close()
    assert refusal(config(tmp_path, cluster_name="other")) == (
        f"data directory {tmp_path}/data belongs to node 'n1' of cluster "
        "'warren', not to node 'n1' of cluster 'other'"
    )
    assert "was formed with shards = 16, the configuration says 4" in refusal(config(tmp_path, shards="4"))


def test_directory_with_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "holiday.jpg").touch()
    assert "holds something else (holiday.jpg)" in refusal(config(tmp_path))


def test_directory_with_a_damaged_identity_is_refused(tmp_path: Path) -> None:
    claim(config(tmp_path)).close()
    (tmp_path / "data" / "identity.json").write_text("{")
    assert "identity.json is damaged" in refusal(config(tmp_path))


def test_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    assert refusal(config(tmp_path)) == f"data directory {tmp_path}/data: File exists"


def test_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    assert refusal(config(tmp_path)) == f"data directory {tmp_path}/data: no space left on the disk"


def test_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartupError) as caught:
            listen(Address("127.0.0.1", port), "amqp")
    assert str(caught.value) == f"cannot listen on 127.0.0.1:{port} (amqp): the port is in use"


def test_strange_address_is_named() -> None:
    with pytest.raises(
        StartupError, match=r"cannot listen on 192\.0\.2\.1:1 \(http\): this machine has no such address"
    ):
        listen(Address("192.0.2.1", 1), "http")
