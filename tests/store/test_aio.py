"""A write that is under way while the caller does other things."""

import os
from pathlib import Path

import pytest

from node.store import aio
from node.store.aio import AsyncWrite, PageMemory

PAGE = 4096


def made(*, is_refused: bool) -> AsyncWrite:
    """Args: is_refused: the kernel allows no asynchronous IO."""
    write = AsyncWrite()
    if is_refused:
        write._call = lambda *_: -1
    return write


@pytest.mark.parametrize("is_refused", [False, True])
def test_what_was_begun_is_written(tmp_path: Path, is_refused: bool) -> None:
    """Parts of the memory, one after the other, whether the kernel allows it or not."""
    memory = PageMemory(3 * PAGE)
    memory.view[:] = bytes([1]) * PAGE + bytes([2]) * PAGE + bytes([3]) * PAGE
    write = made(is_refused=is_refused)
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    for start, end, offset in ((PAGE, 3 * PAGE, 0), (0, PAGE, 5 * PAGE)):
        write.begin(fd, memory, start, end, offset)
        write.wait()
        assert write.end() == end - start
    write.close()
    os.close(fd)
    assert (tmp_path / "file").read_bytes() == (
        bytes([2]) * PAGE + bytes([3]) * PAGE + bytes(3 * PAGE) + bytes([1]) * PAGE
    )


@pytest.mark.parametrize("is_refused", [False, True])
def test_a_write_that_fails_raises(tmp_path: Path, is_refused: bool) -> None:
    """At once or in the end: never a count."""
    (tmp_path / "file").touch()
    write = made(is_refused=is_refused)
    fd = os.open(tmp_path / "file", os.O_RDONLY)

    def attempt() -> int:
        write.begin(fd, PageMemory(PAGE), 0, PAGE, 0)
        write.wait()
        return write.end()

    with pytest.raises(OSError, match="Bad file descriptor"):
        attempt()
    write.close()
    os.close(fd)


def test_a_machine_whose_calls_are_not_known_is_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There the same numbers mean something else."""
    monkeypatch.setattr(aio.platform, "machine", lambda: "s390x")
    write = AsyncWrite()
    write._call = lambda *_: pytest.fail("asked")
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    write.begin(fd, PageMemory(PAGE), 0, PAGE, 0)
    write.wait()
    assert write.end() == PAGE
    write.close()
    os.close(fd)


def test_where_the_kernel_refuses_it_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Once, with the reason; the writes are made all the same."""
    write = made(is_refused=True)
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    memory = PageMemory(PAGE)
    for _ in range(2):
        write.begin(fd, memory, 0, PAGE, 0)
        write.wait()
        assert write.end() == PAGE
    os.close(fd)
    assert len(caplog.messages) == 1
    assert "no asynchronous IO here" in caplog.text
