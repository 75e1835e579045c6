# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""The codec on C pointers: what `reference.py` says, at the speed that a message's path needs.

Each function measures first and touches nothing beyond what it has measured; only then it copies. All lengths that a
peer can choose are added in 64 bits, so that no sum of them wraps. Benchmark: bench/micro/codec.py.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from node.wire.primitives import TABLE_DEPTH_MAX
from node.wire.content_header import frame_fault, header_fault

cdef enum:
    FRAME_METHOD = 1
    FRAME_HEADER = 2
    FRAME_BODY = 3
    FRAME_HEARTBEAT = 8
    FRAME_END = 0xCE

    METHOD = 0
    PUBLISH = 1
    ACK = 2
    HEADER = 3
    BODY = 4
    HEARTBEAT = 5
    ERROR = 6

    BASIC_PUBLISH = 0x003C0028
    BASIC_ACK = 0x003C0050
    ACK_FRAME_BYTES = 21

    HEADER_BYTES_MIN = 14
    FLAGS_BYTES = 1
    FLAGS_MASK = 3
    SPECIAL_FLAG = 0x80
    ASKING_FLAGS = 0x0110
    REPLY_TO_BYTES = 22
    EXRK_BYTES_MAX = 512
    WAIT_BODY_BYTES_MAX = 65536
    WAIT_HEADER_BYTES_MAX = 8192
    WAIT_BODY_FRAMES_MAX = 16

# What a content header is: it does not add up, asks nothing of the broker, or does.
cdef enum:
    BROKEN = 0
    PLAIN = 1
    SPECIAL = 2

# What may be said of bytes that are no whole frame, or of content that makes no record. Never an offset: those are >= 0.
cdef enum:
    PARTIAL = -1
    UNKNOWN_TYPE = -2
    TOO_LARGE = -3
    BAD_END = -4
    BAD_METHOD = -5
    WAIT = -6
    SINGLE = -7

cdef struct Frame:
    int type
    int channel
    int64_t start
    int64_t end

cdef struct Content:
    int64_t header
    uint32_t header_bytes
    uint32_t body_bytes
    int64_t after
    bint is_special

cdef int _table_depth_max = TABLE_DEPTH_MAX
cdef const char* REPLY_TO = b"\x15amq.rabbitmq.reply-to"


cdef inline uint16_t get16(const uint8_t* at) noexcept nogil:
    return <uint16_t> ((at[0] << 8) | at[1])


cdef inline uint32_t get32(const uint8_t* at) noexcept nogil:
    return (<uint32_t> at[0] << 24) | (<uint32_t> at[1] << 16) | (<uint32_t> at[2] << 8) | at[3]


cdef inline uint64_t get64(const uint8_t* at) noexcept nogil:
    return (<uint64_t> get32(at) << 32) | get32(at + 4)


cdef inline void put32(uint8_t* at, uint32_t value) noexcept nogil:
    at[0] = <uint8_t> (value >> 24)
    at[1] = <uint8_t> (value >> 16)
    at[2] = <uint8_t> (value >> 8)
    at[3] = <uint8_t> value


cdef inline void put64(uint8_t* at, uint64_t value) noexcept nogil:
    put32(at, <uint32_t> (value >> 32))
    put32(at + 4, <uint32_t> value)


cdef inline int frame_at(const uint8_t* data, int64_t size, int64_t pos, int64_t frame_max, Frame* frame) noexcept nogil:
    """Fill in the frame at `pos`: 0, or why there is none. After a fault, only what was judged is filled in."""
    cdef int64_t payload_bytes
    if size - pos < 7:
        return PARTIAL
    frame.type = data[pos]
    frame.channel = get16(data + pos + 1)
    payload_bytes = get32(data + pos + 3)
    frame.start = pos + 7
    frame.end = pos + 7 + payload_bytes
    if frame.type == 0 or (frame.type > FRAME_BODY and frame.type != FRAME_HEARTBEAT):
        return UNKNOWN_TYPE
    if frame_max != 0 and payload_bytes > frame_max:
        return TOO_LARGE
    if frame.end >= size:
        return PARTIAL
    if data[frame.end] != FRAME_END:
        return BAD_END
    if frame.type == FRAME_METHOD and payload_bytes < 4:
        return BAD_METHOD
    return 0


