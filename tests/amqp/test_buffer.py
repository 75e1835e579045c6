"""The receive buffer joins pieces only when there is something to understand."""

from node.amqp.buffer import ReceiveBuffer
from node.wire.methods import frame


def test_take_waits_for_an_announced_frame() -> None:
    """The pieces of a large frame are not joined before its end has come."""
    whole = frame(3, 1, bytes(100_000))
    buffer = ReceiveBuffer()
    buffer.add(whole[:50])
    buffer.put_back_incomplete(buffer.take(), 0)
    for at in range(50, len(whole) - 1, 1000):
        buffer.add(whole[at : min(at + 1000, len(whole) - 1)])
        assert buffer.take() == b""
    buffer.add(whole[-1:])
    assert buffer.take() == whole
    assert buffer.size_bytes == 0


def test_take_looks_behind_complete_frames() -> None:
    """A content may wait for its body: what is needed is the end of the body's frame."""
    waiting = frame(1, 1, b"\0\x3c\0\x28") + frame(2, 1, bytes(14)) + frame(3, 1, bytes(500))[:20]
    buffer = ReceiveBuffer()
    buffer.add(waiting)
    buffer.put_back_incomplete(buffer.take(), 0)
    buffer.add(bytes(487))
    assert buffer.take() == b""
    buffer.add(b"\xce")
    assert len(buffer.take()) == len(waiting) + 488


def test_put_back_is_taken_at_once() -> None:
    buffer = ReceiveBuffer()
    buffer.add(b"abc")
    buffer.put_back(buffer.take(), 1)
    assert buffer.take() == b"bc"
    buffer.add(b"x")
    buffer.clear()
    assert buffer.take() == b""
