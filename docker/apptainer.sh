#!/bin/bash
# Runs apptainer on machines that have none. Only Debian unstable has it, so this script makes a tree of unstable, once, and
# runs its apptainer there, in separate mount and process namespaces: when the command ends, its processes and mounts are gone.
#
#   docker/apptainer.sh FOLDER USER ARGUMENTS...     e.g. docker/apptainer.sh . nobody exec image.sif python --version
#
# FOLDER is the only folder of this machine that the command sees, and its working directory. Building an image needs
# root; an unprivileged user can run one. If an apptainer is on the PATH, the script runs that one.
set -eu -o pipefail

say() { echo "apptainer: $*" >&2; }

folder=$(realpath "${1:?usage: apptainer.sh FOLDER USER ARGUMENTS...}")
user=${2:?usage: apptainer.sh FOLDER USER ARGUMENTS...}
shift 2
if command -v apptainer >/dev/null; then
    cd "$folder"
    [ "$user" != root ] && [ "$(id -u)" = 0 ] || exec apptainer "$@"
    exec setpriv --reuid "$user" --regid "$(id -g "$user")" --clear-groups apptainer "$@"
fi

cache=$(realpath -m "${CONTAINER_CACHE_FOLDER:-$(dirname "$(realpath "$0")")/../.tools/container}")
tree=$cache/apptainer
if [ ! -e "$tree/usr/bin/apptainer" ]; then
    [ "$(id -u)" = 0 ] || { say "error: no apptainer here, and only root can make a tree with one"; exit 1; }
    command -v mmdebstrap >/dev/null || { say "error: no apptainer and no mmdebstrap here"; exit 1; }
    # shellcheck disable=SC2016 # $(SITE) is apt's placeholder
    mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | sed -n 1p)
    say "taking it from Debian unstable (about a minute, once)"
    mkdir -p "$cache"
    # On a mirror that is a snapshot, unstable's index may have expired.
    mmdebstrap --quiet --aptopt='Acquire::Check-Valid-Until "false"' --variant=minbase \
        --include=apptainer,squashfuse,fuse3,ca-certificates sid "$tree.partial" "$mirror" >&2
    rm -rf "$tree"
    mv "$tree.partial" "$tree"
fi

# Inside the namespaces the tree becomes the root, with the machine's devices, names and users.
export tree folder user
# shellcheck disable=SC2016 # they expand inside
exec unshare --mount --pid --fork --kill-child --propagation private bash -eu -c '
    mount --bind "$tree" "$tree"
    for name in hosts resolv.conf passwd group; do
        cp "/etc/$name" "$tree/etc/$name"
    done
    mount -t proc proc "$tree/proc"
    mount --rbind /dev "$tree/dev"
    mount --rbind /sys "$tree/sys"
    mount -t tmpfs -o mode=1777 tmpfs "$tree/tmp"
    # All users may mount images, as udev configures it; a minimal machine has no udev.
    if [ -c /dev/fuse ]; then
        [ -c "$tree/fuse" ] || mknod -m 666 "$tree/fuse" c 10 229
        mount --bind "$tree/fuse" "$tree/dev/fuse"
    fi
    mkdir -p "$tree/mnt"
    mount --bind "$folder" "$tree/mnt"
    cd "$tree"
    mkdir -p .old
    pivot_root . .old
    umount -l /.old
    cd /mnt
    export HOME=/tmp TMPDIR=/tmp PATH=/usr/sbin:/usr/bin:/sbin:/bin
    exec setpriv --reuid "$user" --regid "$(id -g "$user")" --clear-groups apptainer "$@"
' apptainer "$@"
