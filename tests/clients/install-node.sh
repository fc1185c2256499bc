#!/bin/bash
# Installs Node.js and npm on Debian as root if they are missing.
set -eu -o pipefail

if command -v npm >/dev/null && command -v node >/dev/null; then
    exit 0
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "error: Node.js or npm is missing, and the JavaScript clients need both: install them" >&2
    exit 1
fi
echo "Node.js is missing: installing it" >&2
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends nodejs npm >/dev/null
