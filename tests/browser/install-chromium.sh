#!/bin/bash
# Sees to it that there are Chromium and its driver: CHROMIUM and CHROMEDRIVER where they are set; else Debian's, which it
# installs as root, and without those rights says what is missing.
set -eu -o pipefail

if command -v "${CHROMIUM:-chromium}" >/dev/null && command -v "${CHROMEDRIVER:-chromedriver}" >/dev/null; then
    exit 0
fi
if [ -n "${CHROMIUM:-}${CHROMEDRIVER:-}" ]; then
    echo "error: CHROMIUM or CHROMEDRIVER names no program: ${CHROMIUM:-chromium}, ${CHROMEDRIVER:-chromedriver}" >&2
    exit 1
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "error: chromium or chromedriver is missing; on Debian, as root: apt-get install chromium chromium-driver" >&2
    exit 1
fi
echo "no Chromium: installing it" >&2
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends chromium chromium-driver fonts-liberation >/dev/null
