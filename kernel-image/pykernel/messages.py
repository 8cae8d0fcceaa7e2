"""The words the kernel says to the agent: one dataclass per message, its fields named as in `PROTOCOL.md`."""

import base64
import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, ClassVar

GENERATION = 1


@dataclass(slots=True)
class Message:
    """What all messages have: a type. The cell they come from is added by the channel."""

    type: ClassVar[str]

    def fields(self):
        """Returns the message as JSON-able fields, without `cell`."""
        return {"type": self.type, **{f.name: getattr(self, f.name) for f in dataclasses.fields(self)}}


@dataclass(slots=True)
class Ready(Message):
    """The first message, once: the kernel serves requests."""

    type = "ready"
    pid: int
    python: str
    preload: list[str]
    # Whether this is a twin that was woken, and how many cells its variables have seen.
    restored: bool = False
    execution_count: int = 0
    generation: int = GENERATION


@dataclass(slots=True)
class DisplayData(Message):
    """A mime bundle shown by code."""

    type = "display_data"
    data: dict[str, Any]
    metadata: dict[str, Any] = field(default_factory=dict)
    transient: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class UpdateDisplayData(DisplayData):
    """Replaces the display data of the same display id."""

    type = "update_display_data"


@dataclass(slots=True)
class ExecuteResult(Message):
    """The mime bundle of a cell's last expression."""

    type = "execute_result"
    execution_count: int
    data: dict[str, Any]
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Error(Message):
    """User code raised. The traceback is a list of coloured pieces of text."""

    type = "error"
    ename: str
    evalue: str
    traceback: list[str]


@dataclass(slots=True)
class AsynchronousError(Error):
    """An exception nobody awaited, in a task that ran between cells."""

    type = "asynchronous_error"


@dataclass(slots=True)
class ClearOutput(Message):
    """Removes the cell's outputs so far; with `wait`, when the next one comes."""

    type = "clear_output"
    wait: bool


@dataclass(slots=True)
class InputRequest(Message):
    """`input()` or `getpass()` waits for an `input_reply` with the same `request`."""

    type = "input_request"
    request: str
    prompt: str
    password: bool


@dataclass(slots=True)
class CommOpen(Message):
    """A comm opened by the kernel."""

    type = "comm_open"
    comm_id: str
    target_name: str
    data: Any
    metadata: dict[str, Any]
    buffers: list[int]


@dataclass(slots=True)
class CommMsg(Message):
    """Data on an open comm; the raw buffers follow the JSON."""

    type = "comm_msg"
    comm_id: str
    data: Any
    metadata: dict[str, Any]
    buffers: list[int]


@dataclass(slots=True)
class CommClose(CommMsg):
    """The end of a comm."""

    type = "comm_close"


def encode(fields, buffers=()):
    """Returns the payload of a message or reply: length of the JSON, JSON, buffers."""
    text = to_json(fields)
    return b"".join((len(text).to_bytes(4, "little"), text, *buffers))


def to_json(value):
    """Returns `value` as JSON in UTF-8 that any strict reader accepts: no NaN, no lone surrogates."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError):
        text = json.dumps(_plain(value, 0), ensure_ascii=False, separators=(",", ":"))
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace")


def _plain(value, depth):
    """Returns what JSON can say of `value`. A mime bundle is the user's and may hold anything."""
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return value
    if depth > 100:
        return "…"
    if isinstance(value, float):
        # The comparison is false for NaN and for both infinities.
        return float(value) if abs(value) < float("inf") else None
    if isinstance(value, bool | int | str):
        return json.loads(json.dumps(value))
    if isinstance(value, dict):
        return {k if type(k) is str else str(k): _plain(v, depth + 1) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(v, depth + 1) for v in value]
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode("ascii")
    item = getattr(value, "tolist", None)
    if callable(item):
        # numpy scalars and arrays.
        return _plain(item(), depth + 1)
    return str(value)


def encode_bundle(data):
    """Returns a mime bundle with its binary values as base64 text."""
    return {
        str(mime): base64.b64encode(value).decode("ascii")
        if isinstance(value, bytes | bytearray | memoryview)
        else value
        for mime, value in data.items()
        if value is not None
    }