cdef bint publish_args_add_up(const uint8_t* data, int64_t pos, int64_t end) noexcept nogil:
    """Ticket, exchange, routing key, flags, and nothing else."""
    pos += 2
    if pos >= end:
        return False
    pos += 1 + data[pos]
    if pos >= end:
        return False
    pos += 1 + data[pos]
    return pos + 1 == end


cdef int64_t skip_nested(const uint8_t* data, int64_t pos, int64_t end, bint is_table, int depth) noexcept nogil:
    """The offset after the table or array at `pos`; negative if it does not add up within `end`."""
    cdef int64_t inner_end
    if depth > _table_depth_max or end - pos < 4:
        return -1
    inner_end = pos + 4 + <int64_t> get32(data + pos)
    if inner_end > end:
        return -1
    pos += 4
    while pos < inner_end:
        if is_table:
            pos += 1 + data[pos]
        pos = skip_value(data, pos, inner_end, depth)
        if pos < 0:
            return -1
    return pos


cdef inline int64_t skip_value(const uint8_t* data, int64_t pos, int64_t end, int depth) noexcept nogil:
    """The offset after the tagged value at `pos`; negative if it does not add up within `end`."""
    cdef uint8_t tag
    if pos >= end:
        return -1
    tag = data[pos]
    pos += 1
    if tag == c"S" or tag == c"x":
        if end - pos < 4:
            return -1
        pos += 4 + <int64_t> get32(data + pos)
    elif tag == c"I" or tag == c"i" or tag == c"f":
        pos += 4
    elif tag == c"l" or tag == c"L" or tag == c"d" or tag == c"T":
        pos += 8
    elif tag == c"t" or tag == c"b" or tag == c"B":
        pos += 1
    elif tag == c"F" or tag == c"A":
        return skip_nested(data, pos, end, tag == c"F", depth + 1)
    elif tag == c"s" or tag == c"u":
        pos += 2
    elif tag == c"D":
        pos += 5
    elif tag != c"V":
        return -1
    return pos if pos <= end else -1


cdef inline int64_t skip_shortstr(const uint8_t* data, int64_t pos, int64_t end) noexcept nogil:
    return pos + 1 + data[pos] if pos < end else end + 1


cdef inline bint is_asking_name(const uint8_t* name) noexcept nogil:
    """Whether a header of this name (a shortstr) asks something of the broker."""
    cdef uint8_t size = name[0]
    if size == 2:
        return memcmp(name + 1, b"CC", 2) == 0
    if size == 3:
        return memcmp(name + 1, b"BCC", 3) == 0
    if size == 7:
        return memcmp(name + 1, b"x-delay", 7) == 0
    if size == 10:
        return memcmp(name + 1, b"x-dedup-id", 10) == 0
    if size == 12:
        return memcmp(name + 1, b"x-deliver-at", 12) == 0
    return False


cdef inline int64_t skip_headers(const uint8_t* data, int64_t pos, int64_t end, bint* is_special) noexcept nogil:
    """As skip_nested for the property `headers`; sets `is_special` where one of its names asks for something."""
    cdef int64_t inner_end
    if end - pos < 4:
        return -1
    inner_end = pos + 4 + <int64_t> get32(data + pos)
    if inner_end > end:
        return -1
    pos += 4
    while pos < inner_end:
        # What a name's length promises beyond the table is not looked at: the value would not be in it either.
        if inner_end - pos > data[pos] and is_asking_name(data + pos):
            is_special[0] = True
        pos = skip_value(data, pos + 1 + data[pos], inner_end, 1)
        if pos < 0:
            return -1
    return pos


