"""The sending end of a stream: which commands make a batch, and which only ride along."""

from cluster.origin import BATCH_BESIDE_BYTES_MIN, HEADER, TURNS_UNDER_WAY_MAX, OriginStream


def stream() -> OriginStream:
    return OriginStream(1, 2, 3)


def commands_of(made: OriginStream, turn: int) -> list[bytes]:
    return [batch.data[HEADER.size :] for batch in made.form(turn)]


def test_patient_commands_make_no_batch_by_themselves() -> None:
    """An ack that nobody waits for costs no entry of its own."""
    made = stream()
    made.submit((b"a",), is_patient=True)
    assert not made.can_form
    assert commands_of(made, 1) == []
    assert made.has_gathered


def test_patient_commands_ride_with_the_next_urgent_one_in_order() -> None:
    made = stream()
    made.submit((b"a",), is_patient=True)
    made.submit((b"b",))
    made.submit((b"c",), is_patient=True)
    assert commands_of(made, 1) == [b"abc"]
    assert not made.has_gathered


def test_patient_commands_go_when_they_are_hurried() -> None:
    """So a tick bounds how long they wait."""
    made = stream()
    made.hurry()
    assert not made.can_form
    made.submit((b"a",), is_patient=True)
    made.hurry()
    assert commands_of(made, 1) == [b"a"]


def test_patient_commands_keep_a_stream_no_more_busy_than_none() -> None:
    """Else who waits for a stream to rest would wait for a tick."""
    made = stream()
    made.submit((b"a",), is_patient=True)
    assert not made.is_busy
    made.submit((b"b",))
    assert made.is_busy
    (batch,) = made.form(1)
    assert made.is_busy
    made.accept_applied(batch.seq)
    assert not made.is_busy


def test_a_bounded_number_of_turns_is_under_way() -> None:
    """More would only make batches smaller; a turn counts once, however many batches it made."""
    made = stream()
    for turn in range(1, TURNS_UNDER_WAY_MAX + 1):
        made.submit((bytes(200_000),))
        made.submit((bytes(200_000),))
        assert len(made.form(turn)) == 2
    made.submit((bytes(BATCH_BESIDE_BYTES_MIN),))
    assert not made.can_form
    made.accept_applied(1)
    assert not made.can_form
    made.accept_applied(2)
    assert made.can_form


def test_a_turn_that_forms_twice_counts_once() -> None:
    """A turn has two passes: what the first applied makes room for a batch in the second."""
    made = stream()
    made.submit((bytes(BATCH_BESIDE_BYTES_MIN),))
    made.form(1)
    made.submit((bytes(BATCH_BESIDE_BYTES_MIN),))
    assert len(made.form(1)) == 1
    made.accept_applied(2)
    made.submit((b"a",))
    assert made.can_form


def test_few_commands_wait_for_the_turn_under_way() -> None:
    """A round costs as much for one message as for a hundred; what is much does not wait."""
    made = stream()
    made.submit((b"a",))
    made.form(1)
    made.submit((bytes(BATCH_BESIDE_BYTES_MIN - 1),))
    assert not made.can_form
    made.submit((b"z",))
    assert made.can_form
    made.accept_applied(1)
    assert made.can_form


def test_a_new_epoch_forgets_what_was_under_way() -> None:
    made = stream()
    for turn in range(1, TURNS_UNDER_WAY_MAX + 1):
        made.submit((bytes(BATCH_BESIDE_BYTES_MIN),))
        made.form(turn)
    made.restart()
    assert not made.can_form
    made.submit((b"b",))
    assert commands_of(made, 9) == [b"b"]


def test_submission_is_never_split() -> None:
    """What is submitted together becomes part of one entry, however much it is."""
    made = stream()
    small, large = bytes(200_000), bytes(400_000)
    made.submit((small,))
    made.submit((small, small))
    made.submit((b"a", large, b"b"))
    assert commands_of(made, 1) == [small, small + small, b"a" + large + b"b"]
