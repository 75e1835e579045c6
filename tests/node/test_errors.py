"""The reply codes, against a table of the specification that was typed in for this test."""

from __future__ import annotations

import pytest

from node import errors
from node.errors import AmqpError, HardError, NotFound, SoftError

SPECIFICATION = """
311 CONTENT_TOO_LARGE soft ContentTooLarge
312 NO_ROUTE soft NoRoute
313 NO_CONSUMERS soft NoConsumers
403 ACCESS_REFUSED soft AccessRefused
404 NOT_FOUND soft NotFound
405 RESOURCE_LOCKED soft ResourceLocked
406 PRECONDITION_FAILED soft PreconditionFailed
320 CONNECTION_FORCED hard ConnectionForced
402 INVALID_PATH hard InvalidPath
501 FRAME_ERROR hard FrameError
502 SYNTAX_ERROR hard AmqpSyntaxError
503 COMMAND_INVALID hard CommandInvalid
504 CHANNEL_ERROR hard ChannelError
505 UNEXPECTED_FRAME hard UnexpectedFrame
506 RESOURCE_ERROR hard ResourceError
530 NOT_ALLOWED hard NotAllowed
540 NOT_IMPLEMENTED hard AmqpNotImplemented
541 INTERNAL_ERROR hard InternalError
"""
ROWS = [line.split() for line in SPECIFICATION.strip().splitlines()]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_reply_code_has_its_class(row: list[str]) -> None:
    """AMQP 0-9-1 1.1, constants."""
    code, name, kind, class_name = row
    made = AmqpError.by_reply_code[int(code)]
    assert made is getattr(errors, class_name)
    assert (made.reply_code, made.reply_name) == (int(code), name)
    assert issubclass(made, SoftError if kind == "soft" else HardError)


def test_there_is_no_other_reply_code() -> None:
    assert sorted(AmqpError.by_reply_code) == sorted(int(row[0]) for row in ROWS)


def test_reply_code_cannot_be_claimed_twice() -> None:
    with pytest.raises(TypeError, match="404 belongs to NotFound"):
        type("Other", (SoftError,), {}, reply_code=404, reply_name="OTHER")
    assert AmqpError.by_reply_code[404] is NotFound


def test_error_carries_its_method_and_says_its_name() -> None:
    error = NotFound("no queue 'q' in vhost '/'", 50, 10)
    assert error.reply_text == str(error) == "NOT_FOUND - no queue 'q' in vhost '/'"
    assert (error.class_id, error.method_id) == (50, 10)


@pytest.mark.parametrize("text", ["ä" * 300, "a" * 255, "\udcff" * 300, "a€" * 100])
def test_reply_text_fits_a_shortstr(text: str) -> None:
    """A long name must not make the answer itself malformed, nor cut a character in half."""
    encoded = NotFound(text).reply_text.encode()
    assert 249 <= len(encoded) <= 255


def test_reply_text_shows_that_it_was_cut() -> None:
    """As in RabbitMQ: 252 octets and three dots."""
    whole = "a" * (255 - len("NOT_FOUND - "))
    assert NotFound(whole).reply_text == f"NOT_FOUND - {whole}"
    assert NotFound(whole + "a").reply_text == f"NOT_FOUND - {whole[:-3]}..."
