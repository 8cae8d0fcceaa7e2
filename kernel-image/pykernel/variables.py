"""What a cell did to the variables: names added, changed and removed, without running a line of user code.

Looking at a value must neither break nor stall on it, so nothing here calls what a user's class defines:
types are compared by identity or real inheritance, lengths and sizes are read only from builtin and known
library types. What has been changed in place and kept its size may go unseen; that is the price of a few
milliseconds at most.
"""

import itertools
import sys
import time
import types

# At most this many names are looked at, newest first, for at most this long. Counted is the time of this
# thread: on a busy machine a cell should not lose its receipt to its neighbours.
NAMES = 10_000
SECONDS = 0.004
# How many values are described in each of the lists of one answer.
DESCRIBED = 100
PREVIEW = 80

_type_name = type.__dict__["__name__"].__get__
# Types are looked up by their id: comparing or hashing a type would call what its metaclass defines.
_scalars = frozenset(map(id, (int, float, complex, bool, type(None))))
_sized = frozenset(map(id, (list, tuple, dict, set, frozenset, bytearray)))
_plain = frozenset(map(id, (str, bytes, range)))


class Variables:
    """The user's namespace as it was when last looked at."""

    def __init__(self, shell):
        self._shell = shell
        self._known = {}

    def receipt(self):
        """Returns what changed since the last look, and remembers how it is now."""
        started = time.perf_counter()
        deadline = time.thread_time() + SECONDS
        namespace, hidden = self._shell.user_ns, self._shell.user_ns_hidden
        known, now, added, changed = self._known, {}, [], []
        names, truncated = _newest(namespace)
        for index, name in enumerate(names):
            if not index & 63 and index and time.thread_time() > deadline:
                truncated = True
                break
            value = namespace.get(name)
            if _is_hidden(name, value, hidden):
                continue
            mark = fingerprint(value)
            now[name] = mark
            before = known.get(name)
            if before is None:
                added.append((name, value))
            elif before != mark:
                changed.append((name, value))
        if truncated:
            # What was not reached is as it was, unless it is gone: both are cheap to say.
            removed = [name for name in known if name not in namespace]
            now = {**{name: mark for name, mark in known.items() if name in namespace}, **now}
        else:
            removed = [name for name in known if name not in now]
        self._known = now
        truncated = truncated or max(len(added), len(changed), len(removed)) > DESCRIBED
        return {
            "added": _describe_all(added, deadline),
            "changed": _describe_all(changed, deadline),
            "removed": removed[:DESCRIBED],
            "total": len(now),
            "truncated": truncated,
            "took_us": int((time.perf_counter() - started) * 1e6),
        }

    def listing(self):
        """Returns all variables, newest first."""
        deadline = time.thread_time() + 10 * SECONDS
        namespace, hidden = self._shell.user_ns, self._shell.user_ns_hidden
        names, truncated = _newest(namespace)
        found = []
        for index, name in enumerate(names):
            if not index & 63 and index and time.thread_time() > deadline:
                truncated = True
                break
            value = namespace.get(name)
            if not _is_hidden(name, value, hidden):
                found.append(describe(name, value))
        return {"variables": found, "total": len(found), "truncated": truncated}


def _newest(namespace):
    # In one go within C, so that a thread of the user's cannot change the dictionary meanwhile.
    newest = list(itertools.islice(reversed(namespace), NAMES))
    # Every cell leaves two private names behind (`_i7`, `_7`), so these must cost next to nothing.
    return [name for name in newest if type(name) is str and name[:1] != "_"], len(namespace) > NAMES


def _is_hidden(name, value, hidden):
    """Tells whether a name is one of IPython's, or that of a module."""
    return hidden.get(name, hidden) is value or type(value) is types.ModuleType


def _describe_all(found, deadline):
    described = []
    for name, value in found[:DESCRIBED]:
        described.append(describe(name, value, brief=time.thread_time() > deadline))
    return described


def fingerprint(value):
    """Returns something small that differs when the value is another or has visibly changed."""
    kind = type(value)
    if id(kind) in _sized:
        if kind is list and value:
            return id(value), len(value), id(value[0]), id(value[-1])
        return id(value), len(value)
    library = _library(kind)
    if library is not None:
        try:
            return id(value), *library.fingerprint(value)
        except Exception:
            pass
    return id(value), id(kind)


def describe(name, value, brief=False):
    """Returns one variable as the protocol shows it."""
    kind = type(value)
    shape = length = size = None
    preview = ""
    library = None if brief else _library(kind)
    try:
        if library is not None:
            shape, length, size, preview = library.describe(value)
        elif id(kind) in _sized or id(kind) in _plain:
            length = len(value)
            size = sys.getsizeof(value)
            preview = "" if brief else _preview(value, 2)
        elif id(kind) in _scalars:
            size = sys.getsizeof(value)
            preview = _preview(value, 1)
        elif not brief:
            preview = _preview(value, 1)
    except Exception:
        # A value half built, or a library of another version: its type is still told.
        preview = ""
    return {
        "name": name if len(name) <= 200 else name[:199] + "…",
        "type": _type_name(kind),
        "shape": shape,
        "length": length,
        "bytes": size,
        "preview": clip(preview),
    }


