#!/bin/bash
# Makes sure that the Docker engine has the base image: there already, pulled, or a stand-in from Debian's packages
# (stand-in-base.sh) under its name. Prints `stand-in` in the last case. Images on top of a stand-in are for tests on this
# machine only.
#
#   docker/base-image.sh IMAGE
#   CONTAINER_CACHE_FOLDER   folder for the stand-in; default .tools/container in the checkout
set -eu -o pipefail

here=$(dirname "$(realpath "$0")")
base=${1:?usage: base-image.sh IMAGE}

if ! docker image inspect "$base" >/dev/null 2>&1 && ! timeout 300 docker pull --quiet "$base" >/dev/null 2>&1; then
    echo "base image: can't pull $base: using a stand-in from Debian's packages under its name" >&2
    tar=$("$here/stand-in-base.sh" "${CONTAINER_CACHE_FOLDER:-$here/../.tools/container}")
    docker import --change 'LABEL stand-in-base=yes' --change 'CMD ["python3"]' "$tar" "$base" >/dev/null
fi
[ "$(docker image inspect --format '{{index .Config.Labels "stand-in-base"}}' "$base")" != yes ] || echo stand-in
