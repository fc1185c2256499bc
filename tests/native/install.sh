#!/bin/bash
# install.sh PROGRAM PACKAGE: installs a Debian package if its program is missing and this is root.
set -eu -o pipefail

if command -v "$1" >/dev/null; then
    exit 0
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "error: $1 is missing: install it (Debian: apt-get install $2)" >&2
    exit 1
fi
echo "no $1: installing $2" >&2
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "$2" >/dev/null
