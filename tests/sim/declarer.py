"""A client that declares, binds and deletes, and looks from another node whether it is so."""

from typing import TYPE_CHECKING

from node.wire import methods
from tests.amqp_client import ChannelGone, ClientEvent, Replied
from tests.sim.actors import CHANNEL, Actor

if TYPE_CHECKING:
    from tests.sim.run import Run

QUEUES = 3


class Witness(Actor):
    """Asks passively, on some node, whether a queue exists."""

    def __init__(self, run: "Run", name: str) -> None:
        super().__init__(run, name)
        self.asked = ""
        self.expected: bool | None = None

    def ask(self, queue: str, *, expected: bool) -> None:
        """Look for a queue; nothing else changes it meanwhile."""
        self.asked, self.expected = queue, expected
        self.amqp.declare(CHANNEL, queue, passive=True)
        self.say()

    def hear(self, event: ClientEvent) -> None:
        if isinstance(event, Replied) and isinstance(event.method, methods.QueueDeclareOk):
            self._judge(exists=True)

    def channel_gone(self, event: ChannelGone) -> None:
        if event.reply_code == 404 and "timeout" not in event.reply_text:
            self._judge(exists=False)
        self.asked = ""

    def _judge(self, *, exists: bool) -> None:
        asked, self.asked = self.asked, ""
        if asked and exists is not self.expected:
            self.run.violate("metadata not read as written", f"{asked}: expected {self.expected}")

    def gone(self) -> None:
        self.asked = ""


class Declarer(Actor):
    """Changes a few queues of its own, one request at a time, and has a witness look."""

    def __init__(self, run: "Run", name: str) -> None:
        super().__init__(run, name)
        self.witness = Witness(run, f"{name}-witness")
        self.known: dict[str, bool] = {f"t{run.new_number()}": False for _ in range(QUEUES)}
        self.doing: tuple[str, str] | None = None

    def act(self) -> None:
        if self.doing is not None or self.witness.asked:
            return
        queue = self.rng.choice(list(self.known))
        exists = self.known[queue]
        if self.witness.is_open and self.rng.random() < 0.5:
            self.witness.ask(queue, expected=exists)
        elif exists and self.rng.random() < 0.4:
            self.doing = ("bind", queue)
            self.amqp.bind(CHANNEL, queue, "amq.topic", self.rng.choice(("a.*", "#.b", "c")))
        elif self.rng.random() < 0.5:
            self.doing = ("declare", queue)
            self.amqp.declare(CHANNEL, queue, durable=True)
        else:
            self.doing = ("delete", queue)
            self.amqp.delete(CHANNEL, queue)

    def hear(self, event: ClientEvent) -> None:
        if self.doing is None or not isinstance(event, Replied):
            return
        what, queue = self.doing
        self.doing = None
        if what == "declare" and isinstance(event.method, methods.QueueDeclareOk):
            self.known[queue] = True
        elif what == "delete" and isinstance(event.method, methods.QueueDeleteOk):
            self.known[queue] = False

    def channel_gone(self, event: ChannelGone) -> None:
        if self.doing is not None and "timeout" not in event.reply_text:
            self.run.violate("request refused", f"{self.doing}: {event.reply_code} {event.reply_text}")
        self.gone()

    def gone(self) -> None:
        if self.doing is not None:
            # An unanswered change may still come to pass, for as long as its node holds it: leave that queue alone.
            self.known.pop(self.doing[1])
            self.known[f"t{self.run.new_number()}"] = False
        self.doing = None

    def stop(self) -> None:
        super().stop()
        self.witness.stop()
