#!/bin/bash
# docker build, on machines with and without an image registry.
#
#   docker/build.sh [OPTIONS OF docker build] CONTEXT
#
# Where the base image can neither be found nor pulled, a stand-in takes its name (stand-in-base.sh). Images on top of it
# are for trying things out on this machine.
#   CONTAINER_CACHE_FOLDER   folder for the stand-in; default .tools/container in the checkout
set -eu -o pipefail

here=$(dirname "$(realpath "$0")")
context=${*: -1}
base=${PYTHON_IMAGE:-$(sed -n 's/^ARG PYTHON_IMAGE=//p' "$context/Dockerfile")}
options=(--build-arg "PYTHON_IMAGE=$base")
[ -z "${SOURCE_DATE_EPOCH:-}" ] || options+=(--build-arg "SOURCE_DATE_EPOCH=$SOURCE_DATE_EPOCH")

label() { docker image inspect --format '{{index .Config.Labels "stand-in-base"}}' "$base" 2>/dev/null; }

if ! docker image inspect "$base" >/dev/null 2>&1 && ! timeout 300 docker pull --quiet "$base" >/dev/null 2>&1; then
    echo "build: $base can't be pulled: building on a stand-in from Debian's packages" >&2
    tar=$("$here/stand-in-base.sh" "${CONTAINER_CACHE_FOLDER:-$here/../.tools/container}")
    docker import --change 'LABEL stand-in-base=yes' --change 'CMD ["python3"]' "$tar" "$base" >/dev/null
fi

if [ "$(label)" != yes ]; then
    exec docker build "${options[@]}" "$@"
fi
# The syntax line has BuildKit pull a frontend, which takes a registry too; the daemon's own reads the rest as well.
# The network is the host's, for that is the one whose package index is known to answer.
sed '/^# syntax=/d' "$context/Dockerfile" | DOCKER_BUILDKIT=1 docker build --network=host "${options[@]}" --file - "$@"
