"""What a route may depend on beside the routing key: a message as exchanges see it."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from node.wire.properties import BasicProperties


class Message(Protocol):
    """Read only where an exchange in the way asks; a route for which nobody asked is that of all messages like it."""

    def headers(self) -> Mapping[str, Any]:
        """Its headers, {} if it has none."""

    def properties(self) -> BasicProperties:
        """Its properties."""

    def chance(self, bound: int) -> int:
        """A number from 0 to `bound` - 1, drawn anew for each message."""


class Opened:
    """A message whose properties are known."""

    def __init__(self, properties: BasicProperties, draw: Callable[[int], bytes]) -> None:
        """Args: draw: gives so many unpredictable bytes."""
        self._properties = properties
        self._draw = draw
        self.is_drawn = False  # True: chance decided, so another message like it may go another way

    def headers(self) -> Mapping[str, Any]:
        """Its headers."""
        return self._properties.headers or {}

    def properties(self) -> BasicProperties:
        """Its properties."""
        return self._properties

    def chance(self, bound: int) -> int:
        """A number below `bound`."""
        self.is_drawn = True
        return drawn(self._draw, bound)


CHANCE_BYTES = 8
"""Drawn for one choice: so many that the remainder favours nobody noticeably."""


def drawn(draw: Callable[[int], bytes], bound: int) -> int:
    """A number from 0 to `bound` - 1 of unpredictable bytes."""
    return int.from_bytes(draw(CHANCE_BYTES), "big") % bound
