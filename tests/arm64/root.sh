#!/bin/bash
# root.sh FOLDER: unpacks Debian's Python for arm64 into FOLDER, the root that tests/arm64/run.sh changes into.
# No program of arm64 runs meanwhile: the packages are only unpacked, not configured, which is all that Python needs.
set -eu -o pipefail

folder=${1:?usage: root.sh FOLDER}
# The mirror that apt's own sources name.
# shellcheck disable=SC2016 # $(SITE) is apt's placeholder
mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | sed -n 1p)
[ -n "$mirror" ] || { echo "error: apt's sources name no mirror" >&2; exit 1; }
rm -rf "$folder"
mkdir -p "$(dirname "$folder")"
mmdebstrap --quiet --variant=extract --architectures=arm64 --include=coreutils,python3,libstdc++6 trixie "$folder" "$mirror"
for name in bin lib sbin; do
    [ -e "$folder/$name" ] || ln -s "usr/$name" "$folder/$name"
done
mkdir -p "$folder"/{proc,sys,repository}
