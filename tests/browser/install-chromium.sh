#!/bin/bash
# Checks for Chromium and its driver (the programs in CHROMIUM and CHROMEDRIVER if these are set). On Debian as root it
# installs them if they are missing; otherwise it reports what is missing.
set -eu -o pipefail

if command -v "${CHROMIUM:-chromium}" >/dev/null && command -v "${CHROMEDRIVER:-chromedriver}" >/dev/null; then
    exit 0
fi
if [ -n "${CHROMIUM:-}${CHROMEDRIVER:-}" ]; then
    echo "error: CHROMIUM or CHROMEDRIVER is not a program: ${CHROMIUM:-chromium}, ${CHROMEDRIVER:-chromedriver}" >&2
    exit 1
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "error: chromium or chromedriver is missing; on Debian, run as root: apt-get install chromium chromium-driver" >&2
    exit 1
fi
echo "Chromium is missing: installing it" >&2
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends chromium chromium-driver fonts-liberation >/dev/null
