#!/bin/sh
# Makes a tree the same in every build, whenever that is: bytecode compiled, one owner, one date, no umask's whim.
#
#   docker/freeze.sh ROOT      ROOT stands for /
set -eu
root=$1
# unchecked-hash: Python trusts the bytecode without a look at the source's date. The seed orders the members of sets.
PYTHONHASHSEED=0 python -m compileall -q -j 0 --invalidation-mode unchecked-hash -s "$root" -p / "$root"
chown -hR 0:0 "$root"
# Whoever is in group 0 reads what root reads; nobody but root writes.
chmod -R u=rwX,go=rX "$root"
# 1 January 1980: the oldest date that zip files know.
find "$root" -exec touch --no-dereference --date=@315532800 {} +
