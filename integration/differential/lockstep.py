"""Both brokers through the same steps at the same time.

After each step both are read until they have said the same. What comes later than the answer (deliveries, counts
that an ack changes, dead letters) has so long to come; a difference is what is there when nothing has come for a while.
"""

import select
import time
from dataclasses import dataclass, field

from integration.differential import known
from integration.differential.outcome import Outcome, outcome_of
from integration.differential.side import Link, Lost, Side, ends
from integration.differential.steps import Step
from node.wire.methods import (
    BasicAck,
    BasicNack,
    BasicReject,
    ExchangeDeclare,
    QueueDeclare,
    QueueDeclareOk,
)
from tests.amqp_client import ChannelGone, ClientEvent, ConnectionGone, Replied

PATIENCE_S = 1.5
"""Nothing new for so long: it will not come any more."""
ANSWER_S_MAX = 20.0
FIRST_PROBE = 1000
"""Channels from here on look at queues; a sequence uses lower ones."""


_Events = tuple[list[tuple[int, ClientEvent]], list[tuple[int, ClientEvent]]]
"""Of both brokers: connection and event."""


@dataclass(slots=True)
class Difference:
    """Where the brokers part. `row`: the row of docs/deviations.md that says so, if one does."""

    step: int
    rabbitmq: Outcome
    warren: Outcome
    row: str | None = None

    def __str__(self) -> str:
        lines = []
        for place in sorted({*self.rabbitmq, *self.warren}):
            left, right = self.rabbitmq.get(place, []), self.warren.get(place, [])
            if left != right:
                lines += [f"  on {place}"]
                lines += [f"    RabbitMQ: {each}" for each in left or ["nothing"]]
                lines += [f"    Warren:   {each}" for each in right or ["nothing"]]
        return "\n".join(lines)


@dataclass(slots=True)
class Result:
    """What became of a sequence: how far it went, and what differed on the way."""

    steps_done: int = 0
    explained: list[str] = field(default_factory=list)
    difference: Difference | None = None