cdef int header_kind(const uint8_t* header, int64_t size) noexcept nogil:
    """BROKEN unless class basic, weight 0, and properties that are exactly what their flags say; then what it asks."""
    cdef uint32_t flags, flag
    cdef int64_t pos = HEADER_BYTES_MIN
    cdef bint is_special
    if size < HEADER_BYTES_MIN or get32(header) != 0x003C0000:
        return BROKEN
    flags = get16(header + 12)
    if flags & 3:
        return BROKEN
    is_special = (flags & ASKING_FLAGS) != 0
    flag = 0x8000
    while flags:
        if flags & flag:
            flags ^= flag
            if flag == 0x2000:
                pos = skip_headers(header, pos, size, &is_special)
                if pos < 0:
                    return BROKEN
            elif flag == 0x1000:
                pos += 1
            elif flag == 0x0800:
                if pos < size and header[pos] != 0:
                    is_special = True
                pos += 1
            elif flag == 0x0040:
                pos += 8
            else:
                if flag == 0x0200 and size - pos >= REPLY_TO_BYTES and memcmp(header + pos, REPLY_TO, REPLY_TO_BYTES) == 0:
                    is_special = True
                pos = skip_shortstr(header, pos, size)
            if pos > size:
                return BROKEN
        flag >>= 1
    if pos != size:
        return BROKEN
    return SPECIAL if is_special else PLAIN


cdef int unfinished(const uint8_t* data, int64_t size, int64_t pos, int channel, int frame_type, uint64_t bytes_max) noexcept nogil:
    """WAIT if the frame that has begun at `pos` may become the one that is due, else SINGLE."""
    if size - pos < 7:
        return WAIT
    if data[pos] == frame_type and get16(data + pos + 1) == channel and get32(data + pos + 3) <= bytes_max:
        return WAIT
    return SINGLE


cdef int measure(const uint8_t* data, int64_t size, int64_t pos, int channel, int64_t frame_max, Content* content) noexcept nogil:
    """Measure the content that follows a basic.publish: 0, WAIT or SINGLE."""
    cdef Frame frame
    cdef int64_t header_bytes
    cdef uint64_t body_size, missing, payload_bytes
    cdef int frames = 0
    cdef int kind, found = frame_at(data, size, pos, frame_max, &frame)
    if found == PARTIAL:
        return unfinished(data, size, pos, channel, FRAME_HEADER, WAIT_HEADER_BYTES_MAX)
    if found < 0 or frame.type != FRAME_HEADER or frame.channel != channel:
        return SINGLE
    header_bytes = frame.end - frame.start
    kind = header_kind(data + frame.start, header_bytes)
    if kind == BROKEN:
        return SINGLE
    content.is_special = kind == SPECIAL
    body_size = get64(data + frame.start + 4)
    content.header = frame.start
    content.header_bytes = <uint32_t> header_bytes
    missing = body_size
    pos = frame.end + 1
    while missing:
        found = frame_at(data, size, pos, frame_max, &frame)
        if found == PARTIAL:
            if body_size > WAIT_BODY_BYTES_MAX or header_bytes > WAIT_HEADER_BYTES_MAX:
                return SINGLE
            if frames > WAIT_BODY_FRAMES_MAX:
                return SINGLE
            return unfinished(data, size, pos, channel, FRAME_BODY, missing)
        payload_bytes = <uint64_t> (frame.end - frame.start)
        if found < 0 or frame.type != FRAME_BODY or frame.channel != channel or payload_bytes > missing:
            return SINGLE
        missing -= payload_bytes
        frames += 1
        pos = frame.end + 1
    if body_size > <uint64_t> 4294967295 or header_bytes > <int64_t> 4294967295 - EXRK_BYTES_MAX:
        return SINGLE
    content.body_bytes = <uint32_t> body_size
    content.after = pos
    return 0


cdef uint8_t* pack(
    const uint8_t* data, const uint8_t* exrk, int64_t exrk_bytes, const Content* content, uint8_t* to
) noexcept nogil:
    """Copy measured content as one record; return where the next goes."""
    cdef uint32_t piece, missing = content.body_bytes
    cdef int64_t pos = content.header + content.header_bytes + 1
    put32(to, <uint32_t> exrk_bytes + content.header_bytes)
    put32(to + 4, missing)
    memcpy(to + 8, exrk, exrk_bytes)
    to += 8 + exrk_bytes
    memcpy(to, data + content.header, content.header_bytes)
    to += <int64_t> content.header_bytes
    while missing:
        piece = get32(data + pos + 3)
        memcpy(to, data + pos + 7, piece)
        to += piece
        missing -= piece
        pos += 8 + <int64_t> piece
    return to


