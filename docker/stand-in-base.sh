#!/bin/bash
# Builds a stand-in for docker.io/library/python:3.13-slim-trixie, for machines that can reach a Debian mirror but no image
# registry. With a registry it is not needed: the Dockerfile names the real image.
#
#   docker/stand-in-base.sh CACHE_FOLDER      prints the path of base.tar, for `docker import`
#
# Like the real image it is Debian trixie without manuals and translations, with Python 3.13 as `python` and pip in
# /usr/local, and without bytecode. Its Python is Debian's own. It has this machine's certificates, because pip in a build would trust none.
set -eu -o pipefail

say() { echo "stand-in base: $*" >&2; }

cache=${1:?usage: stand-in-base.sh CACHE_FOLDER}
[ "$(id -u)" = 0 ] || { say "error: mmdebstrap and dockerd need root; run this as root"; exit 1; }
command -v mmdebstrap >/dev/null || { say "error: no mmdebstrap here: apt-get install mmdebstrap"; exit 1; }
mkdir -p "$cache"
cache=$(realpath "$cache")
recipe=$(cksum <"$0" | cut -d' ' -f1)
tar=$cache/stand-in-base-$(dpkg --print-architecture)-$recipe.tar

if [ ! -f "$tar" ]; then
    # The mirror that apt's own sources name.
    # shellcheck disable=SC2016 # $(SITE) is apt's placeholder
    mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | sed -n 1p)
    [ -n "$mirror" ] || { say "error: apt's sources name no mirror"; exit 1; }
    say "no registry: building one from Debian's packages (about a minute, once)"

    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    cp "${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}" "$work/ca-certificates.crt"
    cat >"$work/hook" <<'HOOK'
#!/bin/sh
set -eu
root=$1
ln -s ../../bin/python3 "$root/usr/local/bin/python"
# The real image has pip outside any virtual environment, and the Dockerfile removes it.
chroot "$root" python3 -m venv /tmp/venv
cp -r "$root"/tmp/venv/lib/python3.13/site-packages/pip "$root"/tmp/venv/lib/python3.13/site-packages/pip-*.dist-info \
    "$root/usr/local/lib/python3.13/dist-packages/"
sed '1s|.*|#!/usr/local/bin/python|' "$root/tmp/venv/bin/pip" >"$root/usr/local/bin/pip"
chmod 755 "$root/usr/local/bin/pip"
rm -r "$root/tmp/venv"
find "$root/usr" -name __pycache__ -prune -exec rm -r {} +
printf '[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n' >"$root/etc/pip.conf"
rm -rf "$root"/var/cache/apt "$root"/var/lib/apt/lists "$root"/var/cache/debconf/*-old "$root"/var/log/*
mkdir -p "$root/var/cache/apt/archives/partial" "$root/var/lib/apt/lists/partial"
HOOK
    chmod +x "$work/hook"
    # Debian's "slim" images leave out the same folders.
    without() { printf -- '--dpkgopt=path-exclude=/usr/share/%s/*\n' doc man locale info groff lintian linda; }
    mapfile -t without < <(without)
    mmdebstrap --quiet --variant=minbase --include=ca-certificates,python3,python3-venv \
        "${without[@]}" --dpkgopt='path-include=/usr/share/doc/*/copyright' \
        --customize-hook="mkdir -p \"\$1/usr/local/lib/python3.13/dist-packages\"" \
        --customize-hook="$work/hook \"\$1\"" \
        --customize-hook="copy-in $work/ca-certificates.crt /etc/ssl/certs" \
        trixie "$work/base.tar" "$mirror" >&2
    mv "$work/base.tar" "$tar.partial"
    mv "$tar.partial" "$tar"
fi
echo "$tar"
