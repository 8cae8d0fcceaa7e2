#!/bin/bash
# The server as a container, as deploy/compose.yaml runs it: its sessions go on in the next one, also after a kill.
#
# Needs an engine with the images, and Docker's compose. Called by tests/on_docker.sh.
set -euo pipefail
cd "$(dirname "$0")/.."

if docker compose version >/dev/null 2>&1; then
    compose=(docker compose)
elif command -v docker-compose >/dev/null; then
    compose=(docker-compose)
else
    echo "skipped: the server in a container, since there is no \`docker compose\`" | tee --append "${TEST_SKIPPED:-/dev/null}"
    exit 0
fi
compose+=(--file deploy/compose.yaml --project-name "evercell-test-$$")
EVERCELL_DATA=$(mktemp -d)
export EVERCELL_DATA EVERCELL_TOKEN=a-token-for-tests-$$-$RANDOM EVERCELL_PORT=127.0.0.1:
[ -z "${DOCKER_HOST:-}" ] || export EVERCELL_DOCKER_SOCKET=${DOCKER_HOST#unix://}

# The containers of sessions on this data: each is shown parts of it.
of_sessions() {
    docker ps --all --quiet --filter label=evercell.server | xargs --no-run-if-empty \
        docker inspect --format '{{.Id}}{{range .Mounts}} {{.Source}}{{end}}' | grep --fixed-strings " $EVERCELL_DATA/" | cut --delimiter ' ' --fields 1
}
finish() {
    status=$?
    [ "$status" -eq 0 ] || "${compose[@]}" logs
    "${compose[@]}" down --timeout 20 >/dev/null 2>&1 || true
    { of_sessions || true; docker ps --all --quiet --filter "volume=$EVERCELL_DATA"; } | xargs --no-run-if-empty docker rm --force >/dev/null
    rm -rf "$EVERCELL_DATA"
    exit "$status"
}
trap finish EXIT

# call METHOD PATH [BODY]
call() {
    curl --silent --show-error --fail --request "$1" --header "authorization: Bearer $EVERCELL_TOKEN" --header 'content-type: application/json' \
        ${3:+--data "$3"} "http://$address$2"
}
up() {
    "${compose[@]}" up --detach "$@" >/dev/null 2>&1
    # Each container of it has a port of its own.
    address=$("${compose[@]}" port evercell 8888)
    for _ in $(seq 240); do
        call GET /readyz >/dev/null 2>&1 && return
        sleep 0.25
    done
    echo "failed: the server in a container is not ready" >&2
    return 1
}
# prints CODE TEXT
prints() {
    found=$(call POST /v1/sessions/s/run "{\"code\": \"$1\"}")
    [[ $found == *"\"preview\":\"$2\\n\""* ]] || { echo "failed: \`$1\` gave $found" >&2; return 1; }
}

up
call PUT /v1/sessions/s '{}' >/dev/null
prints 'x = 41; print(x)' 41
up --force-recreate
prints 'print(x + 1)' 42
"${compose[@]}" kill >/dev/null 2>&1
up
prints 'print(x + 2)' 43
call DELETE /v1/sessions/s
echo "the server in a container: its session went on in three of them"