cdef int64_t scan_run(bytes source, Frame* method, int64_t frame_max, int64_t run_bytes_max, list items):
    """Append the run that starts with the basic.publish `method`, to the burst before it if that is of its channel.

    Returns where the next item starts, or WAIT or SINGLE.
    Two passes: how long the run is, then one allocation of just that and the copies.
    """
    cdef const uint8_t* data = <const uint8_t*> PyBytes_AS_STRING(source)
    cdef int64_t size = PyBytes_GET_SIZE(source)
    cdef const uint8_t* head = data + method.start - 7
    cdef int64_t head_bytes = method.end + 1 - (method.start - 7)
    cdef const uint8_t* exrk = data + method.start + 6
    cdef int64_t exrk_bytes = method.end - FLAGS_BYTES - (method.start + 6)
    cdef int64_t count = 0, run_bytes = 0, message_bytes, number
    cdef int64_t pos = method.start - 7
    cdef Content content
    cdef bytes packed
    cdef tuple run, before
    cdef uint8_t* to
    cdef int found = 0
    cdef bint is_special = False
    while True:
        found = measure(data, size, pos + head_bytes, method.channel, frame_max, &content)
        if found < 0:
            break
        if count == 0:
            is_special = content.is_special
        elif content.is_special != is_special:
            break
        message_bytes = 8 + exrk_bytes + <int64_t> content.header_bytes + <int64_t> content.body_bytes
        if count and run_bytes + message_bytes > run_bytes_max:
            break
        count += 1
        run_bytes += message_bytes
        pos = content.after
        if size - pos < head_bytes or memcmp(data + pos, head, head_bytes) != 0:
            break
    if count == 0:
        return found
    packed = PyBytes_FromStringAndSize(NULL, run_bytes)
    to = <uint8_t*> PyBytes_AS_STRING(packed)
    pos = method.start - 7
    for number in range(count):
        content.header = pos + head_bytes + 7
        content.header_bytes = get32(data + pos + head_bytes + 3)
        content.body_bytes = <uint32_t> get64(data + content.header + 4)
        to = pack(data, exrk, exrk_bytes, &content, to)
        pos = after_content(data, &content)
    run = (publish_args(source, method, is_special), count, packed)
    if items:
        before = items[len(items) - 1]
        if before[0] == PUBLISH and before[1] == method.channel:
            (<list> before[2]).append(run)
            return pos
    items.append((PUBLISH, method.channel, [run]))
    return pos


cdef bytes publish_args(bytes source, Frame* method, bint is_special):
    """The arguments after the ticket; of the flags those that the protocol knows, and that the run is special."""
    cdef const char* data = PyBytes_AS_STRING(source)
    cdef bytes args = PyBytes_FromStringAndSize(data + method.start + 6, method.end - (method.start + 6))
    cdef uint8_t* flags = <uint8_t*> PyBytes_AS_STRING(args) + PyBytes_GET_SIZE(args) - FLAGS_BYTES
    flags[0] &= FLAGS_MASK
    if is_special:
        flags[0] |= SPECIAL_FLAG
    return args


cdef inline int64_t after_content(const uint8_t* data, const Content* content) noexcept nogil:
    """Where measured content ends in the stream."""
    cdef uint32_t piece, missing = content.body_bytes
    cdef int64_t pos = content.header + content.header_bytes + 1
    while missing:
        piece = get32(data + pos + 3)
        missing -= piece
        pos += 8 + <int64_t> piece
    return pos


cdef int64_t scan_acks(const uint8_t* data, int64_t size, Frame* method, list items):
    """Append the acknowledgements from `method` on that follow each other; return where the next item starts."""
    cdef const uint8_t* head = data + method.start - 7
    cdef uint64_t first = get64(data + method.start + 4)
    cdef uint64_t last = first
    cdef int64_t pos = method.end + 1
    if data[method.start + 12] & 1:
        items.append((ACK, method.channel, first, first, True))
        return pos
    while size - pos >= ACK_FRAME_BYTES and memcmp(data + pos, head, 11) == 0:
        if data[pos + 19] & 1 or data[pos + 20] != FRAME_END:
            break
        if last == <uint64_t> 18446744073709551615 or get64(data + pos + 11) != last + 1:
            break
        last += 1
        pos += ACK_FRAME_BYTES
    items.append((ACK, method.channel, first, last, False))
    return pos


