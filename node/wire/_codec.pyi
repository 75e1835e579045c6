from node.wire.items import Item

def scan(data: bytes, frame_max: int, run_bytes_max: int) -> tuple[list[Item], int]: ...
def content_frames(
    data: bytes,
    offset: int,
    count: int,
    channel: int,
    head: bytes,
    first_tag: int,
    flags: bytes,
    tail: bytes,
    frame_max: int,
) -> tuple[bytes, int]: ...
def skip(data: bytes, offset: int, count: int) -> int: ...
def check_header(payload: bytes) -> int: ...
def is_special(payload: bytes) -> bool: ...
