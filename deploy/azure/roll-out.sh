#!/usr/bin/env bash
# Sets another image in a running web app, waits until the new container answers, and restores the old image if it
# doesn't. The image is named by digest, so that the app runs exactly the tested image.
set -euo pipefail

readonly here=${BASH_SOURCE[0]%/*}

usage() {
    cat <<'TEXT'
usage: roll-out.sh --resource-group GROUP --name NAME --image IMAGE@sha256:DIGEST [option...]

  --version-part TEXT      the new container counts as running once URL/version contains this text (a commit, a version)
  --ready-timeout-s N      seconds to wait for it, 1 to 3600; default: 600
TEXT
}

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}

resource_group='' name='' image='' version_part='' ready_timeout_s=600
while (($#)); do
    case $1 in
        -h | --help)
            usage
            exit
            ;;
        --resource-group | --name | --image | --version-part | --ready-timeout-s) ;;
        *) fail "unknown option '$1' (--help lists them)" ;;
    esac
    [[ -n ${2:-} ]] || fail "$1 needs a value"
    option=${1#--}
    printf -v "${option//-/_}" '%s' "$2"
    shift 2
done
[[ -n $resource_group ]] || fail "--resource-group is missing"
[[ -n $name ]] || fail "--name is missing"
[[ $image =~ ^[a-z0-9.-]+(:[0-9]+)?(/[a-z0-9._-]+)+@sha256:[0-9a-f]{64}$ ]] ||
    fail "--image must be registry/owner/image@sha256:<64 hex digits>, in lower case, not '$image'"
if ! [[ $ready_timeout_s =~ ^[1-9][0-9]{0,3}$ ]] || ((ready_timeout_s > 3600)); then
    fail "--ready-timeout-s must be a whole number from 1 to 3600, not '$ready_timeout_s'"
fi

# set_image LINUX_FX_VERSION, for example DOCKER|ghcr.io/owner/image@sha256:…
set_image() {
    az webapp config set --resource-group "$resource_group" --name "$name" --linux-fx-version "$1" --output none
}

url=https://$(az webapp show --resource-group "$resource_group" --name "$name" --query defaultHostName --output tsv)
previous=$(az webapp config show --resource-group "$resource_group" --name "$name" --query linuxFxVersion --output tsv)
printf 'was: %s\nnow: DOCKER|%s\n' "$previous" "$image"

set_image "DOCKER|$image"
if "$here/wait-until-ready.sh" "$url" "$ready_timeout_s" ${version_part:+"$version_part"}; then
    printf 'ready: %s\n' "$url"
    exit
fi

printf 'rolling back to %s\n' "$previous" >&2
set_image "$previous"
"$here/wait-until-ready.sh" "$url" "$ready_timeout_s" || fail "the previous image is not ready either: $url"
printf 'error: %s did not become ready; %s runs again\n' "$image" "$previous" >&2
exit 1
