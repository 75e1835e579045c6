"""Fuzz: no bytes raise anything out of a connection, whatever the session answers.

With atheris: `python -m tests.fuzz.fuzz_connection [libFuzzer options]`. Without it the same entry runs on streams
of valid frames that were damaged; `test_fuzz_connection.py` runs some of these each time.
"""

import random
import struct
import sys

from node.amqp import Connection, Options
from node.amqp.content import parse_publish
from node.amqp.events import (
    ChannelClosed,
    ChannelClosing,
    ChannelOpened,
    ConnectionClosed,
    ConnectionClosing,
    Login,
    Open,
    Publish,
    Request,
    Settle,
)
from node.amqp.states import IGNORING
from node.errors import NotFound
from node.wire.codec import skip
from node.wire.fields import all_methods
from node.wire.methods import (
    BasicAck,
    BasicGet,
    BasicNack,
    BasicPublish,
    ChannelClose,
    ChannelCloseOk,
    ChannelOpen,
    ChannelOpenOk,
    ConfirmSelect,
    ConnectionOpen,
    ConnectionStartOk,
    ConnectionTuneOk,
    QueueDeclare,
    frame,
    method_frame,
)

OPTIONS = Options(message_size_bytes_max=100_000, run_bytes_max=2000, channel_max=3)
HEADER = b"AMQP\0\0\x09\x01"
GREETING = (
    method_frame(0, ConnectionStartOk({}, "PLAIN", b"\0guest\0guest"))
    + method_frame(0, ConnectionTuneOk(3, 4096, 10))
    + method_frame(0, ConnectionOpen("/"))
)
METHODS = (BasicNack(3), BasicGet(), ConfirmSelect(), ChannelCloseOk(), QueueDeclare(), ChannelClose())
SLOW_CHANNEL = 2
"""While it is open, or about to close, the session does not get to say goodbye."""
CUT = b"<cut>"
"""Where an input holds these bytes, it is handed over in two pieces, and time passes."""


def one_input(data: bytes) -> None:
    """Feed one input, in its pieces, to a connection with a session that answers."""
    connection = Connection(OPTIONS)
    ended = False
    for number, piece in enumerate(data.split(CUT)):
        now_ms = number * 1000
        events = connection.receive_data(piece, now_ms)
        while events:
            for event in events:
                assert not ended, f"{event} after the end"
                ended = isinstance(event, ConnectionClosing | ConnectionClosed)
                answer(connection, event)
            events = connection.receive_data(b"", now_ms)
        for event in connection.tick(now_ms + 500):
            assert not ended or isinstance(event, ConnectionClosed), f"{event} after the end"
            ended = isinstance(event, ConnectionClosing | ConnectionClosed)
        assert ended == (connection.state in IGNORING), "an end without an event, or the other way round"
        assert all(connection.data_to_send()), "an empty write"
    for now_ms in (10_000_000, 20_000_000):
        connection.tick(now_ms)
    assert connection.closing, "a dead connection stays for ever"


def answer(connection: Connection, event: object) -> None:
    """A session that says yes to most things, and sometimes no."""
    match event:
        case Login():
            connection.login_accepted("guest")
        case Open():
            connection.open_accepted()
        case ChannelOpened():
            event.channel.send(ChannelOpenOk())
            event.channel.record_delivery(1, 1, 20, no_ack=False)
        case Publish():
            assert event.runs
            for _, count, packed in event.runs:
                assert skip(packed, 0, count) == len(packed)
            total = sum(count for _, count, _ in event.runs)
            if event.first_seq:
                event.channel.confirm([(event.first_seq, event.first_seq + total - 1)], ok=total % 3 > 0)
            args = event.runs[0][0]
            event.channel.record_delivery(1, event.first_seq, total, no_ack=parse_publish(args).mandatory)
        case Settle():
            assert event.deliveries
        case Request():
            if event.method.name == "basic.get":
                event.channel.fail(NotFound("no queue 'q' in vhost '/'"))
        case _:
            say_goodbye(connection, event)


def say_goodbye(connection: Connection, event: object) -> None:
    """The end of the session's part, but where that would take for ever."""
    match event:
        case ChannelClosing():
            if event.channel.number != SLOW_CHANNEL:
                event.channel.finish()
                event.channel.take_all()
        case ChannelClosed():
            event.channel.take_all()
        case ConnectionClosing():
            if SLOW_CHANNEL not in connection.channels:
                connection.finish()
        case _:
            pass


def random_input(rng: random.Random) -> bytes:
    """A stream of frames, most of them right, some damaged."""
    parts = [HEADER + GREETING if rng.random() < 0.95 else HEADER]
    parts += [method_frame(channel, ChannelOpen()) for channel in (1, 2)]
    parts += [random_frames(rng) for _ in range(rng.randrange(40))]
    stream = bytearray(b"".join(parts))
    for _ in range(rng.choice((0, 0, 0, 1, 3))):
        at = rng.randrange(len(stream))
        stream[at] = rng.randrange(256)
    for _ in range(rng.randrange(5)):
        at = rng.randrange(len(stream))
        stream[at:at] = CUT
    return bytes(stream)


def random_frames(rng: random.Random) -> bytes:
    """One frame, or a message."""
    channel = rng.choices((1, 2, 3, 0), (60, 40, 1, 1))[0]
    kind = rng.choices(range(4), (5, 3, 2, 0.2))[0]
    if kind == 0:
        return random_message(rng, channel)
    if kind == 1:
        tags = range(rng.randrange(1, 9), rng.randrange(3, 15))
        return b"".join(method_frame(channel, BasicAck(tag)) for tag in tags)
    if kind == 2:
        return method_frame(channel, rng.choice(METHODS))
    made = rng.choice(all_methods())
    payload = struct.pack(">HH", made.class_id, made.method_id) + rng.randbytes(rng.randrange(20))
    return frame(rng.choices((1, 2, 3, 8), (20, 1, 1, 1))[0], channel, payload)


def random_message(rng: random.Random, channel: int) -> bytes:
    """One message, or three times the same; seldom without one of its frames."""
    body = bytes(rng.choices((0, 1, 50, 3000, 70_000, 100_001), (9, 9, 9, 9, 9, 1))[0])
    properties = rng.choices((b"\0\0", b"\x80\0\x03abc", b"\x20\0\0\0\0\0", b"\x80\0\xff"), (20, 10, 10, 1))[
        0
    ]
    exchange, immediate = rng.choice(("", "e")), rng.random() < 0.01
    method = BasicPublish(exchange=exchange, mandatory=rng.random() < 0.1, immediate=immediate)
    frames = [method_frame(channel, method)]
    frames.append(frame(2, channel, struct.pack(">HHQ", 60, 0, len(body)) + properties))
    size = rng.choice((4088, 1000))
    frames += [frame(3, channel, body[at : at + size]) for at in range(0, len(body), size)]
    if rng.random() < 0.02:
        del frames[rng.randrange(len(frames))]
    return b"".join(frames) * rng.choice((1, 1, 3))


def run(seed: int) -> None:
    """One damaged stream."""
    one_input(random_input(random.Random(seed)))


def main() -> None:
    """Fuzz until stopped, or as many seeds as the first argument says."""
    try:
        import atheris  # type: ignore[import-untyped]  # publishes no types
    except ImportError:
        seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
        for seed in range(seeds):
            try:
                run(seed)
            except Exception:
                print(f"seed {seed}")
                raise
        return
    atheris.instrument_all()
    atheris.Setup(sys.argv, lambda data: one_input(HEADER + GREETING + data))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
