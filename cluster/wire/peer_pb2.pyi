from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Lane(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LANE_UNSPECIFIED: _ClassVar[Lane]
    LANE_CONTROL: _ClassVar[Lane]
    LANE_BULK: _ClassVar[Lane]
LANE_UNSPECIFIED: Lane
LANE_CONTROL: Lane
LANE_BULK: Lane

class Frame(_message.Message):
    __slots__ = ("hello", "envelope", "data")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    envelope: Envelope
    data: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., envelope: _Optional[_Union[Envelope, _Mapping]] = ..., data: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("cluster", "protocol", "node", "boot", "target", "lane", "store", "rejoin")
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    BOOT_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    LANE_FIELD_NUMBER: _ClassVar[int]
    STORE_FIELD_NUMBER: _ClassVar[int]
    REJOIN_FIELD_NUMBER: _ClassVar[int]
    cluster: str
    protocol: int
    node: int
    boot: int
    target: int
    lane: Lane
    store: str
    rejoin: bool
    def __init__(self, cluster: _Optional[str] = ..., protocol: _Optional[int] = ..., node: _Optional[int] = ..., boot: _Optional[int] = ..., target: _Optional[int] = ..., lane: _Optional[_Union[Lane, str]] = ..., store: _Optional[str] = ..., rejoin: _Optional[bool] = ...) -> None: ...

class Answer(_message.Message):
    __slots__ = ("node", "boot", "refusal")
    NODE_FIELD_NUMBER: _ClassVar[int]
    BOOT_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    node: int
    boot: int
    refusal: str
    def __init__(self, node: _Optional[int] = ..., boot: _Optional[int] = ..., refusal: _Optional[str] = ...) -> None: ...

class Envelope(_message.Message):
    __slots__ = ("to_boot", "messages", "batches", "expects", "offers", "accepts", "parts", "part_replies")
    TO_BOOT_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    BATCHES_FIELD_NUMBER: _ClassVar[int]
    EXPECTS_FIELD_NUMBER: _ClassVar[int]
    OFFERS_FIELD_NUMBER: _ClassVar[int]
    ACCEPTS_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    PART_REPLIES_FIELD_NUMBER: _ClassVar[int]
    to_boot: int
    messages: _containers.RepeatedCompositeFieldContainer[Rpc]
    batches: _containers.RepeatedCompositeFieldContainer[Batch]
    expects: _containers.RepeatedCompositeFieldContainer[Expect]
    offers: _containers.RepeatedCompositeFieldContainer[SnapshotOffer]
    accepts: _containers.RepeatedCompositeFieldContainer[SnapshotAccept]
    parts: _containers.RepeatedCompositeFieldContainer[SnapshotPart]
    part_replies: _containers.RepeatedCompositeFieldContainer[SnapshotPartReply]
    def __init__(self, to_boot: _Optional[int] = ..., messages: _Optional[_Iterable[_Union[Rpc, _Mapping]]] = ..., batches: _Optional[_Iterable[_Union[Batch, _Mapping]]] = ..., expects: _Optional[_Iterable[_Union[Expect, _Mapping]]] = ..., offers: _Optional[_Iterable[_Union[SnapshotOffer, _Mapping]]] = ..., accepts: _Optional[_Iterable[_Union[SnapshotAccept, _Mapping]]] = ..., parts: _Optional[_Iterable[_Union[SnapshotPart, _Mapping]]] = ..., part_replies: _Optional[_Iterable[_Union[SnapshotPartReply, _Mapping]]] = ...) -> None: ...

class Rpc(_message.Message):
    __slots__ = ("group", "term", "append_entries", "append_reply", "heartbeat", "heartbeat_reply", "request_vote", "vote_reply", "timeout_now", "read_index", "read_index_reply", "install_snapshot")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    APPEND_ENTRIES_FIELD_NUMBER: _ClassVar[int]
    APPEND_REPLY_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_REPLY_FIELD_NUMBER: _ClassVar[int]
    REQUEST_VOTE_FIELD_NUMBER: _ClassVar[int]
    VOTE_REPLY_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_NOW_FIELD_NUMBER: _ClassVar[int]
    READ_INDEX_FIELD_NUMBER: _ClassVar[int]
    READ_INDEX_REPLY_FIELD_NUMBER: _ClassVar[int]
    INSTALL_SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    group: int
    term: int
    append_entries: AppendEntries
    append_reply: AppendReply
    heartbeat: Heartbeat
    heartbeat_reply: HeartbeatReply
    request_vote: RequestVote
    vote_reply: VoteReply
    timeout_now: TimeoutNow
    read_index: ReadIndex
    read_index_reply: ReadIndexReply
    install_snapshot: InstallSnapshot
    def __init__(self, group: _Optional[int] = ..., term: _Optional[int] = ..., append_entries: _Optional[_Union[AppendEntries, _Mapping]] = ..., append_reply: _Optional[_Union[AppendReply, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., heartbeat_reply: _Optional[_Union[HeartbeatReply, _Mapping]] = ..., request_vote: _Optional[_Union[RequestVote, _Mapping]] = ..., vote_reply: _Optional[_Union[VoteReply, _Mapping]] = ..., timeout_now: _Optional[_Union[TimeoutNow, _Mapping]] = ..., read_index: _Optional[_Union[ReadIndex, _Mapping]] = ..., read_index_reply: _Optional[_Union[ReadIndexReply, _Mapping]] = ..., install_snapshot: _Optional[_Union[InstallSnapshot, _Mapping]] = ...) -> None: ...

class Entry(_message.Message):
    __slots__ = ("index", "term", "kind", "ts")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TS_FIELD_NUMBER: _ClassVar[int]
    index: int
    term: int
    kind: int
    ts: int
    def __init__(self, index: _Optional[int] = ..., term: _Optional[int] = ..., kind: _Optional[int] = ..., ts: _Optional[int] = ...) -> None: ...

class AppendEntries(_message.Message):
    __slots__ = ("prev_log_index", "prev_log_term", "leader_commit", "entries", "quiet")
    PREV_LOG_INDEX_FIELD_NUMBER: _ClassVar[int]
    PREV_LOG_TERM_FIELD_NUMBER: _ClassVar[int]
    LEADER_COMMIT_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    QUIET_FIELD_NUMBER: _ClassVar[int]
    prev_log_index: int
    prev_log_term: int
    leader_commit: int
    entries: _containers.RepeatedCompositeFieldContainer[Entry]
    quiet: bool
    def __init__(self, prev_log_index: _Optional[int] = ..., prev_log_term: _Optional[int] = ..., leader_commit: _Optional[int] = ..., entries: _Optional[_Iterable[_Union[Entry, _Mapping]]] = ..., quiet: _Optional[bool] = ...) -> None: ...

class AppendReply(_message.Message):
    __slots__ = ("index", "rejected", "hint_index", "hint_term", "lazy")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    HINT_INDEX_FIELD_NUMBER: _ClassVar[int]
    HINT_TERM_FIELD_NUMBER: _ClassVar[int]
    LAZY_FIELD_NUMBER: _ClassVar[int]
    index: int
    rejected: bool
    hint_index: int
    hint_term: int
    lazy: bool
    def __init__(self, index: _Optional[int] = ..., rejected: _Optional[bool] = ..., hint_index: _Optional[int] = ..., hint_term: _Optional[int] = ..., lazy: _Optional[bool] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("leader_commit", "token")
    LEADER_COMMIT_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    leader_commit: int
    token: int
    def __init__(self, leader_commit: _Optional[int] = ..., token: _Optional[int] = ...) -> None: ...

class HeartbeatReply(_message.Message):
    __slots__ = ("token",)
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    token: int
    def __init__(self, token: _Optional[int] = ...) -> None: ...

class RequestVote(_message.Message):
    __slots__ = ("last_log_index", "last_log_term", "pre", "transfer", "commit", "commit_term")
    LAST_LOG_INDEX_FIELD_NUMBER: _ClassVar[int]
    LAST_LOG_TERM_FIELD_NUMBER: _ClassVar[int]
    PRE_FIELD_NUMBER: _ClassVar[int]
    TRANSFER_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    COMMIT_TERM_FIELD_NUMBER: _ClassVar[int]
    last_log_index: int
    last_log_term: int
    pre: bool
    transfer: bool
    commit: int
    commit_term: int
    def __init__(self, last_log_index: _Optional[int] = ..., last_log_term: _Optional[int] = ..., pre: _Optional[bool] = ..., transfer: _Optional[bool] = ..., commit: _Optional[int] = ..., commit_term: _Optional[int] = ...) -> None: ...

class VoteReply(_message.Message):
    __slots__ = ("granted", "pre", "commit", "commit_term")
    GRANTED_FIELD_NUMBER: _ClassVar[int]
    PRE_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    COMMIT_TERM_FIELD_NUMBER: _ClassVar[int]
    granted: bool
    pre: bool
    commit: int
    commit_term: int
    def __init__(self, granted: _Optional[bool] = ..., pre: _Optional[bool] = ..., commit: _Optional[int] = ..., commit_term: _Optional[int] = ...) -> None: ...

class TimeoutNow(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ReadIndex(_message.Message):
    __slots__ = ("token",)
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    token: int
    def __init__(self, token: _Optional[int] = ...) -> None: ...

class ReadIndexReply(_message.Message):
    __slots__ = ("token", "index")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    token: int
    index: int
    def __init__(self, token: _Optional[int] = ..., index: _Optional[int] = ...) -> None: ...

class InstallSnapshot(_message.Message):
    __slots__ = ("meta",)
    META_FIELD_NUMBER: _ClassVar[int]
    meta: SnapshotMeta
    def __init__(self, meta: _Optional[_Union[SnapshotMeta, _Mapping]] = ...) -> None: ...

class Configuration(_message.Message):
    __slots__ = ("voters", "learners", "outgoing", "learners_next", "auto_leave")
    VOTERS_FIELD_NUMBER: _ClassVar[int]
    LEARNERS_FIELD_NUMBER: _ClassVar[int]
    OUTGOING_FIELD_NUMBER: _ClassVar[int]
    LEARNERS_NEXT_FIELD_NUMBER: _ClassVar[int]
    AUTO_LEAVE_FIELD_NUMBER: _ClassVar[int]
    voters: _containers.RepeatedScalarFieldContainer[int]
    learners: _containers.RepeatedScalarFieldContainer[int]
    outgoing: _containers.RepeatedScalarFieldContainer[int]
    learners_next: _containers.RepeatedScalarFieldContainer[int]
    auto_leave: bool
    def __init__(self, voters: _Optional[_Iterable[int]] = ..., learners: _Optional[_Iterable[int]] = ..., outgoing: _Optional[_Iterable[int]] = ..., learners_next: _Optional[_Iterable[int]] = ..., auto_leave: _Optional[bool] = ...) -> None: ...

class SnapshotMeta(_message.Message):
    __slots__ = ("index", "term", "ts", "configuration", "machine_version")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    TS_FIELD_NUMBER: _ClassVar[int]
    CONFIGURATION_FIELD_NUMBER: _ClassVar[int]
    MACHINE_VERSION_FIELD_NUMBER: _ClassVar[int]
    index: int
    term: int
    ts: int
    configuration: Configuration
    machine_version: int
    def __init__(self, index: _Optional[int] = ..., term: _Optional[int] = ..., ts: _Optional[int] = ..., configuration: _Optional[_Union[Configuration, _Mapping]] = ..., machine_version: _Optional[int] = ...) -> None: ...

class Batch(_message.Message):
    __slots__ = ("group",)
    GROUP_FIELD_NUMBER: _ClassVar[int]
    group: int
    def __init__(self, group: _Optional[int] = ...) -> None: ...

class Expect(_message.Message):
    __slots__ = ("group", "term", "epoch", "seq")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    group: int
    term: int
    epoch: int
    seq: int
    def __init__(self, group: _Optional[int] = ..., term: _Optional[int] = ..., epoch: _Optional[int] = ..., seq: _Optional[int] = ...) -> None: ...

class SnapshotOffer(_message.Message):
    __slots__ = ("group", "term", "meta", "transfer")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    META_FIELD_NUMBER: _ClassVar[int]
    TRANSFER_FIELD_NUMBER: _ClassVar[int]
    group: int
    term: int
    meta: SnapshotMeta
    transfer: int
    def __init__(self, group: _Optional[int] = ..., term: _Optional[int] = ..., meta: _Optional[_Union[SnapshotMeta, _Mapping]] = ..., transfer: _Optional[int] = ...) -> None: ...

class SnapshotAccept(_message.Message):
    __slots__ = ("group", "term", "index", "applied")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    group: int
    term: int
    index: int
    applied: int
    def __init__(self, group: _Optional[int] = ..., term: _Optional[int] = ..., index: _Optional[int] = ..., applied: _Optional[int] = ...) -> None: ...

class SnapshotPart(_message.Message):
    __slots__ = ("group", "term", "index", "number", "entries", "rows", "last", "transfer")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    TRANSFER_FIELD_NUMBER: _ClassVar[int]
    group: int
    term: int
    index: int
    number: int
    entries: _containers.RepeatedCompositeFieldContainer[Entry]
    rows: _containers.RepeatedCompositeFieldContainer[Row]
    last: bool
    transfer: int
    def __init__(self, group: _Optional[int] = ..., term: _Optional[int] = ..., index: _Optional[int] = ..., number: _Optional[int] = ..., entries: _Optional[_Iterable[_Union[Entry, _Mapping]]] = ..., rows: _Optional[_Iterable[_Union[Row, _Mapping]]] = ..., last: _Optional[bool] = ..., transfer: _Optional[int] = ...) -> None: ...

class Row(_message.Message):
    __slots__ = ("key", "value")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    value: bytes
    def __init__(self, key: _Optional[bytes] = ..., value: _Optional[bytes] = ...) -> None: ...

class SnapshotPartReply(_message.Message):
    __slots__ = ("group", "term", "index", "number", "ok", "transfer")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    OK_FIELD_NUMBER: _ClassVar[int]
    TRANSFER_FIELD_NUMBER: _ClassVar[int]
    group: int
    term: int
    index: int
    number: int
    ok: bool
    transfer: int
    def __init__(self, group: _Optional[int] = ..., term: _Optional[int] = ..., index: _Optional[int] = ..., number: _Optional[int] = ..., ok: _Optional[bool] = ..., transfer: _Optional[int] = ...) -> None: ...
