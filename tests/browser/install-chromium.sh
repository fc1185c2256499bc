#!/bin/bash
# Sees to it that there are Chromium and its driver: installs Debian's as root; elsewhere says what is missing.
set -eu -o pipefail

if command -v chromium >/dev/null && command -v chromedriver >/dev/null; then
    exit 0
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "error: chromium or chromedriver is missing; on Debian, as root: apt-get install chromium chromium-driver" >&2
    exit 1
fi
echo "no Chromium: installing it" >&2
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends chromium chromium-driver fonts-liberation >/dev/null
