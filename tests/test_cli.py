"""The command: exit codes, and one line on standard error."""

import socket
import threading
from pathlib import Path

import pytest

from node.cli import main


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    try:
        code = main(arguments)
    except SystemExit as ended:
        code = int(ended.code or 0)
    error = capsys.readouterr().err
    assert error.count("\n") <= 1
    return code, error.rstrip("\n")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("serve", "--frob"), "warren: unrecognized arguments: --frob (see warren --help)"),
        (("serve", "--amqp", "x"), "warren: --amqp: 'x' is not host:port"),
        (
            ("serve", "--config", "/nowhere"),
            "warren: cannot read configuration /nowhere: No such file or directory",
        ),
        (("dev", "--nodes", "0"), "warren: --nodes: must be 1 to 9, not 0"),
        (
            ("dev", "--amqp-port", "0"),
            "warren: argument --amqp-port: '0' is not a port (see warren dev --help)",
        ),
        (
            ("dev", "--restart", "n1", "--data", "/nowhere"),
            "warren: --restart: there is no node 'n1' in /nowhere",
        ),
        (("status", "--http", "ftp://x"), "warren: --http: 'ftp://x' is not http://host:port"),
        ((), "warren: the following arguments are required: dev | serve | status (see warren --help)"),
    ],
)
def test_bad_usage_gives_one_line_and_two(
    arguments: tuple[str, ...], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(capsys, *arguments) == (2, expected)


def test_nobody_answers_gives_one_line_and_one(capsys: pytest.CaptureFixture[str]) -> None:
    code, error = run(capsys, "status", "--http", "127.0.0.1:1")
    assert (code, error.partition(": [")[0]) == (1, "warren: no node answers at http://127.0.0.1:1")


def test_something_else_answers_gives_one_line_and_one(capsys: pytest.CaptureFixture[str]) -> None:
    """A client may even reach itself, where it is given the very port that it asks for."""

    def echo() -> None:
        client, _ = server.accept()
        with client:
            client.sendall(client.recv(4096))

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=echo)
        thread.start()
        where = f"127.0.0.1:{server.getsockname()[1]}"
        code, error = run(capsys, "status", "--http", where)
        thread.join()
    assert (code, error) == (1, f"warren: no node answers at http://{where}: GET /status HTTP/1.1")


def test_dev_with_another_number_of_nodes_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("n1", "n2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "warren.toml").touch()
    assert run(capsys, "dev", "--nodes", "3", "--data", str(tmp_path)) == (
        2,
        f"warren: --nodes: {tmp_path} holds a cluster of 2 nodes, not 3",
    )
