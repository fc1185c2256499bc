#!/bin/bash
# Installs Debian's Node.js and npm as root if there are none.
set -eu -o pipefail

if command -v npm >/dev/null && command -v node >/dev/null; then
    exit 0
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "error: no Node.js and npm, which the JavaScript clients need; install both" >&2
    exit 1
fi
echo "no Node.js: installing it" >&2
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends nodejs npm >/dev/null
