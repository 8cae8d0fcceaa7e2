#!/bin/sh
# Makes the Python environment of the sessions from `requirements.lock`: kernel-image/setup-env.sh DIR [--with-tests]
#
# Safe to run again: a finished environment is recognised by its stamp in an instant, an unfinished or outdated one is
# made anew. The result is only ever read afterwards, under whatever path it is mounted at.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
lock="$here/requirements.lock"
python=${PYTHON:-python3}

say() { printf '%s\n' "python environment: $*"; }
fail() {
    printf '%s\n' "python environment: $1" >&2
    shift
    for hint in "$@"; do printf '\nhint: %s\n' "$hint" >&2; done
    exit 1
}

dir=
tests=no
for argument in "$@"; do
    case $argument in
        --with-tests) tests=yes ;;
        -*) fail "unknown option \`$argument\`" "usage: setup-env.sh DIR [--with-tests]" ;;
        *) dir=$argument ;;
    esac
done
[ -n "$dir" ] || fail "no directory given" "usage: setup-env.sh DIR [--with-tests]"

# --- the interpreter -------------------------------------------------------------------------------------------------

command -v "$python" >/dev/null 2>&1 || fail "\`$python\` not found" \
    "install Python 3.11 or newer (apt-get install python3 python3-venv), or name one: PYTHON=python3.12 make run"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail \
    "\`$python\` is $("$python" -V 2>&1), needed is 3.11 or newer" "name another one: PYTHON=python3.12 make run"
"$python" -c 'import venv, ensurepip' 2>/dev/null || fail "\`$python\` cannot make virtual environments" \
    "apt-get install python3-venv"

mkdir -p "$(dirname "$dir")"
dir="$(cd "$(dirname "$dir")" && pwd)/$(basename "$dir")"

# Two runs at once (`make run` beside `make test`) wait for each other.
if command -v flock >/dev/null 2>&1 && [ -z "${EVERCELL_SETUP_LOCKED:-}" ]; then
    EVERCELL_SETUP_LOCKED=1 exec flock "$lock" "$0" "$@"
fi

# --- fonts: a warning, since everything else works without -----------------------------------------------------------

has_cjk_font() {
    for font in /usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc \
        /usr/share/fonts/*/NotoSansCJK-Regular.ttc /usr/share/fonts/*/*/NotoSansCJK-Regular.ttc; do
        [ -e "$font" ] && return 0
    done
    return 1
}

check_fonts() {
    ! has_cjk_font || return 0
    say "warning: no CJK font found; Chinese, Japanese and Korean text will show as boxes in figures"
    say "hint: apt-get install fonts-noto-cjk, then run this again"
}

# What the environment was made from. The fonts are in it since their list is cached in the environment. `recipe` goes
# up when this script makes something different from the same lock.
stamp_text() {
    echo "recipe 1"
    "$python" -c 'import sys; print(sys.version.split()[0], sys.base_prefix)'
    sha256sum <"$lock"
    find /usr/share/fonts /usr/local/share/fonts -type f 2>/dev/null | LC_ALL=C sort | sha256sum
}

stamp="$dir/.evercell-stamp"
wanted=$(stamp_text)

install_tests() {
    [ "$tests" = yes ] || return 0
    test_lock="$here/requirements-test.lock"
    test_wanted=$(sha256sum <"$test_lock")
    [ "$(cat "$stamp-tests" 2>/dev/null || true)" = "$test_wanted" ] && return 0
    say "installing the test tools"
    "$dir/bin/python" -m pip install --quiet --require-hashes --only-binary :all: --no-deps \
        --disable-pip-version-check --no-input --requirement "$test_lock"
    printf '%s\n' "$test_wanted" >"$stamp-tests"
}

if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && "$dir/bin/python" -c '' 2>/dev/null; then
    check_fonts
    install_tests
    exit 0
fi

# --- making it -------------------------------------------------------------------------------------------------------

if [ -e "$dir" ] && [ ! -f "$dir/pyvenv.cfg" ] && [ -n "$(ls -A "$dir" 2>/dev/null)" ]; then
    fail "\`$dir\` exists and is not a Python environment" "choose another directory, or remove it"
fi

count=$(grep -c '^[a-z]' "$lock")
say "making $dir with $("$python" -V 2>&1): up to $count packages, about 1 GB on disk; this takes a minute or more"
rm -rf "$dir"
"$python" -m venv "$dir"

say "1/4 downloading and unpacking"
# --no-deps: the lock is complete. --no-compile: step 2 does it on all cores. --only-binary: nothing is built or run.
"$dir/bin/python" -m pip install --require-hashes --only-binary :all: --no-deps --no-compile --no-input \
    --disable-pip-version-check --progress-bar off --requirement "$lock" 2>&1 |
    awk -v count="$count" '
        /^Collecting /            { done += 1; printf "  [%d/%d] %s\n", done, count, $2; fflush(); next }
        /^Installing collected/   { print "  unpacking (a minute or so)"; fflush(); next }
        /^(ERROR|WARNING|error)/  { print "  " $0; fflush(); next }
        /^Successfully installed/ { ok = 1 }
        END                       { exit !ok }' ||
    fail "installing the packages did not work; see the lines above" \
        "check that this machine reaches a package index (pip config list), then run this again"

say "2/4 compiling to bytecode"
# A package may hold a file that is only a template or for another Python: not an error for the rest.
"$dir/bin/python" -m compileall -q -q -j 0 "$dir/lib" || true

say "3/4 listing fonts for matplotlib"
# Python programs that a session starts read their defaults from here: the CJK font comes after the one they ask for.
# Where it is missing it is not named, since each text of a figure would warn of it.
! has_cjk_font || sed -i 's/^#font.family: .*/font.family: sans-serif, Noto Sans CJK JP/' "$dir"/lib/python3*/site-packages/matplotlib/mpl-data/matplotlibrc
PYTHONPATH="$here" PYTHONDONTWRITEBYTECODE=1 "$dir/bin/python" -m pykernel.fonts build ||
    fail "matplotlib's list of fonts could not be made; see the lines above"

say "4/4 checking that everything imports"
MPLBACKEND=agg MPLCONFIGDIR="$dir/share/evercell/matplotlib" "$dir/bin/python" -c '
import IPython, altair, ipywidgets, matplotlib.pyplot, numpy, openpyxl, pandas, PIL, plotly, pyarrow
import scipy, seaborn, sklearn, statsmodels.api, sympy, tqdm
' || fail "a package does not import; see the lines above"

printf '%s\n' "$wanted" >"$stamp"
check_fonts
install_tests
say "ready: $dir ($(du -sh "$dir" | cut -f1))"
