"""Completion, inspection, completeness: questions about code that is not run.

They still run code of the user's (properties, `__dir__`, `__repr__`), so their time is bounded.
"""

import contextlib
import signal

from IPython.core.completer import provisionalcompleter, rectify_completions
from IPython.utils.tokenutil import token_at_cursor

from . import messages, requests

SECONDS = 2.0
MOST_MATCHES = 1000


class OutOfTime(BaseException):
    """A lookup took too long. Not an `Exception`, since what looks things up swallows those."""


def complete(shell, request):
    """Returns what could stand at the cursor."""
    code, cursor = requests.text(request, "code"), requests.number(request, "cursor")
    with bounded_time(), provisionalcompleter():
        found = list(rectify_completions(code, shell.Completer.completions(code, cursor)))[:MOST_MATCHES]
    start, end = (found[0].start, found[0].end) if found else (cursor, cursor)
    texts = [match.text for match in found]
    if texts and code[start : start + 1] == "." and all(text.startswith(".") for text in texts):
        # What is replaced begins after the dot, and so does what a list of choices should show.
        texts, start = [text[1:] for text in texts], start + 1
    types = [match.type or "" for match in found]
    matches = [{"text": text, "type": kind} for text, kind in zip(texts, types, strict=True)]
    return {"matches": matches, "start": start, "end": end}


def inspect(shell, request):
    """Returns documentation of what is at the cursor."""
    name = token_at_cursor(requests.text(request, "code"), requests.number(request, "cursor"))
    with bounded_time():
        try:
            data = shell.object_inspect_mime(name, detail_level=1 if request.get("detail") else 0)
        except KeyError:
            return {"found": False, "data": {}}
    return {"found": True, "data": messages.encode_bundle(data)}


def is_complete(shell, request):
    """Tells whether code is a whole cell."""
    status, indent = shell.input_transformer_manager.check_complete(requests.text(request, "code"))
    return {"status": status, "indent": " " * (indent or 0)}


@contextlib.contextmanager
def bounded_time():
    """Ends what runs too long with `OutOfTime`; the user's own alarm is put back afterwards."""
    armed = True

    def ring(_signum, _frame):
        # The store below has no call in it, so this cannot be raised once the work is over.
        if armed:
            raise OutOfTime

    handler = signal.signal(signal.SIGALRM, ring)
    # Again and again after the first time: IPython swallows what a completer raises, and asks the next one.
    left, interval = signal.setitimer(signal.ITIMER_REAL, SECONDS, 0.02)
    try:
        yield
    finally:
        armed = False
        signal.setitimer(signal.ITIMER_REAL, left, interval)
        signal.signal(signal.SIGALRM, handler if handler is not None else signal.SIG_DFL)
