#!/bin/bash
# Runs a command with a Docker engine: a running one, or else a private one that ends with the command.
#
#   docker/with-engine.sh COMMAND [ARGUMENT...]
#
# The private daemon keeps everything (socket, images, containers, logs) in one temporary folder and in its own mount
# namespace; afterwards its processes, mounts, bridge and firewall rules are gone.
#   CONTAINER_ENGINE_FOLDER   keep the private daemon's images in this folder, so that the next run finds its cache
set -eu -o pipefail

say() { echo "with-engine: $*" >&2; }
[ $# -gt 0 ] || { say "error: no command given"; exit 2; }

# A running engine that can build the Dockerfile (with BuildKit).
if docker info >/dev/null 2>&1 && docker buildx version >/dev/null 2>&1; then
    exec "$@"
fi

dockerd=$(PATH=$PATH:/usr/sbin:/sbin command -v dockerd) \
    || { say "error: no Docker engine answers and there is no dockerd to start (Debian: apt-get install docker.io)"; exit 1; }
[ "$(id -u)" = 0 ] || { say "error: no Docker engine answers, and only root can start one"; exit 1; }

run=$(mktemp -d "${TMPDIR:-/tmp}/engine.XXXXXX")
images=${CONTAINER_ENGINE_FOLDER:-$run/data}
mkdir -p "$images" "$run/bin"
daemon=
forwarding=

# shellcheck disable=SC2329 # the trap calls it
stop() {
    trap - EXIT INT TERM
    if [ -n "$daemon" ] && kill -0 "$daemon" 2>/dev/null; then
        "$client" ps --quiet 2>/dev/null | xargs --no-run-if-empty "$client" kill >/dev/null 2>&1 || true
        kill "$(cat "$run/docker.pid" 2>/dev/null || echo "$daemon")" 2>/dev/null || true
        wait "$daemon" 2>/dev/null || true
    fi
    [ -e "$run/had-bridge" ] || ip link delete docker0 2>/dev/null || true
    [ ! -e "$run/firewall" ] || iptables-restore <"$run/firewall" || true
    [ -z "$forwarding" ] || sysctl -qw "net.ipv4.ip_forward=$forwarding" || true
    # dockerd leaves its control groups behind; a group with a process in it stays.
    for group in /sys/fs/cgroup/docker /sys/fs/cgroup/*/docker; do
        rmdir "$group"/*/ "$group" 2>/dev/null || true
    done
    rm -rf "$run"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# dockerd 20.10 needs the client of its own package: a newer client without the buildx plugin cannot build.
client=/usr/bin/docker
[ -x "$client" ] || client=$(command -v docker)
ln -s "$client" "$run/bin/docker"

! ip link show docker0 >/dev/null 2>&1 || touch "$run/had-bridge"
forwarding=$(sysctl -n net.ipv4.ip_forward 2>/dev/null || true)
# Unused tables are not in the listing: they are restored as empty.
if iptables-save >"$run/firewall" 2>/dev/null; then
    for table in filter:INPUT,FORWARD,OUTPUT nat:PREROUTING,INPUT,OUTPUT,POSTROUTING; do
        grep -q "^\*${table%%:*}" "$run/firewall" || {
            echo "*${table%%:*}"
            tr , '\n' <<<"${table#*:}" | sed 's/.*/:& ACCEPT [0:0]/'
            echo COMMIT
        } >>"$run/firewall"
    done
else
    rm -f "$run/firewall"
fi

export DOCKER_HOST=unix://$run/docker.sock DOCKER_BUILDKIT=1 PATH=$run/bin:$PATH
unset DOCKER_CONTEXT
unshare --mount --propagation private "$dockerd" --host "$DOCKER_HOST" --data-root "$images" --exec-root "$run/exec" \
    --pidfile "$run/docker.pid" >"$run/log" 2>&1 &
daemon=$!
for _ in $(seq 120); do
    ! "$client" info >/dev/null 2>&1 || break
    kill -0 "$daemon" 2>/dev/null || break
    sleep 0.25
done
"$client" info >/dev/null 2>&1 || { say "error: dockerd did not start; its last lines:"; tail -5 "$run/log" >&2; exit 1; }
say "no Docker engine answered: started a private one ($("$client" version --format '{{.Server.Version}}'))"
[ -n "${CONTAINER_ENGINE_FOLDER:-}" ] || say "it deletes its images at the end; CONTAINER_ENGINE_FOLDER=FOLDER keeps them"

status=0
"$@" || status=$?
exit "$status"
