#!/bin/bash
# Sees to it that there is a PostgreSQL to start: installs Debian's as root, without a cluster of its own; elsewhere the tests
# skip themselves by name.
set -eu -o pipefail

if command -v initdb >/dev/null || compgen -G "/usr/lib/postgresql/*/bin/initdb" >/dev/null; then
    exit 0
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    exit 0
fi
echo "no PostgreSQL: installing it" >&2
# What the package would make and start at once is nobody's to use or to stop.
mkdir -p /etc/postgresql-common
[ -e /etc/postgresql-common/createcluster.conf ] || echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.conf
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends postgresql >/dev/null
