"""Colours that are kept are the colours that would be made anew."""

import stack_data
import stack_data.utils
from pygments.formatters import Terminal256Formatter

from pykernel import highlight

CODE = "def f(x):\n    # a comment\n    return 'text' + str(1 / x)\n"


def coloured(formatter, ranges):
    """Returns the lines as this module and as `stack_data` makes them."""
    return highlight.lines(formatter, CODE, ranges), stack_data.utils._pygmented_with_ranges(
        formatter, CODE, ranges
    )


def test_lines_look_as_without_keeping_anything():
    style = stack_data.style_with_executing_node("default", "bg:ansiyellow")
    formatter = Terminal256Formatter(style=style)
    for ranges in ([], [(0, 9)], [(45, 53)]):
        ours, theirs = coloured(formatter, ranges)
        assert ours == theirs
    assert coloured(formatter, [])[0] != coloured(formatter, [(45, 53)])[0]


def test_a_formatter_has_the_colours_of_its_own_style():
    fresh = [Terminal256Formatter(style=name).style_string for name in ("default", "monokai")]
    highlight.install()
    kept = [Terminal256Formatter(style=name).style_string for name in ("default", "monokai", "monokai")]
    assert kept == [*fresh, fresh[1]]
