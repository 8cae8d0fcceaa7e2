"""Fonts of figures: a list made once, and Chinese, Japanese and Korean glyphs in every figure.

matplotlib wants to write its list of fonts into a directory of its own, and falls back from font to font only
within `font.family`. Here the list is made when the environment is made and only read afterwards, and the CJK
font is the last resort of every text, whatever families a style sheet, `seaborn.set_theme` or the user's own
settings name.
"""

import contextlib
import importlib.util
import os
import pathlib
import sys

# The face that matplotlib sees of Debian's fonts-noto-cjk. One face has the glyphs of all three languages.
CJK_FAMILIES = ("Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans CJK KR", "Noto Sans CJK TC")


def cache_directory():
    """Returns where this environment keeps matplotlib's list of fonts, also when it is mounted elsewhere."""
    return pathlib.Path(sys.prefix, "share", "evercell", "matplotlib")


@contextlib.contextmanager
def reading_cache():
    """Lets matplotlib take `cache_directory()` as its own while it is imported, though it cannot write there.

    matplotlib refuses a directory that is not writable and makes a temporary one, with a warning; and it
    remembers the one it found, which must not happen here, since the session that comes later has a home of
    its own.
    """
    data = importlib.util.find_spec("matplotlib").submodule_search_locations[0]
    before = os.environ.get("MATPLOTLIBRC")
    os.environ["MATPLOTLIBRC"] = os.path.join(data, "mpl-data", "matplotlibrc")
    try:
        import matplotlib
    finally:
        del os.environ["MATPLOTLIBRC"]
        if before is not None:
            os.environ["MATPLOTLIBRC"] = before

    originals = matplotlib.get_configdir, matplotlib.get_cachedir
    matplotlib.get_configdir = matplotlib.get_cachedir = lambda: str(cache_directory())
    try:
        yield
    finally:
        matplotlib.get_configdir, matplotlib.get_cachedir = originals


def add_cjk_fallback():
    """Makes the CJK font the last of the fonts that every text of a figure may take its glyphs from."""
    import matplotlib
    from matplotlib import font_manager

    families = [f for f in CJK_FAMILIES if any(entry.name == f for entry in font_manager.fontManager.ttflist)]
    if not families:
        return
    manager = font_manager.FontManager
    original = manager._find_fonts_by_props
    # By weight and style. A search costs a good part of a millisecond, and a figure has hundreds of texts.
    found = {}

    def _find_fonts_by_props(self, prop, *args, **kwargs):
        prop = font_manager.FontProperties._from_any(prop)
        paths = original(self, prop, *args, **kwargs)
        key = prop.get_style(), prop.get_weight(), prop.get_stretch()
        if key not in found:
            wanted = prop.copy()
            wanted.set_family(families[0])
            found[key] = self.findfont(wanted, fallback_to_default=False)
        return paths if found[key] in paths else [*paths, found[key]]

    manager._find_fonts_by_props = _find_fonts_by_props
    # What the settings of the environment do for other programs would now only be a second search for each
    # text.
    matplotlib.rcParams["font.family"] = ["sans-serif"]


def close():
    """Closes the font files: in a forked child, matplotlib would close what has their numbers by then."""
    manager = sys.modules.get("matplotlib.font_manager")
    if manager is not None:
        manager._get_font.cache_clear()


def build():
    """Makes the list of fonts for this environment; called once by `setup-env.sh`."""
    directory = cache_directory()
    directory.mkdir(parents=True, exist_ok=True)
    with reading_cache():
        from matplotlib import font_manager
    found = {entry.name for entry in font_manager.fontManager.ttflist}
    print(f"  {len(found)} font families; CJK: {next((f for f in CJK_FAMILIES if f in found), 'none')}")


if __name__ == "__main__":
    if sys.argv[1:] != ["build"]:
        sys.exit("usage: python -m pykernel.fonts build")
    build()
