"""Fonts of figures: a list made once, and Chinese, Japanese and Korean glyphs in every figure.

matplotlib wants to write its list of fonts into a directory of its own, and falls back from font to font only
within `font.family`. Here the list is made when the environment is made and only read afterwards, and the CJK
font is the last resort of every text, whatever families a style sheet, `seaborn.set_theme` or the user's own
settings name.
"""

import contextlib
import importlib.machinery
import importlib.util
import os
import pathlib
import sys

# The face that matplotlib sees of Debian's fonts-noto-cjk. One face has the glyphs of all three languages.
CJK_FAMILIES = ("Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans CJK KR", "Noto Sans CJK TC")


def cache_directory():
    """Returns where this environment keeps matplotlib's list of fonts, also when it is mounted elsewhere."""
    return pathlib.Path(sys.prefix, "share", "evercell", "matplotlib")


def when_imported(act):
    """Prepares matplotlib when it is imported, by whomever, and calls `act` then."""
    sys.meta_path.insert(0, _Preparation(act))


class _Preparation:
    """Stands before the finders of modules until matplotlib has come."""

    def __init__(self, act):
        self.act = act
        self.loader = None

    def find_spec(self, name, path=None, target=None):
        """Finds matplotlib as it would have been found, and stands in for its loader."""
        if name != "matplotlib":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is None:
            return None
        self.loader, spec.loader = spec.loader, self
        return spec

    def create_module(self, spec):
        """Leaves it to the loader of matplotlib."""
        return self.loader.create_module(spec)

    def exec_module(self, module):
        """Runs the module and prepares it. When that is interrupted, it is as if it was never imported."""
        module.__spec__.loader = module.__loader__ = self.loader
        with _own_settings(module.__spec__):
            self.loader.exec_module(module)
        with _own_cache(module):
            add_cjk_fallback()
        self.act()
        sys.meta_path.remove(self)


@contextlib.contextmanager
def _own_settings(spec):
    """Lets matplotlib read the settings that it comes with, not those of a home directory.

    It refuses a directory that is not writable and makes a temporary one, with a warning; and it remembers
    the one it found, which must not happen here: the session that comes later has a home of its own.
    """
    data = spec.submodule_search_locations[0]
    before = os.environ.get("MATPLOTLIBRC")
    os.environ["MATPLOTLIBRC"] = os.path.join(data, "mpl-data", "matplotlibrc")
    try:
        yield
    finally:
        del os.environ["MATPLOTLIBRC"]
        if before is not None:
            os.environ["MATPLOTLIBRC"] = before


@contextlib.contextmanager
def _own_cache(matplotlib):
    """Lets matplotlib take its list of fonts from `cache_directory()`, though it cannot write there."""
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
    with _own_settings(importlib.util.find_spec("matplotlib")):
        import matplotlib
    with _own_cache(matplotlib):
        from matplotlib import font_manager
    found = {entry.name for entry in font_manager.fontManager.ttflist}
    print(f"  {len(found)} font families; CJK: {next((f for f in CJK_FAMILIES if f in found), 'none')}")


if __name__ == "__main__":
    if sys.argv[1:] != ["build"]:
        sys.exit("usage: python -m pykernel.fonts build")
    build()
