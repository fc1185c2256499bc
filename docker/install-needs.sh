#!/bin/bash
# Makes sure that there is an engine to build and test with: a running Docker, or else Debian's packages, which
# with-engine.sh then starts. Also installs Podman, for the tests. On Debian as root it installs missing packages; elsewhere
# it lists them.
set -eu -o pipefail

if docker info >/dev/null 2>&1 && docker buildx version >/dev/null 2>&1; then
    exit 0
fi
declare -A packages=([dockerd]=docker.io [iptables]=iptables [mmdebstrap]=mmdebstrap [podman]=podman [runc]=runc)
missing=()
for program in "${!packages[@]}"; do
    PATH=$PATH:/usr/sbin:/sbin command -v "$program" >/dev/null || missing+=("${packages[$program]}")
done
[ "${#missing[@]}" -gt 0 ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "error: no Docker engine answers, and these packages are missing; on Debian, as root: apt-get install ${missing[*]}" >&2
    exit 1
fi
echo "no Docker engine answers: installing ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
