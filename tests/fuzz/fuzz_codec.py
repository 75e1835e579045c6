"""Feeds the codec what a coverage-guided fuzzer makes: `python -m tests.fuzz.fuzz_codec -max_total_time=60`.

Claims: no bytes make scan raise; both codecs agree; what was consumed means the same however the stream is
cut; what scan packs, content_frames takes; arguments and headers decode or raise an AmqpError. Needs atheris
(the extra `fuzz`); tests/fuzz/test_fuzz_codec.py runs the same on random bytes without it.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

from node.errors import AmqpError
from node.wire import reference
from node.wire.items import ERROR, HEADER, METHOD, PUBLISH, Item
from node.wire.methods import (
    BasicAck,
    BasicPublish,
    ConnectionStartOk,
    QueueDeclare,
    decode_method,
    decode_publish_args,
    frame,
    method_frame,
)
from node.wire.properties import BasicProperties, decode_header, encode_header
from tests.wire.streams import CODECS, frames_meant, joined_bodies, message

FRAME_MAXES = (0, 64, 4096, 131072)
RUN_MAXES = (0, 100, 262144)

SEEDS = (
    message(1, b"hello") * 3 + message(2, b""),
    message(
        1, b"hello world", piece=4, properties=BasicProperties(headers={"a": [1, {"b": None}]}, type="t")
    ),
    message(
        1, b"x", properties=BasicProperties(headers={"CC": ["a"], "x-delay": 5}, priority=1, expiration="9")
    )
    + message(
        1, b"y", properties=BasicProperties(headers={"x-dedup-id": "z"}, reply_to="amq.rabbitmq.reply-to")
    ),
    b"".join(method_frame(1, BasicAck(delivery_tag=tag)) for tag in (1, 2, 3, 9)) + frame(8, 0, b""),
    method_frame(1, QueueDeclare(queue="q", arguments={"x-max-length": 5, "t": 1.5, "n": {"d": [b"x"]}})),
    method_frame(0, ConnectionStartOk(client_properties={"product": "x"}, response=b"\0guest\0guest")),
    method_frame(1, BasicPublish())
    + frame(2, 1, encode_header(70000, BasicProperties()))
    + frame(3, 1, b"x"),
)


def fuzz_one(data: bytes) -> None:
    """Check all claims on one input: two octets choose limits and cuts, the rest is the stream.

    Raises:
        AssertionError: a claim does not hold.
    """
    if len(data) < 2:
        return
    frame_max = FRAME_MAXES[data[0] % len(FRAME_MAXES)]
    run_max = RUN_MAXES[data[0] // 16 % len(RUN_MAXES)]
    stream = data[2:]
    items, consumed = reference.scan(stream, frame_max, run_max)
    assert 0 <= consumed <= len(stream)
    for codec in CODECS:
        assert codec.scan(stream, frame_max, run_max) == (items, consumed)
    _check_cut(stream, frame_max, run_max, data[1] + 1, items)
    for item in items:
        _check_item(item, frame_max)
    _check_records(stream, frame_max, data[1])


def _check_cut(stream: bytes, frame_max: int, run_max: int, piece: int, whole: list[Item]) -> None:
    found: list[Item] = []
    buffer = b""
    for start, end in pairwise([*range(0, len(stream), piece), len(stream)]):
        buffer += stream[start:end]
        items, consumed = CODECS[-1].scan(buffer, frame_max, run_max)
        found += items
        buffer = buffer[consumed:]
        if items and items[-1][0] == ERROR:
            break
    assert joined_bodies(frames_meant(found)) == joined_bodies(frames_meant(whole))


def _check_item(item: Item, frame_max: int) -> None:
    if item[0] == PUBLISH:
        for _, count, packed in item[2]:
            assert CODECS[-1].skip(packed, 0, count) == len(packed)
            answers = [
                codec.content_frames(packed, 0, count, item[1], b"\0\x3c\0\x3c", 1, b"\0", b"", frame_max)
                for codec in CODECS
            ]
            assert answers == answers[:1] * len(answers)
    try:
        if item[0] == PUBLISH:
            for args, _, _ in item[2]:
                decode_publish_args(args)
        elif item[0] == METHOD:
            decode_method(item[2], item[3])
        elif item[0] == HEADER:
            decode_header(item[2])
    except AmqpError as error:
        assert error.reply_code >= 500  # noqa: PT017 - both outcomes are right
        assert len(error.reply_text.encode()) <= 255  # noqa: PT017


def _check_records(data: bytes, frame_max: int, count: int) -> None:
    """Stored records may be cut or wrong after a fault of the disk: an error, never a read beyond them."""
    answers: list[object] = []
    for codec in CODECS:
        try:
            answers.append(codec.content_frames(data, 0, count, 1, b"head", 1, b"f", b"tail", frame_max))
        except ValueError as error:
            answers.append(str(error))
    assert answers == answers[:1] * len(answers)


def main() -> None:
    """Run atheris on its own command line arguments."""
    import atheris  # type: ignore[import-untyped]  # publishes no types

    with atheris.instrument_imports(include=["node.wire"]):
        for name in [name for name in sys.modules if name.startswith(("node.", "tests.wire"))]:
            del sys.modules[name]
        instrumented = importlib.import_module("tests.fuzz.fuzz_codec")
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(SEEDS):
            Path(corpus, f"seed{number}").write_bytes(b"\x00\x20" + seed)
        atheris.Setup([*sys.argv, corpus], instrumented.fuzz_one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
