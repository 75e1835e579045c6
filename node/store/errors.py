"""What can go wrong with a node's data: each error is one line that names the place."""

from pathlib import Path

import lmdb


class StoreError(Exception):
    """The data directory cannot serve this node: in use, of another node or format, or not writable."""


class CorruptRow(StoreError):
    """A stored row does not match its checksum. The group it belongs to must stop here and not vote.

    Args:
        group: the group whose row it is.
        index: log index of the entry, or None for a row of the saved state.
        what: what was read, in words.
    """

    def __init__(self, group: int, index: int | None, what: str) -> None:
        where = f"group {group}" if index is None else f"group {group} index {index}"
        super().__init__(f"corrupt {what} in {where}: the checksum or the shape of the row is wrong")
        self.group = group
        self.index = index


def described(error: Exception, path: Path) -> StoreError:
    """What failed while the data directory was written, as one line."""
    if isinstance(error, StoreError):
        return error
    if isinstance(error, lmdb.MapFullError):
        text = f"data directory {path} has reached its map size (MDB_MAP_FULL): {error}"
    elif isinstance(error, lmdb.DiskError) or "No space left" in str(error):
        text = f"disk of data directory {path} is full (ENOSPC): {error}"
    else:
        text = f"data directory {path} could not be written: {type(error).__name__}: {error}"
    failure = StoreError(text)
    failure.__cause__ = error
    return failure