cdef tuple error_item(bytes source, Frame* frame, int fault, int64_t frame_max):
    cdef bytes payload = b""
    cdef str text = "unknown_frame"
    if fault == TOO_LARGE:
        text = "{frame_too_large,%d,%d}" % (frame.end - frame.start, frame_max - 8)
    elif fault != UNKNOWN_TYPE:
        # Only a frame that is there in full is quoted: what is said must not depend on how the bytes were cut.
        payload = source[frame.start:frame.end]
        if fault == BAD_END:
            text = "{invalid_frame_end_marker,%d}" % source[frame.end]
    return (ERROR, frame.channel, 501, frame_fault(frame.type, payload, text))


def scan(bytes data not None, int64_t frame_max, int64_t run_bytes_max):
    """Turn the front of a byte stream into runs and frames; see reference.scan."""
    cdef const uint8_t* raw = <const uint8_t*> PyBytes_AS_STRING(data)
    cdef int64_t size = PyBytes_GET_SIZE(data)
    cdef int64_t pos = 0, after
    cdef uint32_t method_id
    cdef Frame frame
    cdef int found
    cdef list items = []
    while True:
        found = frame_at(raw, size, pos, frame_max, &frame)
        if found == PARTIAL:
            return items, pos
        if found < 0:
            items.append(error_item(data, &frame, found, frame_max))
            return items, size
        if frame.type != FRAME_METHOD:
            items.append((
                HEADER if frame.type == FRAME_HEADER else BODY if frame.type == FRAME_BODY else HEARTBEAT,
                frame.channel,
                data[frame.start:frame.end],
            ))
            pos = frame.end + 1
            continue
        method_id = get32(raw + frame.start)
        after = SINGLE
        if method_id == BASIC_PUBLISH:
            if publish_args_add_up(raw, frame.start + 4, frame.end):
                after = scan_run(data, &frame, frame_max, run_bytes_max, items)
        elif method_id == BASIC_ACK and frame.end - frame.start == 13:
            after = scan_acks(raw, size, &frame, items)
        if after == WAIT:
            return items, pos
        if after == SINGLE:
            items.append((METHOD, frame.channel, method_id, data[frame.start + 4:frame.end]))
            after = frame.end + 1
        pos = after


cdef int64_t record_end(const uint8_t* data, int64_t size, int64_t offset) noexcept nogil:
    """Where the record at `offset` ends; negative beyond the data."""
    cdef int64_t end
    if size - offset < 8:
        return -1
    end = offset + 8 + <int64_t> get32(data + offset) + <int64_t> get32(data + offset + 4)
    return end if end <= size else -1


cdef inline int64_t exrk_size(const uint8_t* head, int64_t head_bytes) noexcept nogil:
    """Bytes of exchange and routing key at the front of a head; negative if they do not fit into it."""
    cdef int64_t size
    if head_bytes < 1:
        return -1
    size = 1 + <int64_t> head[0]
    if size >= head_bytes:
        return -1
    size += 1 + <int64_t> head[size]
    return size if size <= head_bytes else -1


cdef inline uint8_t* put_frame_head(uint8_t* to, int frame_type, int channel, uint32_t payload_bytes) noexcept nogil:
    to[0] = <uint8_t> frame_type
    to[1] = <uint8_t> (channel >> 8)
    to[2] = <uint8_t> channel
    put32(to + 3, payload_bytes)
    return to + 7


cdef inline uint8_t* put_payload(uint8_t* to, const uint8_t* payload, int64_t payload_bytes) noexcept nogil:
    memcpy(to, payload, payload_bytes)
    to[payload_bytes] = FRAME_END
    return to + payload_bytes + 1


