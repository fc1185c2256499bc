#!/bin/bash
# Runs docker build on machines with and without an image registry (base-image.sh).
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
# The syntax line makes BuildKit pull a frontend, which needs a registry too; the daemon's own frontend reads the rest as
# well. The build uses the host's network, because the host can reach its package index.
sed '/^# syntax=/d' "$context/Dockerfile" | DOCKER_BUILDKIT=1 docker build --network=host "${options[@]}" --file - "$@"
