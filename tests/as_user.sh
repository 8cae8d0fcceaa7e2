#!/bin/bash
# Runs the tests of isolation and rollback once more as an ordinary user, when it is root who tests: tests/as_user.sh
#
# A sandbox made by root and one made by an ordinary user are made differently, so both are tested. The user has an id of
# its own and no name. Where it could not reach the repository (a home of mode 0700 above it), the repository is shown to
# it at the same place in a mount namespace of its own.
set -euo pipefail
cd "$(dirname "$0")/.."
repository=$PWD
user=20777

if [ "$(id -u)" -ne 0 ]; then
    echo "skipped: isolation and rollback tests as root, since these tests run as uid $(id -u)"
    exit 0
fi
if [ ! -e tests/it/isolation.rs ]; then
    echo "skipped: isolation and rollback tests as an ordinary user, since there are none"
    exit 0
fi
for tool in setpriv unshare; do
    if ! command -v "$tool" >/dev/null; then
        echo "skipped: isolation and rollback tests as an ordinary user, since \`$tool\` is not installed"
        exit 0
    fi
done

# The closed directory nearest to the root, if any.
closed=
path=
IFS=/ read -ra parts <<<"${repository#/}"
for part in "${parts[@]}"; do
    path=$path/$part
    if [ $((0$(stat -c %a "$path") & 1)) -eq 0 ]; then
        closed=$path
        break
    fi
done

binary=$(cargo test --locked --test it --no-run 2>&1 | sed -nE 's/^ *Executable .*\((.*)\)$/\1/p' | tail -1)
scratch=$(mktemp -d /tmp/evercell-user.XXXXXX)
trap 'rm -rf "$scratch"' EXIT
chown "$user:$user" "$scratch"

# What the tests skip is collected where that user may write.
skipped=$scratch/skipped
as_user() {
    setpriv --reuid "$user" --regid "$user" --clear-groups \
        env HOME="$scratch" TMPDIR="$scratch" TEST_SKIPPED="$skipped" "$@"
}

inside() {
    if [ -n "$closed" ]; then
        mkdir -p "$scratch/repository"
        mount --bind "$repository" "$scratch/repository"
        mount -t tmpfs -o mode=755 tmpfs "$closed"
        mkdir -p "$repository"
        mount --move "$scratch/repository" "$repository"
        cd "$repository"
    fi
    if ! as_user .venv/bin/python -c '' 2>/dev/null; then
        echo "skipped: isolation and rollback tests as an ordinary user, since uid $user cannot run $(readlink -f .venv/bin/python)"
        return 0
    fi
    echo "isolation and rollback tests as an ordinary user (uid $user)"
    as_user "$binary" isolation world::rollback --test-threads 2
}

# A mount namespace of its own, so that no mount is left behind.
export -f inside as_user
export user scratch skipped closed repository binary
status=0
unshare --mount --propagation private bash -euo pipefail -c inside || status=$?
[ -z "${TEST_SKIPPED:-}" ] || [ ! -e "$skipped" ] || sed 's/$/ (uid '"$user"')/' "$skipped" >>"$TEST_SKIPPED"
exit "$status"
