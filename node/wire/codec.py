"""The codec of the message path: the compiled one where it was built, else the reference; both do the same.

scan: bytes to runs and frames. content_frames: packed records to frames. skip, check_header, is_special: see
`reference.py`, which says what each takes, returns and raises.
"""

from __future__ import annotations

from node.wire.items import ACK, BODY, ERROR, HEADER, HEARTBEAT, METHOD, PUBLISH, Item, PublishedRun

try:
    from node.wire._codec import check_header, content_frames, is_special, scan, skip

    COMPILED = True
except ImportError:  # built without a compiler: slower, otherwise the same
    from node.wire.reference import check_header, content_frames, is_special, scan, skip

    COMPILED = False

__all__ = [
    "ACK",
    "BODY",
    "COMPILED",
    "ERROR",
    "HEADER",
    "HEARTBEAT",
    "METHOD",
    "PUBLISH",
    "Item",
    "PublishedRun",
    "check_header",
    "content_frames",
    "is_special",
    "scan",
    "skip",
]