def content_frames(
    bytes data not None,
    int64_t offset,
    int64_t count,
    int channel,
    bytes head not None,
    int64_t first_tag,
    bytes flags not None,
    bytes tail not None,
    int64_t frame_max,
):
    """Write packed records as the frames of a method with content; see reference.content_frames."""
    cdef const uint8_t* raw = <const uint8_t*> PyBytes_AS_STRING(data)
    cdef int64_t size = PyBytes_GET_SIZE(data)
    cdef int64_t head_bytes = PyBytes_GET_SIZE(head), tail_bytes = PyBytes_GET_SIZE(tail)
    cdef int64_t flags_bytes = PyBytes_GET_SIZE(flags)
    cdef int64_t tag_bytes = 8 if first_tag >= 0 else 0
    cdef int64_t fixed_bytes = head_bytes + tag_bytes + flags_bytes + tail_bytes
    cdef int64_t body_max = frame_max - 8 if frame_max else 4294967295
    cdef int64_t total = 0, end, body, piece, exrk_bytes, header_bytes, number, pos = offset
    cdef bytes frames
    cdef uint8_t* to
    if offset < 0 or offset > size or count < 0:
        raise ValueError(f"offset {offset}, count {count} in {size} bytes")
    # count is bounded by the data before it multiplies anything: each record has 8 bytes at least.
    if body_max < 1 or channel < 0 or channel > 0xFFFF or first_tag > 9223372036854775807 - count:
        raise ValueError(f"channel {channel}, frame_max {frame_max}, first_tag {first_tag}")
    for number in range(count):
        end = record_end(raw, size, pos)
        if end < 0:
            raise ValueError(f"record at {pos} ends beyond the data of {size} bytes")
        body = get32(raw + pos + 4)
        if exrk_size(raw + pos + 8, get32(raw + pos)) < 0:
            raise ValueError(f"head at {pos + 8} ends before its routing key does")
        total += 16 + fixed_bytes + <int64_t> get32(raw + pos) + body
        total += 8 if body and body <= body_max else 8 * ((body + body_max - 1) // body_max)
        pos = end
    frames = PyBytes_FromStringAndSize(NULL, total)
    to = <uint8_t*> PyBytes_AS_STRING(frames)
    pos = offset
    for number in range(count):
        header_bytes = get32(raw + pos)
        body = get32(raw + pos + 4)
        pos += 8
        exrk_bytes = exrk_size(raw + pos, header_bytes)
        header_bytes -= exrk_bytes
        to = put_frame_head(to, FRAME_METHOD, channel, <uint32_t> (fixed_bytes + exrk_bytes))
        memcpy(to, <const uint8_t*> PyBytes_AS_STRING(head), head_bytes)
        to += head_bytes
        if tag_bytes:
            put64(to, <uint64_t> (first_tag + number))
            to += 8
        memcpy(to, <const uint8_t*> PyBytes_AS_STRING(flags), flags_bytes)
        to += flags_bytes
        memcpy(to, raw + pos, exrk_bytes)
        to += exrk_bytes
        pos += exrk_bytes
        to = put_payload(to, <const uint8_t*> PyBytes_AS_STRING(tail), tail_bytes)
        to = put_frame_head(to, FRAME_HEADER, channel, <uint32_t> header_bytes)
        to = put_payload(to, raw + pos, header_bytes)
        pos += header_bytes
        while body:
            piece = body if body <= body_max else body_max
            to = put_frame_head(to, FRAME_BODY, channel, <uint32_t> piece)
            to = put_payload(to, raw + pos, piece)
            pos += piece
            body -= piece
    return frames, pos


def skip(bytes data not None, int64_t offset, int64_t count):
    """The offset after `count` packed records; ValueError if the data ends before."""
    cdef const uint8_t* raw = <const uint8_t*> PyBytes_AS_STRING(data)
    cdef int64_t size = PyBytes_GET_SIZE(data)
    cdef int64_t number, end
    if offset < 0 or offset > size or count < 0:
        raise ValueError(f"offset {offset}, count {count} in {size} bytes")
    for number in range(count):
        end = record_end(raw, size, offset)
        if end < 0:
            raise ValueError(f"record at {offset} ends beyond the data of {size} bytes")
        offset = end
    return offset


def check_header(bytes payload not None):
    """The body size that a content header announces; see reference.check_header."""
    cdef const uint8_t* raw = <const uint8_t*> PyBytes_AS_STRING(payload)
    if header_kind(raw, PyBytes_GET_SIZE(payload)) == BROKEN:
        raise header_fault(payload)
    return get64(raw + 4)


def is_special(bytes payload not None):
    """Whether a content header that adds up asks something of the broker; see reference.is_special."""
    return header_kind(<const uint8_t*> PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload)) == SPECIAL
