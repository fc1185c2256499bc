#!/bin/sh
# Makes a tree the same in every build: compiled bytecode, one owner, one date, modes that don't depend on the umask.
#
#   docker/freeze.sh ROOT      ROOT stands for /
set -eu
root=$1
# unchecked-hash: Python uses the bytecode without checking the source's date. The seed fixes the order of sets.
PYTHONHASHSEED=0 python -m compileall -q -j 0 --invalidation-mode unchecked-hash -s "$root" -p / "$root"
chown -hR 0:0 "$root"
# Group 0 can read all that root can; only root can write.
chmod -R u=rwX,go=rX "$root"
# 1 January 1980: the oldest date that zip files know.
find "$root" -exec touch --no-dereference --date=@315532800 {} +
