#!/bin/bash
# Runs the stories of lifecycle, isolation and checkpoints once more, in containers: tests/on_docker.sh [FILTER]
#
# FILTER replaces the list of stories below: an expression of nextest, or parts of names where that is not installed. The same source as for the native
# backend. Needs a Docker engine (DOCKER_HOST, or the usual one); builds the image, which takes no time when it is there. Whatever is not run is said in a
# line that begins with `skipped:`.
set -euo pipefail
cd "$(dirname "$0")/.."

skip() {
    echo "skipped: stories in containers, since $1"
    [ -z "${TEST_SKIPPED:-}" ] || echo "skipped: stories in containers, since $1" >>"$TEST_SKIPPED"
    exit 0
}
command -v docker >/dev/null || skip "\`docker\` is not installed"
docker version >/dev/null 2>&1 || skip "no Docker engine answers"

# What is there of other servers on this engine is none of our business.
containers() { docker ps --all --quiet --no-trunc --filter label=evercell.server "$@" | sort; }
others=$(containers)
ours() { comm -13 <(printf '%s\n' "$others") <(containers "$@"); }

cargo build --locked --quiet
export EVERCELL_IMAGE=evercell-test
SERVER=target/debug/evercell kernel-image/build-image.sh evercell-kernel "$EVERCELL_IMAGE"
export TEST_BACKEND=docker
# What is not here has nothing to do with where a kernel runs, or takes the machine for itself.
stories='chaos isolation::attacks isolation::exhaustion world::adoption world::containers world::engine world::files world::kernel world::limits world::resume world::rollback'
alone='hundred_sessions gigabyte'
echo "stories in containers"
status=0
if command -v cargo-nextest >/dev/null; then
    filter="test(/^(${stories// /|})::/) and not test(/${alone// /|}/)"
    cargo nextest run --locked --run-ignored all --test it -E "${1:-$filter}" || status=$?
else
    # Its filters are parts of names. It has no limit for a test, and two of these at once are what a small machine can do.
    read -ra filters <<<"${1:-${stories// /:: }::}"
    read -ra without <<<"$alone"
    cargo test --locked --test it -- --include-ignored --test-threads 2 "${without[@]/#/--skip=}" "${filters[@]}" || status=$?
fi
# In gVisor, when asked: what Debian packages as runsc (2022) ends itself now and then when it has to fork and to interrupt, and a test that may fail
# for that says nothing. What passes in it otherwise stands in docs/docker.md.
if [ -n "${TEST_GVISOR:-}" ]; then
    echo "stories in gVisor"
    EVERCELL_DOCKER_RUNTIME=runsc cargo test --locked --test it --quiet -- --test-threads 2 world::kernel:: world::resume:: world::rollback:: || status=$?
else
    echo "skipped: stories in gVisor, since TEST_GVISOR=1 did not ask for them" | tee --append "${TEST_SKIPPED:-/dev/null}"
fi
tests/in_compose.sh || status=$?
# Servers that tests have killed leave containers that end themselves within half a minute. What is left of those the next server of the same data removes;
# there is none.
if [ -n "$(ours --filter status=running)" ]; then
    echo "containers of killed servers are still there; waiting for their end"
    for _ in $(seq 60); do
        [ -n "$(ours --filter status=running)" ] || break
        sleep 1
    done
    [ -z "$(ours --filter status=running)" ] || { echo "failed: containers have outlived their servers" >&2; status=1; }
fi
{ ours --filter status=exited; ours --filter status=created; } | xargs --no-run-if-empty docker rm >/dev/null
exit "$status"
