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
        self.letters_to: dict[str, str] = {}  # queues with dead letters: the queue that these go to
        self.letters_of: dict[str, str] = {}  # and back
        self.unordered: dict[str, None] = {}  # queues that hand out messages in an order of their own
        self.takes_back: dict[str, None] = {}  # queues that take messages from slow consumers: checked there
        self.refused: dict[Message, None] = {}
        self.rejected: dict[tuple[str, Message], None] = {}  # without requeue, known to be applied
        self.returns: dict[tuple[str, Message], int] = {}  # rejects with requeue that are known to be applied
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

    def refuse(self, message: Message) -> None:
        """The broker said that it has not taken the message."""
        require(message in self.targets, "nack of nothing", f"{message}")
        require(message not in self.confirmed, "confirmed and refused", f"{message}")
        self.refused[message] = None

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
        home = self.letters_of.get(queue, queue)
        require(
            message in self.targets and home in self.targets[message], "unexpected", f"{message} in {queue}"
        )
        if queue == home:
            require(message not in self.refused, "refused and delivered", f"{message} in {queue}")
        require(len(body) == self.sizes[message], "body is cut", f"{message} has {len(body)} bytes")
        if queue not in self.memory_queues and not self.is_known(queue, message):
            raise Violation("delivered before commit", f"{message} of {queue}")
        key = (queue, message)
        self.delivered[key] = self.delivered.get(key, 0) + 1
        if not redelivered:
            require(key not in self.first, "duplicate without redelivered", f"{message} of {queue}")
            self.first[key] = None
            place = (consumer, queue, message[0])
            is_ordered = queue not in self.unordered and queue == home
            require(
                not is_ordered or self._last.get(place, 0) < message[1],
                "out of order",
                f"{message} of {queue}",
            )
            self._last[place] = message[1]
        if key in self.settled and is_current and queue not in self.takes_back:
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
                places = (queue, self.letters_to.get(queue, queue))
                if queue not in self.may_lose and not any((place, message) in self.acked for place in places):
                    raise Violation("lost", f"{message} of {queue} was confirmed and is nowhere")

    def check_letters(self) -> None:
        """What a consumer has rejected for good became a dead letter, and nothing that it has acked did."""
        for queue, letters in self.letters_to.items():
            for home, message in self.settled:
                if home != queue:
                    continue
                is_dead = (letters, message) in self.delivered
                is_rejected = (queue, message) in self.rejected
                require(is_dead or not is_rejected, "lost dead letter", f"{message} of {queue}")
                require(is_rejected or not is_dead, "acked and dead-lettered", f"{message} of {queue}")
