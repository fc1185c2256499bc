#!/bin/bash
# docker build, on machines with and without an image registry (base-image.sh).
#
#   docker/build.sh [OPTIONS OF docker build] CONTEXT
set -eu -o pipefail

here=$(dirname "$(realpath "$0")")
context=${*: -1}
base=${PYTHON_IMAGE:-$(sed -n 's/^ARG PYTHON_IMAGE=//p' "$context/Dockerfile")}
options=(--build-arg "PYTHON_IMAGE=$base")
[ -z "${SOURCE_DATE_EPOCH:-}" ] || options+=(--build-arg "SOURCE_DATE_EPOCH=$SOURCE_DATE_EPOCH")

kind=$("$here/base-image.sh" "$base")
if [ "$kind" != stand-in ]; then
    exec docker build "${options[@]}" "$@"
fi
# The syntax line has BuildKit pull a frontend, which takes a registry too; the daemon's own reads the rest as well.
# The network is the host's, for that is the one whose package index is known to answer.
sed '/^# syntax=/d' "$context/Dockerfile" | DOCKER_BUILDKIT=1 docker build --network=host "${options[@]}" --file - "$@"