class Lockstep:
    """Two brokers, for any number of sequences one after the other."""

    def __init__(self, rabbitmq: tuple[str, int], warren: tuple[str, int]) -> None:
        self.sides = (Side(*rabbitmq), Side(*warren))
        self._queues: dict[str, int] = {}
        """Queues that are or were, and a connection that may look at them."""
        self._probes: dict[str, int] = {}
        self._is_quorum = False
        self._late: _Events = ([], [])
        """What came while queues were looked at."""

    def close(self) -> None:
        for side in self.sides:
            side.close()

    def run(self, steps: list[Step]) -> Result:
        """Play a sequence, until its end or the first difference that goes on."""
        result = Result()
        self._is_quorum = any(
            isinstance(step.method, QueueDeclare) and step.method.arguments.get("x-queue-type") == "quorum"
            for step in steps
        )
        try:
            for number, step in enumerate(steps):
                for difference in self._play(number, step):
                    found = self._explain(step, difference.rabbitmq, difference.warren)
                    if found is None or found.is_end:
                        result.difference = difference
                        difference.row = found.row if found else None
                        return result
                    result.explained.append(found.row)
                result.steps_done += 1
        except Lost as error:
            result.difference = Difference(result.steps_done, {"0": [str(error)]}, {})
        finally:
            self._clean(steps)
        return result

    def _play(self, number: int, step: Step) -> list[Difference]:
        key = self._picked(step)
        for side in self.sides:
            side.send(step, side.tag_of(step, key))
        outcomes = self._gather(step)
        found = [Difference(number, *outcomes)] if outcomes[0] != outcomes[1] else []
        counts = self._settled()
        if counts[0] != counts[1]:
            found.append(Difference(number, *counts))
        return found

    def _explain(self, step: Step, rabbitmq: Outcome, warren: Outcome) -> known.Known | None:
        return known.explain(step, rabbitmq, warren, is_quorum=self._is_quorum)

    def _picked(self, step: Step) -> tuple[bytes, str] | None:
        if step.pick is None or not isinstance(step.method, BasicAck | BasicNack | BasicReject):
            return None
        others = {each.key for each in self.sides[1].unacked(step)}
        keys = [each.key for each in self.sides[0].unacked(step) if each.key in others]
        return keys[step.pick % len(keys)] if keys else None

    def _gather(self, step: Step) -> tuple[Outcome, Outcome]:
        """Read until both have ended the step and said the same, or fall silent."""
        if step.wait_ms:
            time.sleep(step.wait_ms / 1000)
        events, self._late = self._late, ([], [])
        ended = [False, False]
        latest = started = time.monotonic()
        while True:
            if self._read(events, 0.0):
                latest = time.monotonic()
            for index in (0, 1):
                ended[index] = ended[index] or any(
                    link == step.connection and ends(step, event) for link, event in events[index]
                )
            outcomes = [outcome_of(each, side.known) for each, side in zip(events, self.sides, strict=True)]
            now = time.monotonic()
            if all(ended):
                found = outcomes[0] == outcomes[1] or self._explain(step, *outcomes)
                if found or now > latest + PATIENCE_S:
                    return outcomes[0], outcomes[1]
            elif now > started + ANSWER_S_MAX:
                for outcome, is_ended in zip(outcomes, ended, strict=True):
                    if not is_ended:
                        outcome.setdefault(f"{step.connection}.{step.channel}", []).append("no answer")
                return outcomes[0], outcomes[1]
            self._read(events, 0.05, wait=True)

    def _read(self, events: _Events, timeout_s: float, *, wait: bool = False) -> bool:
        """Take what has come, of all connections; whether anything has."""
        sockets = {}
        for index, side in enumerate(self.sides):
            for number, link in side.links.items():
                if not link.is_lost and not link.client.closed:
                    sockets[link.socket] = (index, number, link)
        ready, _, _ = select.select(list(sockets), [], [], timeout_s)
        if wait:
            return bool(ready)
        for each in ready:
            index, number, link = sockets[each]
            for event in link.read():
                self._note(index, number, link, event)
                events[index].append((number, event))
        return bool(ready)

    def _note(self, index: int, number: int, link: Link, event: ClientEvent) -> None:
        side = self.sides[index]
        side.note(link, event)
        if isinstance(event, Replied) and isinstance(event.method, QueueDeclareOk):
            self._queues.setdefault(side.known(event.method.queue), number)

    # Counts

    def _settled(self) -> tuple[Outcome, Outcome]:
        """The counts of all queues, once they are the same or do not change any more."""
        latest, last = time.monotonic(), None
        while True:
            counts = self._counts()
            for index, side in enumerate(self.sides):
                counts[index].update(outcome_of(self._late[index], side.known))
            now = time.monotonic()
            if counts != last:
                latest, last = now, counts
            if not self._queues or counts[0] == counts[1] or now > latest + PATIENCE_S:
                for name in list(self._queues):
                    if all("NOT_FOUND" in each.get(f"counts of {name}", [""])[0] for each in counts):
                        del self._queues[name]
                if self._queues:
                    self._late = ([], [])
                return counts
            time.sleep(0.02)

    def _counts(self) -> tuple[Outcome, Outcome]:
        """Look at each queue, each on a channel of its own."""
        found: tuple[Outcome, Outcome] = ({}, {})
        waiting: list[dict[tuple[int, int], str]] = [{}, {}]
        for name, number in self._queues.items():
            channel = self._probes.setdefault(name, FIRST_PROBE + len(self._probes))
            for index, side in enumerate(self.sides):
                link = side.link(number)
                side.open_channel(link, channel)
                link.client.send(channel, side.resolved(QueueDeclare(queue=name, passive=True)))
                waiting[index][number, channel] = name
        for side in self.sides:
            for link in side.links.values():
                link.flush()
        deadline = time.monotonic() + ANSWER_S_MAX
        later: _Events = ([], [])
        while any(waiting) and time.monotonic() < deadline:
            self._read(later, 0.05)
            for index in (0, 1):
                for number, event in later[index]:
                    self._take_count(index, number, event, waiting, found)
                later[index].clear()
        for index in (0, 1):
            for name in waiting[index].values():
                found[index][f"counts of {name}"] = ["no answer"]
        return found

    def _take_count(
        self,
        index: int,
        number: int,
        event: ClientEvent,
        waiting: list[dict[tuple[int, int], str]],
        found: tuple[Outcome, Outcome],
    ) -> None:
        if isinstance(event, ConnectionGone):
            for key in [key for key in waiting[index] if key[0] == number]:
                found[index][f"counts of {waiting[index].pop(key)}"] = [event.reply_text]
            return
        channel = getattr(event, "channel", 0)
        if channel < FIRST_PROBE:
            self._late[index].append((number, event))
        elif isinstance(event, ChannelGone):
            name = waiting[index].pop((number, channel))
            found[index][f"counts of {name}"] = [self.sides[index].known(event.reply_text)]
        elif isinstance(event, Replied) and isinstance(event.method, QueueDeclareOk):
            name = waiting[index].pop((number, channel))
            answer = event.method
            found[index][f"counts of {name}"] = [
                f"{answer.message_count} messages, {answer.consumer_count} consumers"
            ]

    # The end

    def _clean(self, steps: list[Step]) -> None:
        """Take away what the sequence made, on both sides."""
        exchanges = {step.method.exchange for step in steps if isinstance(step.method, ExchangeDeclare)}
        for side in self.sides:
            side.clean([*self._queues], [*exchanges])
        self._queues.clear()
        self._late = ([], [])
        self._probes.clear()
