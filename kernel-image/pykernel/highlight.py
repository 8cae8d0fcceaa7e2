"""What is the same in every traceback, made once.

`stack_data` makes a style, a formatter and a lexer anew for each traceback, and pygments compiles them: two
thirds of the time that an error took. They are functions of their arguments, so their results can be kept.
"""

import functools

import pygments
import stack_data
import stack_data.core
from pygments.formatters import terminal256
from pygments.lexers import PythonLexer


@functools.cache
def _lexer():
    # Compiles some hundred expressions: at the first traceback, not at the start.
    return PythonLexer(stripnl=False)


class _Marked:
    """A lexer for one text: Python's, with the tokens that lie in `ranges` marked as executing."""

    def __init__(self, ranges):
        self.ranges = ranges

    def get_tokens(self, text):
        """Yields kinds of tokens and their texts, as pygments wants them."""
        at = 0
        for kind, piece in _lexer().get_tokens(text):
            marked = any(start <= at < end for start, end in self.ranges)
            yield (kind.ExecutingNode if marked else kind), piece
            at += len(piece)


def lines(formatter, code, ranges):
    """Returns the lines of `code` in colour; the same as `stack_data` does it."""
    try:
        code = pygments.highlight(code, _Marked(ranges), formatter)
    except Exception:
        # Code without colour is better than none.
        pass
    return code.splitlines()


def _kept(set_up):
    """Returns `_setup_styles` of a formatter, which looks for the nearest colours, once for each style."""
    found = {}

    @functools.wraps(set_up)
    def set_up_styles(self):
        key = type(self), self.style, self.usebold, self.useunderline, self.useitalic
        if key not in found:
            set_up(self)
            found[key] = self.style_string
        self.style_string = dict(found[key])

    return set_up_styles


def install():
    """Makes `stack_data` and IPython use what is kept."""
    stack_data.core._pygmented_with_ranges = lines
    stack_data.style_with_executing_node = functools.cache(stack_data.style_with_executing_node)
    formatter = terminal256.Terminal256Formatter
    formatter._setup_styles = _kept(formatter._setup_styles)
