"""A reference class for each message and reply: what is not described here must not come."""

import types
import typing

Json = object


class Reference:
    """Fields by annotation; `optional` names those that may be missing."""

    optional: typing.ClassVar = frozenset()

    @classmethod
    def check(cls, fields):
        """Asserts that a message has these fields, of these types, and no others."""
        wanted = {}
        for base in reversed(cls.__mro__):
            wanted.update({k: v for k, v in vars(base).get("__annotations__", {}).items() if k != "optional"})
        assert isinstance(fields, dict), fields
        for name, kind in wanted.items():
            if name not in fields:
                assert name in cls.optional, f"{cls.__name__} lacks `{name}`: {fields}"
                continue
            assert matches(fields[name], kind), f"{cls.__name__}.{name} is {fields[name]!r}, not {kind}"
        assert set(fields) <= set(wanted), f"{cls.__name__} has unknown {set(fields) - set(wanted)}"
        cls.rules(fields)

    @classmethod
    def rules(cls, fields):
        """Asserts what types cannot say."""


def matches(value, kind):
    """Tells whether a value is of an annotated type."""
    if kind is Json:
        return True
    if isinstance(kind, type) and issubclass(kind, Reference):
        kind.check(value)
        return True
    if isinstance(kind, types.UnionType):
        if value is None:
            return type(None) in typing.get_args(kind)
        return any(matches(value, one) for one in typing.get_args(kind) if one is not type(None))
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return value in arguments
    if origin is list:
        return isinstance(value, list) and all(matches(item, arguments[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(matches(item, arguments[1]) for item in value.values())
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind is None:
        return value is None
    return isinstance(value, kind)


# --- messages ------------------------------------------------------------------------------------------------------------


class Message(Reference):
    type: str
    cell: str
    optional = frozenset({"cell"})


class Ready(Message):
    pid: int
    python: str
    generation: typing.Literal[1]
    preload: list[str]
    restored: bool
    execution_count: int


class MimeBundle(Message):
    data: dict[str, Json]
    metadata: dict[str, Json]

    @classmethod
    def rules(cls, fields):
        for mime, value in fields["data"].items():
            assert "/" in mime
            if not (mime == "application/json" or mime.endswith("+json")):
                assert isinstance(value, str), f"{mime} is {type(value)}"


class Transient(Reference):
    display_id: str
    optional = frozenset({"display_id"})


class DisplayData(MimeBundle):
    transient: Transient


class ExecuteResult(MimeBundle):
    execution_count: int


class Error(Message):
    ename: str
    evalue: str
    traceback: list[str]

    @classmethod
    def rules(cls, fields):
        assert not any("pykernel" in line for line in fields["traceback"]), fields["traceback"]


class ClearOutput(Message):
    wait: bool


class InputRequest(Message):
    request: str
    prompt: str
    password: bool


class CommMsg(Message):
    comm_id: str
    data: dict[str, Json]
    metadata: dict[str, Json]
    buffers: list[int]


class CommOpen(CommMsg):
    target_name: str


MESSAGES = {
    "ready": Ready,
    "display_data": DisplayData,
    "update_display_data": DisplayData,
    "execute_result": ExecuteResult,
    "error": Error,
    "asynchronous_error": Error,
    "clear_output": ClearOutput,
    "input_request": InputRequest,
    "comm_open": CommOpen,
    "comm_msg": CommMsg,
    "comm_close": CommMsg,
}


def check_message(fields):
    """Asserts that a message is one the protocol knows."""
    MESSAGES[fields["type"]].check(fields)


# --- replies -------------------------------------------------------------------------------------------------------------


class Reply(Reference):
    id: int


class Variable(Reference):
    name: str
    type: str
    shape: list[int] | None
    length: int | None
    bytes: int | None
    preview: str

    @classmethod
    def rules(cls, fields):
        assert len(fields["preview"]) <= 80


class Receipt(Reference):
    added: list[Variable]
    changed: list[Variable]
    removed: list[str]
    total: int
    truncated: bool
    took_us: int


class ErrorFields(Reference):
    ename: str
    evalue: str
    traceback: list[str]


class ExecuteReply(Reply):
    status: typing.Literal["ok", "error"]
    execution_count: int
    error: ErrorFields | None
    user_expressions: dict[str, Json]
    payload: list[Json]
    variables: Receipt
    unprotected: typing.Literal["burst", "costly", "failed", "off", None]

    @classmethod
    def rules(cls, fields):
        assert (fields["status"] == "error") == (fields["error"] is not None)
        assert all(isinstance(part.get("source"), str) for part in fields["payload"])


class Match(Reference):
    text: str
    type: str


class CompleteReply(Reply):
    matches: list[Match]
    start: int
    end: int


class InspectReply(Reply):
    found: bool
    data: dict[str, str]


class IsCompleteReply(Reply):
    status: typing.Literal["complete", "incomplete", "invalid", "unknown"]
    indent: str


class VariablesReply(Reply):
    variables: list[Variable]
    total: int
    truncated: bool


class CommInfoReply(Reply):
    comms: dict[str, str]


REPLIES = {
    "configure": Reply,
    "execute": ExecuteReply,
    "complete": CompleteReply,
    "inspect": InspectReply,
    "is_complete": IsCompleteReply,
    "variables": VariablesReply,
    "comm_open": Reply,
    "comm_msg": Reply,
    "comm_close": Reply,
    "comm_info": CommInfoReply,
    "checkpoint": Reply,
    "rehearse": Reply,
    "shutdown": Reply,
}
