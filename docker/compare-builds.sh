#!/bin/bash
# Compares a published image with one that was built again, by the digests of configuration and layers.
#
#   docker/compare-builds.sh MANIFEST.json ARCHIVE.tar
#
# MANIFEST.json is the manifest of the published image for one platform; ARCHIVE.tar is the other image, in OCI's layout. The
# configuration has the digests of all layers' files before compression, and every option. So if its digest is the same, the
# images are the same. The digests of the compressed layers can differ if another version of the builder compressed them.
set -eu -o pipefail

published=${1:?usage: compare-builds.sh MANIFEST.json ARCHIVE.tar}
archive=${2:?usage: compare-builds.sh MANIFEST.json ARCHIVE.tar}

digest=$(tar --extract --to-stdout --file "$archive" index.json | jq --raw-output --exit-status '.manifests[0].digest')
rebuilt=$(tar --extract --to-stdout --file "$archive" "blobs/${digest/://}")
describe() { jq --raw-output --exit-status '"configuration " + .config.digest, (.layers[] | "layer         " + .digest)'; }
before=$(describe <"$published")
after=$(describe <<<"$rebuilt")

echo "published:"
echo "$before"
echo "built again:"
echo "$after"
if [ "${before%%$'\n'*}" != "${after%%$'\n'*}" ]; then
    echo "error: the images differ" >&2
    exit 1
fi
if [ "$before" = "$after" ]; then
    echo "the same, byte for byte, as a registry sends it"
else
    echo "the same files and options; only the compression differs"
fi
