#!/bin/sh
# Builds the image of the Docker backend and prints its size: kernel-image/build-image.sh [TAG [TAG OF THE SERVER]]
#
#   BASE=IMAGE      what it is built on, instead of the official slim Python image
#   CA=FILE         authorities (PEM) to trust while packages are downloaded: those of a proxy that looks into TLS. Left out: the file
#                   that PIP_CERT or SSL_CERT_FILE names
#   WHEELS=DIR      a directory of wheels as `pip download` fills it; then no package is downloaded, and where the base lacks a font for Chinese,
#                   Japanese and Korean, and there is no network to install it from, the image is without
#   SERVER=PROGRAM  the server's program: an image of it is built too, on the same base; see deploy/
#   NETWORK=host    how the build reaches the network, where the engine's own way does not lead out; `none`, with WHEELS
#   DOCKER=PROGRAM  the client, instead of `docker`
#
# Where the usual base cannot be pulled, one of the same shape is made from Debian packages, with mmdebstrap. A proxy that `http_proxy`, `https_proxy`
# and `no_proxy` name is used for the build, and is not in the image.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
tag=${1:-evercell-kernel}
server_tag=${2:-evercell}
docker=${DOCKER:-docker}
usual=$(sed -n 's/^ARG BASE=//p' "$here/Dockerfile")
own=evercell-base:bookworm

say() { printf '%s\n' "image: $*"; }
fail() {
    printf '%s\n\nhint: %s\n' "image: $1" "$2" >&2
    exit 1
}

command -v "$docker" >/dev/null || fail "\`$docker\` not found" "apt-get install docker.io"
"$docker" version >/dev/null 2>&1 || fail "no Docker engine answers" \
    "start one (systemctl start docker), or name one with DOCKER_HOST; \`$docker version\` says why"

has() { "$docker" image inspect "$1" >/dev/null 2>&1; }

make_base() {
    command -v mmdebstrap >/dev/null || fail "\`$usual\` cannot be pulled, and there is no mmdebstrap to make another base" \
        "apt-get install mmdebstrap, or name a base that is there: BASE=IMAGE make image"
    say "\`$usual\` cannot be pulled: making a base of the same shape from Debian packages"
    # By way of a file: of what comes out of a pipe nobody knows whether it is whole, and half a base would be used for ever.
    mmdebstrap --quiet --variant=minbase --include=python3,python3-venv,ca-certificates,fonts-noto-cjk \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
        --customize-hook='rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/* "$1"/usr/lib/python3/dist-packages/pip*' \
        bookworm "$work/base.tar" || fail "mmdebstrap could not make a base" "see the lines above"
    "$docker" import "$work/base.tar" "$own" >/dev/null || fail "the engine does not take the base" "see the lines above"
    rm "$work/base.tar"
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

base=${BASE:-}
if [ -z "$base" ]; then
    base=$usual
    if ! has "$base"; then
        base=$own
        # One that was made here is used until it is removed.
        if ! has "$base"; then
            if "$docker" pull --quiet "$usual" >/dev/null 2>&1; then base=$usual; else make_base; fi
        fi
    fi
fi

# A context of its own, so that what is added to it does not stay in the repository.
context=$work/context
mkdir "$context"
cp -r "$here/Dockerfile" "$here/.dockerignore" "$here/setup-env.sh" "$here/requirements.lock" "$here/pykernel" "$context/"
mkdir -p "$context/extra"
ca=${CA:-${PIP_CERT:-${SSL_CERT_FILE:-}}}
[ -z "$ca" ] || cp "$ca" "$context/extra/ca.pem"
[ -z "${WHEELS:-}" ] || cp -r "$WHEELS" "$context/extra/wheels"

# build TAG CONTEXT [OPTION...]
build() {
    built=$1 from=$2
    shift 2
    # An engine knows these arguments by itself, and keeps them out of what it builds.
    for proxy in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY; do
        eval "value=\${$proxy:-}"
        [ -z "$value" ] || set -- "$@" --build-arg "$proxy=$value"
    done
    say "building $built on $base"
    "$docker" build --quiet --build-arg "BASE=$base" "$@" --tag "$built" "$from" >/dev/null || fail "the image could not be built; see the lines above" \
        "behind a proxy that looks into TLS, name its authority: CA=/path/to/ca.pem make image"
    say "ready: $built, $(($("$docker" image inspect --format '{{.Size}}' "$built") / 1000000)) MB"
}
build "$tag" "$context" ${WHEELS:+--build-arg FONTS=optional} ${PIP_INDEX_URL:+--build-arg "PIP_INDEX_URL=$PIP_INDEX_URL"} ${NETWORK:+--network "$NETWORK"}
[ -z "${WHEELS:-}" ] || "$docker" run --rm --network none --entrypoint test "$tag" -e /usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc ||
    say "warning: there is no CJK font in it; Chinese, Japanese and Korean text will show as boxes in figures"
[ -z "${SERVER:-}" ] || {
    mkdir "$context/server"
    install -m 755 "$SERVER" "$context/server/evercell"
    cp "$here/../deploy/Dockerfile" "$context/server/"
    build "$server_tag" "$context/server"
}
