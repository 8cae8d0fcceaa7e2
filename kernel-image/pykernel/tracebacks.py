"""Tracebacks as IPython shows them, at a price that an error in pandas may have.

IPython parses the whole source file of every frame to mark the failing expression: half a second and 60 MB
for a misspelt column name. Here that is kept for the user's own code; frames of libraries show their lines as
they are.
"""

import contextlib
import inspect
import linecache
import os
import sys
import traceback

from IPython.core import tbtools, ultratb

from . import system

# Of an endless recursion nobody wants to see, or wait for, three thousand frames.
FRAMES_SHOWN = 30
# Lines of a library's source before and after the one that failed.
LIBRARY_CONTEXT = 3

_here = os.path.dirname(os.path.abspath(__file__)) + os.sep
_ipython = os.path.dirname(os.path.dirname(os.path.abspath(ultratb.__file__))) + os.sep


class Tracebacks(ultratb.AutoFormattedTB):
    """IPython's formatter, with the frames of libraries made cheaply."""

    def describe(self, kind, value, tb, tb_offset):
        """Returns an exception and what it came from as coloured pieces of text."""
        if _has_group(value):
            # IPython's own formatter does not show what is in a group.
            while tb is not None and tb.tb_frame.f_code.co_filename.startswith(_ipython):
                tb = tb.tb_next
            return traceback.format_exception(kind, value, tb)
        name_modules(value)
        with shortened(value) as left_out:
            text = self.structured_traceback(kind, value, tb, tb_offset=tb_offset)
        if left_out:
            shown = f"(of {left_out + FRAMES_SHOWN} frames, {left_out} in the middle are left out)"
            text.insert(-1, shown + "\n")
        return text

    def get_records(self, etb, context, tb_offset):
        """Returns the frames to show: IPython's way for runs of the user's frames, ours for the others."""
        records, run = [], []
        place = etb
        while place is not None:
            name = place.tb_frame.f_code.co_filename
            if is_library(name):
                records += self._own_records(run, context)
                run = []
                if not name.startswith(_ipython):
                    records.append(LibraryFrame(place))
            else:
                run.append(place)
            place = place.tb_next
        return records + self._own_records(run, context)

    def _own_records(self, run, context):
        if not run:
            return []
        # IPython follows the chain to its end, whatever is in it.
        following, run[-1].tb_next = run[-1].tb_next, None
        try:
            return super().get_records(run[0], context, 0)
        finally:
            run[-1].tb_next = following


class LibraryFrame(tbtools.FrameInfo):
    """A frame of a library: its lines without any analysis."""

    def __init__(self, place):
        code = place.tb_frame.f_code
        self.description, self.filename, self.lineno = "Raw frame", code.co_filename, place.tb_lineno
        self.frame, self.code, self._sd, self.context = place.tb_frame, code, None, LIBRARY_CONTEXT
        lines = linecache.getlines(code.co_filename)
        # Empty for compiled code, whose source is not there.
        self.raw_lines = lines[code.co_firstlineno - 1 : self.lineno + LIBRARY_CONTEXT]


def is_library(filename):
    """Tells whether a source file belongs to Python or an installed package."""
    roots = (sys.prefix, sys.base_prefix, system.packages_directory())
    return filename.startswith(roots) or filename.endswith((".pyx", ".pxi", ".pxd"))


def trim(error):
    """Takes the frames of this package out of the tracebacks of an exception and of what it came from."""
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        kept, place = [], error.__traceback__
        while place is not None:
            if not place.tb_frame.f_code.co_filename.startswith(_here):
                kept.append(place)
            place = place.tb_next
        # An exception that was named as a cause and never raised has none.
        for place, following in zip(kept, kept[1:] + [None] * bool(kept), strict=True):
            place.tb_next = following
        error.__traceback__ = kept[0] if kept else None
        error = error.__cause__ or error.__context__


def name_modules(error):
    """Tells `inspect` which module the cells in a traceback belong to.

    It would otherwise look at all three thousand loaded modules for each frame, and in a forked kernel make a
    private copy of every page they lie in: 10 MB for the first error.
    """
    place = error.__traceback__
    while place is not None:
        code = place.tb_frame.f_code.co_filename
        if code.startswith("<"):
            inspect.modulesbyfile[code] = inspect.modulesbyfile[os.path.abspath(code)] = "__main__"
        place = place.tb_next


@contextlib.contextmanager
def shortened(error):
    """Takes the middle out of a long traceback while it is formatted: each frame costs milliseconds."""
    places, place = [], error.__traceback__
    while place is not None:
        places.append(place)
        place = place.tb_next
    left_out = max(0, len(places) - FRAMES_SHOWN)
    if not left_out:
        yield 0
        return
    last = places[FRAMES_SHOWN // 2]
    following = last.tb_next
    last.tb_next = places[FRAMES_SHOWN // 2 + left_out + 1]
    try:
        yield left_out
    finally:
        last.tb_next = following


def _has_group(value):
    seen = set()
    while value is not None and id(value) not in seen:
        seen.add(id(value))
        if isinstance(value, BaseExceptionGroup):
            return True
        value = value.__cause__ or value.__context__
    return False
