#!/usr/bin/env bash
# wait-until-ready.sh URL TIMEOUT_S [VERSION_PART]: returns 0 once URL/readyz answers 200 and, if VERSION_PART is given,
# URL/version contains it (while a new container starts, the old one still answers, and is ready too); 1 after the timeout.
set -euo pipefail

if (($# < 2 || $# > 3)) || ! [[ $2 =~ ^[0-9]+$ ]]; then
    printf 'usage: %s URL TIMEOUT_S [VERSION_PART]\n' "$0" >&2
    exit 2
fi
url=${1%/} timeout_s=$2 version_part=${3:-}

is_ready() {
    curl --fail --silent --max-time 10 --output /dev/null "$url/readyz" || return 1
    [[ -z $version_part ]] || [[ $(curl --fail --silent --max-time 10 "$url/version") == *"$version_part"* ]]
}

deadline=$((SECONDS + timeout_s))
until is_ready; do
    if ((SECONDS >= deadline)); then
        printf 'error: %s was not ready within %s s\n' "$url" "$timeout_s" >&2
        exit 1
    fi
    sleep "${POLL_INTERVAL_S:-5}"
done
