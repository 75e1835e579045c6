"""What the clients asked for and were told, and whether the broker may have said so.

Every published body is unique: `<channel:number>`, channels being numbered over the whole run. A publish that
was neither confirmed nor refused may or may not exist; one that was confirmed must never be lost.
"""

from collections.abc import Callable

Message = tuple[int, int]
"""A channel's number in this run, and the message's number on it."""


class Violation(AssertionError):
    """The broker broke a promise. The first words name it."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{name}: {text}")
        self.name = name


def require(holds: bool, name: str, text: str) -> None:
    """Raise Violation unless it holds. For texts that cost nothing to make."""
    if not holds:
        raise Violation(name, text)


class History:
    """See the module."""

    def __init__(self) -> None:
        self.targets: dict[Message, tuple[str, ...]] = {}  # queues that each message was sent to
        self.sizes: dict[Message, int] = {}
        self.confirmed: dict[Message, None] = {}
        self.acked: dict[tuple[str, Message], None] = {}  # an ack or a reject was sent
        self.settled: dict[tuple[str, Message], None] = {}  # and is known to be applied
        self.delivered: dict[tuple[str, Message], int] = {}
        self.first: dict[tuple[str, Message], None] = {}  # delivered without the redelivered flag
        self.purges: dict[str, int] = {}  # messages that purges reported
        self.is_purged: dict[str, bool] = {}  # a purge was asked for and not answered
        self.may_lose: dict[str, None] = {}  # queues whose consumers do not ack, or that are purged
        self.memory_queues: dict[str, None] = {}  # exclusive queues: they are in no log
        self.is_known: Callable[[str, Message], bool] = lambda queue, message: True
        self._channels = 0
        self._last: dict[tuple[int, str, int], int] = {}  # (consumer, queue, channel): number

    def new_channel(self) -> int:
        """A number for a publisher's channel."""
        self._channels += 1
        return self._channels

    def publish(self, message: Message, queues: tuple[str, ...], body_bytes: int) -> bytes:
        """A client publishes; returns the body."""
        self.targets[message] = queues
        body = b"<%d:%d>" % message
        body += b"." * (body_bytes - len(body))
        self.sizes[message] = len(body)
        return body

    def confirm(self, message: Message) -> None:
        """The broker said that it has the message."""
        require(message in self.targets, "confirm of nothing", f"{message}")
        require(message not in self.confirmed, "confirmed twice", f"{message}")
        self.confirmed[message] = None
        for queue in self.targets[message]:
            if queue not in self.memory_queues and not self.is_known(queue, message):
                raise Violation(
                    "confirm before commit", f"{message} is not on a majority of disks for {queue}"
                )

    def deliver(
        self, consumer: int, queue: str, body: bytes, *, redelivered: bool, is_current: bool
    ) -> Message:
        """The broker delivered to a consumer (a number that is never used twice).

        Args:
            is_current: False: the consumer's node was declared gone and does not know it yet, so what it delivers
                may have been given to somebody else.
        """
        channel, _, rest = body[1:].partition(b":")
        number, _, _ = rest.partition(b">")
        message = (int(channel), int(number))
        require(
            message in self.targets and queue in self.targets[message], "unexpected", f"{message} in {queue}"
        )
        require(len(body) == self.sizes[message], "body is cut", f"{message} has {len(body)} bytes")
        if queue not in self.memory_queues and not self.is_known(queue, message):
            raise Violation("delivered before commit", f"{message} of {queue}")
        key = (queue, message)
        self.delivered[key] = self.delivered.get(key, 0) + 1
        if not redelivered:
            require(key not in self.first, "duplicate without redelivered", f"{message} of {queue}")
            self.first[key] = None
            place = (consumer, queue, message[0])
            require(self._last.get(place, 0) < message[1], "out of order", f"{message} of {queue}")
            self._last[place] = message[1]
        if key in self.settled and is_current:
            raise Violation("delivered again after its ack was applied", f"{message} of {queue}")
        return message

    def check_purges(self, left: dict[str, int]) -> None:
        """Of a purged queue every message is either counted by a purge or still there.

        Args:
            left: messages found at the end, by queue.
        """
        for queue, is_unsure in self.is_purged.items():
            sent = [message for message, queues in self.targets.items() if queue in queues]
            confirmed = sum(1 for message in sent if message in self.confirmed)
            found = self.purges.get(queue, 0) + left.get(queue, 0)
            require(found <= len(sent), "purged too many", f"{found} of {len(sent)} in {queue}")
            if not is_unsure:
                require(found >= confirmed, "lost", f"{queue}: {confirmed} confirmed, {found} purged or left")

    def check_lost(self) -> None:
        """Every confirmed message was settled by a consumer, at the latest by those that drained the queues."""
        for message in self.confirmed:
            for queue in self.targets[message]:
                if queue not in self.may_lose and (queue, message) not in self.acked:
                    raise Violation("lost", f"{message} of {queue} was confirmed and is nowhere")
