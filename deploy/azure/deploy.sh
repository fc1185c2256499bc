#!/usr/bin/env bash
# Creates or updates the service on Azure App Service: resource group, plan, web app, settings; then waits until it
# answers. It can run any number of times. `--dry-run` prints each command and runs none; `--what-if` asks Azure what would
# change. Needs curl and the Azure CLI (`az`), logged in.
set -euo pipefail

readonly here=${BASH_SOURCE[0]%/*}

usage() {
    cat <<'TEXT'
usage: deploy.sh --name NAME --image IMAGE [option...]

  --name NAME              the web app's name, free in all of Azure: https://NAME.azurewebsites.net
  --image IMAGE            registry/owner/image, with :tag or (better) @sha256:digest
  --resource-group GROUP   default: NAME-rg; created if missing
  --location REGION        default: westeurope
  --sku SKU                B1, B2 (default), B3, P0v3, P1v3 or P2v3
  --instances N            machines in the plan, 1 to 10; default: 1
  --drain-s N              seconds for running requests at a stop, 1 to 110; default: 20
  --ready-timeout-s N      seconds to wait for /readyz, 1 to 3600; default: 600
  --registry-username NAME user of a private registry; its password is read from $REGISTRY_PASSWORD
  --dry-run                print the commands, run nothing
  --what-if                ask Azure what would change, change nothing

API keys (NAME:KEY, comma-separated) are read from $API_KEYS; each run sets them again. Without keys, anyone who has the
address can use the service.
TEXT
}

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}

# check_number OPTION VALUE LOWEST HIGHEST
check_number() {
    if ! [[ $2 =~ ^[1-9][0-9]{0,3}$ ]] || (($2 < $3 || $2 > $4)); then
        fail "$1 must be a whole number from $3 to $4, not '$2'"
    fi
}

# Prints a text as a JSON string, with quotes and backslashes escaped.
json_text() {
    local escaped=${1//\\/\\\\}
    printf '"%s"' "${escaped//\"/\\\"}"
}

# Runs a command, or prints it so that it can be copied into a shell.
run() {
    if ((is_dry_run)); then
        printf '+'
        printf ' %q' "$@"
        printf '\n'
    else
        "$@"
    fi
}

name='' image='' resource_group='' location=westeurope sku=B2 instances=1 drain_s=20 ready_timeout_s=600
registry_username='' is_dry_run=0 is_what_if=0

while (($#)); do
    case $1 in
        -h | --help)
            usage
            exit
            ;;
        --dry-run)
            is_dry_run=1
            shift
            continue
            ;;
        --what-if)
            is_what_if=1
            shift
            continue
            ;;
        --name | --image | --resource-group | --location | --sku | --instances | --drain-s | --ready-timeout-s | --registry-username) ;;
        *) fail "unknown option '$1' (--help lists them)" ;;
    esac
    [[ -n ${2:-} ]] || fail "$1 needs a value"
    option=${1#--}
    printf -v "${option//-/_}" '%s' "$2"
    shift 2
done

[[ -n $name ]] || fail "--name is missing"
[[ $name =~ ^[a-zA-Z0-9]([a-zA-Z0-9-]{0,58})[a-zA-Z0-9]$ ]] ||
    fail "--name must be 2 to 60 letters, digits and inner hyphens, not '$name'"
[[ -n $image ]] || fail "--image is missing"
[[ $image =~ ^[a-z0-9.-]+(:[0-9]+)?(/[a-z0-9._-]+)+(:[A-Za-z0-9_][A-Za-z0-9._-]{0,127}|@sha256:[0-9a-f]{64})$ ]] ||
    fail "--image must be registry/owner/image:tag or registry/owner/image@sha256:<64 hex digits>, in lower case, not '$image'"
resource_group=${resource_group:-$name-rg}
[[ $resource_group =~ ^[A-Za-z0-9._()-]{1,89}[A-Za-z0-9_()-]$ ]] ||
    fail "--resource-group must be 2 to 90 letters, digits and ._()-, without a dot at the end, not '$resource_group'"
[[ $location =~ ^[a-z0-9]+$ ]] || fail "--location must be a region's short name like westeurope, not '$location'"
[[ $sku =~ ^(B1|B2|B3|P0v3|P1v3|P2v3)$ ]] || fail "--sku must be B1, B2, B3, P0v3, P1v3 or P2v3, not '$sku'"
check_number --instances "$instances" 1 10
check_number --drain-s "$drain_s" 1 110
check_number --ready-timeout-s "$ready_timeout_s" 1 3600
[[ -z $registry_username || -n ${REGISTRY_PASSWORD:-} ]] || fail "--registry-username needs the password in \$REGISTRY_PASSWORD"
if [[ -n ${API_KEYS:-} ]]; then
    IFS=, read -r -a keys <<<"$API_KEYS"
    for key in "${keys[@]}"; do
        [[ $key =~ ^([^:]+:)?[^:]{16,256}$ ]] ||
            fail "each of \$API_KEYS must be NAME:KEY with a key of 16 to 256 characters ('distilgpt2-api keys add NAME' makes one)"
    done
fi
((!is_dry_run || !is_what_if)) || fail "--dry-run and --what-if exclude each other"

if ((!is_dry_run)); then
    command -v az >/dev/null || fail "the Azure CLI 'az' is not installed"
    command -v curl >/dev/null || fail "curl is not installed"
    az account show --output none 2>/dev/null || fail "not logged in to Azure: run 'az login'"
fi

parameters=("name=$name" "image=$image" "location=$location" "sku=$sku" "numInstances=$instances" "drainSeconds=$drain_s")
[[ -n ${API_KEYS:-} ]] || printf 'warning: API_KEYS is not set: anyone who has the address can use the service\n' >&2
[[ -z $registry_username ]] || parameters+=("registryUsername=$registry_username")
if [[ -n $registry_username || -n ${API_KEYS:-} ]]; then
    if ((is_dry_run)); then
        parameters+=("@FILE-OF-SECRETS")
    else
        # In a file that only this user can read: the process list shows command lines to all users.
        secrets_file=$(umask 077 && mktemp)
        trap 'rm -f "$secrets_file"' EXIT
        printf '{"registryPassword": {"value": %s}, "apiKeys": {"value": %s}}\n' \
            "$(json_text "${registry_username:+$REGISTRY_PASSWORD}")" "$(json_text "${API_KEYS:-}")" >"$secrets_file"
        parameters+=("@$secrets_file")
    fi
fi

if ((is_what_if)); then
    run az deployment group what-if --resource-group "$resource_group" --template-file "$here/main.bicep" \
        --parameters "${parameters[@]}"
    exit
fi

run az group create --name "$resource_group" --location "$location" --output none
run az deployment group create --resource-group "$resource_group" --name distilgpt2-api --template-file "$here/main.bicep" \
    --parameters "${parameters[@]}" --output none

if ((is_dry_run)); then
    host=$name.azurewebsites.net
else
    # The host name of newer apps can contain a region and a random part, so ask Azure for it.
    host=$(az webapp show --resource-group "$resource_group" --name "$name" --query defaultHostName --output tsv)
fi
run "$here/wait-until-ready.sh" "https://$host" "$ready_timeout_s"
((is_dry_run)) || printf 'ready: https://%s\n' "$host"
