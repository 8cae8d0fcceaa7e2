"""What is imported before the first cell, and why.

A kernel forked from the zygote has all of this at no cost, and shares its memory. What is in the list is what
conversations about data use; what is not (statsmodels, sympy, plotly, altair) is wanted by few of them, and
every module makes every fork a little dearer.

A kernel without a zygote has the libraries when it has rehearsed, as those of the warm pool have. One that is
made while somebody waits begins with the shell alone, and imports what its cells ask for.
"""

import contextlib
import gc
import importlib
import io
import os
import platform
import random
import sys

from . import fonts, linux

# The shell and what it imports at its first cell, completion and traceback.
SHELL = (
    "IPython",
    "IPython.core.completer",
    "IPython.core.completerlib",
    "IPython.core.ultratb",
    "IPython.utils.tokenutil",
    "asyncio",
    "comm",
    "stack_data",
)

LIBRARIES = (
    # Numbers and tables.
    "numpy",
    "numpy.random",
    "numpy.linalg",
    "numpy.fft",
    "pandas",
    "pandas.io.formats.format",
    "pandas.io.formats.style",
    "pyarrow",
    "pyarrow.parquet",
    "scipy",
    "scipy.stats",
    "scipy.optimize",
    "scipy.sparse",
    # Figures.
    "matplotlib",
    "matplotlib.pyplot",
    "matplotlib_inline.backend_inline",
    "PIL.Image",
    "PIL.PngImagePlugin",
    "seaborn",
    # Learning.
    "sklearn",
    "sklearn.cluster",
    "sklearn.compose",
    "sklearn.datasets",
    "sklearn.decomposition",
    "sklearn.ensemble",
    "sklearn.linear_model",
    "sklearn.metrics",
    "sklearn.model_selection",
    "sklearn.neighbors",
    "sklearn.pipeline",
    "sklearn.preprocessing",
    "sklearn.svm",
    "sklearn.tree",
    "tqdm",
    "tqdm.auto",
    # The standard library that programs reach for.
    "collections",
    "concurrent.futures",
    "csv",
    "datetime",
    "decimal",
    "functools",
    "itertools",
    "json",
    "math",
    "multiprocessing",
    "pathlib",
    "re",
    "statistics",
    "sqlite3",
    "subprocess",
    "time",
    "urllib.request",
    "uuid",
)

# One cell of each kind that a conversation begins with, so that caches are filled and fonts are found.
_WARM_UP = (
    "import numpy as np, pandas as pd, matplotlib.pyplot as plt",
    "_f = pd.DataFrame({'a': np.arange(20.0), 'b': list('abcdefghijklmnopqrst')}); _f.describe()",
    "_f.groupby(_f.a > 3).a.mean()",
    "plt.figure(); plt.plot([1, 2, 3]); plt.title('title'); plt.show()",
    "1 / 0",
    "_f['no such column']",
    "%time 1 + 1",
    "_f.plot(x='a')",
)


def before_imports():
    """Keeps the libraries from making threads: a forked child has their memory, and not the threads."""
    # OpenBLAS makes its pool when it is loaded; OpenMP's is made when it is first used.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("MKL_NUM_THREADS", "1")
    # Arrow's allocator would start a thread that returns memory in the background.
    os.environ.setdefault("JE_ARROW_MALLOC_CONF", "background_thread:false")


def load(names):
    """Imports modules and returns the names of those that are there."""
    loaded = []
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError:
            # An environment with fewer packages is an environment; `ready` says what was loaded.
            continue
        loaded.append(name)
    return loaded


def warm(shell, kernel):
    """Imports the libraries and runs the warm-up cells, then gives the shell a clean namespace."""
    loaded = load(LIBRARIES)
    if "pandas" in loaded:
        # As in a notebook: imported outside of a cell, pandas takes this for a terminal.
        sys.modules["pandas"].set_option("display.max_columns", 20)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        for code in _WARM_UP:
            kernel.execute({"code": code})
        kernel.complete({"code": "np.ar", "cursor": 5})
        kernel.inspect({"code": "len", "cursor": 3})
        kernel.is_complete({"code": "1"})
    clean(shell)
    fonts.close()
    gc.collect()
    return loaded


def rehearse(shell, kernel):
    """Runs what every first cell runs, and leaves no trace.

    The pages that this writes to become this kernel's own, which costs a page fault each: better now than
    when somebody waits for the first cell.
    """
    channel = kernel.channel
    ring, channel.ring = channel.ring, None
    try:
        if LIBRARIES[0] not in sys.modules:
            warm(shell, kernel)
            freeze()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            kernel.execute({"code": "1 + 1"})
    finally:
        channel.ring = ring
    clean(shell)
    kernel.forget()


def clean(shell):
    """Makes the shell as new: no variables, no history, the next cell is the first."""
    shell.reset(new_session=True)
    shell.execution_count = 1
    hook = shell.displayhook
    hook._ = hook.__ = hook.___ = ""
    shell.user_ns.update({"_": "", "__": "", "___": ""})
    shell.compile._filename_map.clear()
    shell.last_error = None
    shell.history_manager.outputs.clear()
    shell.history_manager.exceptions.clear()
    for name in ("last_type", "last_value", "last_traceback", "last_exc"):
        if hasattr(sys, name):
            delattr(sys, name)
    sys.modules["__main__"] = shell.user_module


def freeze():
    """Lets the collector work, and puts all objects out of its reach: one in a child writes to none."""
    gc.freeze()
    gc.enable()
    linux.collapse_memory()


def reseed():
    """Gives this process random numbers of its own."""
    random.seed()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()


def python_version():
    """Returns the version of Python."""
    return platform.python_version()
