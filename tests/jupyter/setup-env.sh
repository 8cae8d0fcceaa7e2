#!/bin/bash
# Makes the environment of Jupyter's clients that tests run against a server: tests/jupyter/setup-env.sh .venv-jupyter
set -eu -o pipefail

target=$1
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}

wanted="$(sha256sum <"$here/requirements.lock") $("$python" -c 'import sys; print(sys.version)')"
[ "$(cat "$target/.stamp" 2>/dev/null || true)" != "$wanted" ] || exit 0
printf 'making %s: the clients of Jupyter that tests run\n' "$target" >&2
rm -rf "$target"
"$python" -m venv "$target"
"$target/bin/python" -m pip install --quiet --require-hashes --only-binary :all: --no-deps --no-input \
    --disable-pip-version-check --requirement "$here/requirements.lock"
# Last: an environment that is not whole is made anew.
printf '%s\n' "$wanted" >"$target/.stamp"
