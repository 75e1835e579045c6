"""Errors of the replicated machines that are nobody's but ours: they halt the group, never a channel."""


class UnknownCommand(Exception):
    """A command kind that this version does not know. To skip it would make the replicas differ, so the group halts."""
