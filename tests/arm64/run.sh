#!/bin/bash
# run.sh ROOT COMMAND [ARGUMENT...]: runs an arm64 program of ROOT and the programs that it starts, under user-mode emulation.
# They see ROOT as their root folder, this checkout as /repository (their working folder), and this machine's network.
#   QEMU_CPU   the emulated processor: max, neoverse-n1, cortex-a72
# A namespace of its own holds the mounts and the kernel's rule for arm64 programs, and ends with the command: the machine
# itself learns nothing of arm64. Linux has such rules per namespace since 6.7; no root is needed.
set -eu -o pipefail

if [ -z "${IN_NAMESPACE:-}" ]; then
    root=$(realpath "$1")
    shift
    IN_NAMESPACE=1 exec unshare --user --map-root-user --mount -- "$0" "$root" "$@"
fi
unset IN_NAMESPACE
root=$1
shift
if ! mount -t binfmt_misc none /proc/sys/fs/binfmt_misc; then
    echo "error: this kernel has no rules for foreign programs in a namespace: tests of arm64 need Linux 6.7 or newer" >&2
    exit 1
fi
# ELF, 64 bits, little endian, executable or shared, arm64. F: the emulator is opened now, outside ROOT.
printf '%s' ':arm64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:'"$(command -v qemu-aarch64-static):F" \
    >/proc/sys/fs/binfmt_misc/register
mount --rbind /proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
mount --bind "$(realpath "$(dirname "$0")/../..")" "$root/repository"
exec chroot "$root" /usr/bin/env --chdir=/repository "$@"
