"""Errors of the replicated machines that are nobody's but ours: they halt the group, never a channel."""


class UnknownCommand(Exception):
    """A command kind that this version does not know. The group halts: to skip it would part the replicas."""
