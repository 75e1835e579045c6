"""What no well-behaved client sends: frames, headers and logins that are wrong, each to both brokers.

python -m integration.differential.frames [NAME...]

A case is the bytes that are sent and how far the connection has come before them. What the broker says until it falls
silent or ends the connection is compared: every method with its fields, and whether the end comes.
"""

import contextlib
import dataclasses
import socket
import struct
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from integration.differential.brokers import Address, Missing, both
from integration.differential.cases import CASES, Case, Stage
from integration.raw import HEADER, METHOD
from node.wire.methods import (
    ChannelClose,
    ChannelCloseOk,
    ChannelFlow,
    ChannelOpen,
    ConnectionClose,
    ConnectionCloseOk,
    ConnectionOpen,
    ConnectionStart,
    ConnectionStartOk,
    ConnectionTune,
    ConnectionTuneOk,
    Method,
    decode_method,
    method_frame,
)

SILENCE_S = 4.0
"""RabbitMQ waits three seconds before it ends a connection that it does not want to talk to."""
ATTEMPTS = 3
UNTOLD: dict[type[Method], set[str]] = {ConnectionStart: {"server_properties", "mechanisms"}}
"""Fields that differ by nature."""


class Talk:
    """One connection, brought to where a case begins."""

    def __init__(self, address: Address, case: Case) -> None:
        self._socket = socket.create_connection(address, SILENCE_S)
        self._rest = b""
        self._told: list[str] = []
        self._case = case

    def run(self) -> list[str]:
        """Everything that the broker says to the case."""
        with contextlib.closing(self._socket):
            self._prepare()
            self._send(self._case.data)
            is_open = self._case.stage is Stage.CHANNEL
            if is_open:
                self._send(method_frame(1, ChannelFlow(active=True)))
            while self._take():
                if is_open and self._told[-1].startswith("1 ChannelFlowOk(active=True"):
                    self._told[-1] = "and goes on"
                    break
        return self._told

    def _prepare(self) -> None:
        case = self._case
        if case.stage >= Stage.START:
            self._send(HEADER)
            self._wait(ConnectionStart)
        if case.stage >= Stage.TUNE:
            capabilities = {"authentication_failure_close": True, "consumer_cancel_notify": True}
            self._send(
                method_frame(0, ConnectionStartOk({"capabilities": capabilities}, "PLAIN", b"\0guest\0guest"))
            )
            self._wait(ConnectionTune)
        if case.stage >= Stage.OPEN:
            self._send(method_frame(0, ConnectionTuneOk(2047, 131072, 0)))
        if case.stage >= Stage.CHANNEL:
            self._send(method_frame(0, ConnectionOpen("/")) + method_frame(1, ChannelOpen()))
            while self._frame()[1] != 1:
                pass

    def _send(self, data: bytes) -> None:
        with contextlib.suppress(ConnectionError):
            self._socket.sendall(data)

    def _wait(self, wanted: type[Method]) -> None:
        kind, _, payload = self._frame()
        assert kind == METHOD
        assert struct.unpack_from(">HH", payload) == (wanted.class_id, wanted.method_id)

    def _take(self) -> bool:
        """Note what comes next; False once nothing will."""
        try:
            kind, channel, payload = self._frame()
        except TimeoutError:
            self._told.append("silence")
            return False
        except (ConnectionError, EOFError):
            self._told.append("the end")
            return False
        if kind != METHOD:
            self._told.append(f"{channel} frame of type {kind}: {payload!r}")
            return True
        found = decode_method(int.from_bytes(payload[:4], "big"), payload[4:])
        self._told.append(f"{channel} {_shown(found)}")
        if isinstance(found, ConnectionClose):
            self._send(method_frame(0, ConnectionCloseOk()))
        elif isinstance(found, ChannelClose):
            self._send(method_frame(channel, ChannelCloseOk()))
            # Whether the connection is as it was: the channel can be opened again.
            self._send(method_frame(channel, ChannelOpen()) + method_frame(channel, ChannelFlow(active=True)))
        # Who closes the socket after close-ok is nobody's business.
        return not isinstance(found, ConnectionCloseOk)

    def _frame(self) -> tuple[int, int, bytes]:
        while True:
            if self._rest.startswith(b"AMQP") and len(self._rest) >= 8:
                answer, self._rest = self._rest[:8], self._rest[8:]
                return 0, 0, answer
            if len(self._rest) >= 7 and not self._rest.startswith(b"AMQP"):
                kind, channel, size = struct.unpack_from(">BHI", self._rest)
                if len(self._rest) >= size + 8:
                    payload, self._rest = self._rest[7 : 7 + size], self._rest[size + 8 :]
                    return kind, channel, payload
            data = self._socket.recv(65536)
            if not data:
                raise EOFError
            self._rest += data


def _shown(found: Method) -> str:
    names = [field.name for field in dataclasses.fields(found)]  # type: ignore[arg-type]
    untold = UNTOLD.get(type(found), set())
    values = ", ".join(f"{name}={getattr(found, name)!r}" for name in names if name not in untold)
    return f"{type(found).__name__}({values})"


def compare(
    names: list[str], rabbitmq: Address, warren: Address, jobs: int = 8
) -> Iterator[tuple[str, list[str], list[str]]]:
    """What RabbitMQ and Warren say to each case, many at a time: most of them are waiting.

    Where they differ they are asked again: RabbitMQ's channels are processes, and of two answers of two channels
    either may come first.
    """

    def both_of(name: str) -> tuple[str, list[str], list[str]]:
        for _ in range(ATTEMPTS):
            said = Talk(rabbitmq, CASES[name]).run(), Talk(warren, CASES[name]).run()
            if said[0] == said[1] or CASES[name].row is not None:
                break
        return name, *said

    with ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(both_of, names)


def is_wrong(name: str, rabbitmq: list[str], warren: list[str]) -> bool:
    """Whether a case differs that must not, or no longer differs as its row says."""
    return (rabbitmq != warren) != (CASES[name].row is not None)


def report(name: str, rabbitmq: list[str], warren: list[str]) -> str:
    """A difference, to read."""
    sides = (("RabbitMQ", rabbitmq), ("Warren", warren))
    return "\n".join([name, *(f"  {side:9} {line}" for side, lines in sides for line in lines)])


def main() -> int:
    """Start both brokers, run the cases named on the command line or all, print what differs unexplained."""
    try:
        with both() as (rabbitmq, warren):
            found = list(compare(sys.argv[1:] or list(CASES), rabbitmq, warren[0]))
    except Missing as error:
        print(f"differential: {error}", file=sys.stderr)
        return 2
    wrong = [report(*each) for each in found if is_wrong(*each)]
    for each in wrong:
        print(each)
    explained = sum(1 for name, _, _ in found if CASES[name].row is not None)
    print(
        f"{len(found)} cases, of which {explained} differ on purpose; {len(wrong)} are not as they should be"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