def clip(text):
    """Returns `text` on one line, at most as long as a preview may be."""
    text = text[: PREVIEW * 2].replace("\n", " ")
    return text if len(text) <= PREVIEW else text[: PREVIEW - 1] + "…"


def _preview(value, depth):
    """Returns a short text for a value of a builtin type; of any other only its type is named."""
    kind = type(value)
    if kind is int:
        # Decimal digits of a huge integer take quadratic time.
        return repr(value) if value.bit_length() < 256 else f"an integer of {value.bit_length()} bits"
    if id(kind) in _scalars:
        return repr(value)
    if kind is str or kind is bytes:
        return repr(value[:PREVIEW])
    if kind is range:
        return f"range({value.start}, {value.stop}, {value.step})" if value.step != 1 else repr(value)
    if id(kind) in _sized and depth:
        return _preview_container(value, kind, depth - 1)
    if kind is types.FunctionType:
        code = value.__code__
        return f"{value.__name__}({', '.join(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])})"
    if issubclass(kind, type):
        return f"class {_type_name(value)}"
    return f"<{_type_name(kind)}>"


def _preview_container(value, kind, depth):
    shown = []
    # A copy of a few items: a thread of the user's may change the container meanwhile.
    if kind is dict:
        for key, item in list(itertools.islice(value.items(), 6)):
            shown.append(f"{_preview(key, 0)}: {_preview(item, depth)}")
    elif kind is bytearray:
        return f"bytearray({bytes(value[:PREVIEW])!r})"
    else:
        shown = [_preview(item, depth) for item in list(itertools.islice(value, 8))]
    more = ", …" if len(value) > len(shown) else ""
    first, last = {list: "[]", tuple: "()"}.get(kind, "{}")
    return f"{first}{', '.join(shown)}{more}{last}"


# --- library types ------------------------------------------------------------------------------------------


class _Array:
    """numpy.ndarray: memory is sampled, so that most changes in place are seen."""

    @staticmethod
    def fingerprint(value):
        shape, nbytes = value.shape, value.nbytes
        sample = None
        if nbytes and value.flags.c_contiguous and not value.dtype.hasobject:
            flat = value.reshape(-1)
            step = max(1, flat.shape[0] // 16)
            sample = flat[::step][:17].tobytes()
        return shape, nbytes, value.dtype.num, sample

    @staticmethod
    def describe(value):
        shape = list(value.shape)
        preview = str(value.dtype)
        if value.size and not value.dtype.hasobject and value.flags.c_contiguous:
            items = value.reshape(-1)[:6].tolist()
            more = ", …" if value.size > 6 else ""
            preview += ": " + ", ".join(_preview(item, 1) for item in items) + more
        return shape, shape[0] if shape else None, value.nbytes, preview


class _Frame:
    """pandas.DataFrame: its blocks are replaced by most changes."""

    @staticmethod
    def fingerprint(value):
        blocks = value._mgr.blocks
        return value.shape, id(value._mgr), id(value.columns), *(id(block.values) for block in blocks[:16])

    @staticmethod
    def describe(value):
        rows, columns = value.shape
        size = sum(_nbytes(block.values) for block in value._mgr.blocks[:256])
        names = [
            _preview(c, 0) if type(c) is not str else c for c in list(itertools.islice(value.columns, 12))
        ]
        more = ", …" if columns > len(names) else ""
        return [rows, columns], rows, size, "columns: " + ", ".join(names) + more


class _Series:
    """pandas.Series and Index."""

    @staticmethod
    def fingerprint(value):
        values = value._values
        mark = _Array.fingerprint(values) if _library(type(values)) is _Array else ()
        return value.shape, id(values), *mark

    @staticmethod
    def describe(value):
        values = value._values
        return [value.shape[0]], value.shape[0], _nbytes(values), str(value.dtype)


def _nbytes(values):
    """Returns the size of a block: numpy's, or that of one of pandas' own array types."""
    found = values.nbytes
    return int(found) if type(found) is int else None


_LIBRARY = {
    ("numpy", "ndarray"): _Array,
    ("pandas", "DataFrame"): _Frame,
    ("pandas", "Series"): _Series,
    ("pandas", "Index"): _Series,
}
# Id of a type to how it is looked at. Library types live as long as the process, so their ids stay theirs.
_types = {}


def _library(kind):
    """Returns how to look at a library's type, or `None`: a user's subclass may override anything."""
    if len(_types) < len(_LIBRARY):
        for (module, name), look in _LIBRARY.items():
            loaded = sys.modules.get(module)
            found = None if loaded is None else vars(loaded).get(name)
            if isinstance(found, type):
                _types[id(found)] = look
    return _types.get(id(kind))
