"""The shape of a request that needs answers from groups: see `node.session.channel`."""

from collections.abc import Generator
from typing import Any

Script = Generator[None, Any, None]
"""Submits a question, yields, is sent the answer's value; raises AmqpError to refuse the request."""
