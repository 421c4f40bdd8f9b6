#!/usr/bin/env bash
# Creates the instances, firewall rules, static addresses and image registry on Google Cloud. Resources that are correct already
# stay unchanged.
#
#   gcp-provision.sh [--dry-run] up [WHAT...]              create missing resources, start stopped instances
#   gcp-provision.sh [--dry-run] down [WHAT...]            stop the instances; disks, addresses and rules stay
#   gcp-provision.sh [--dry-run] delete --yes [WHAT...]    delete everything, including the disks and the images
#   gcp-provision.sh [--dry-run] status                    list the resources
#   WHAT: images host-account firewall-backend firewall-ws address-ws backend ws loadtest; default: all of them
#   ws are the hosts of the gateways. images is the registry and the account that builds; host-account is the account that may pull
#   from it. up backend and up ws include both, and up ws includes address-ws.
#
# --dry-run prints the gcloud commands for an empty project, and needs no gcloud. Set GCP_PROJECT, and for the backend's firewall
# also OPERATOR_RANGES. scripts/gcp.env has all other names, machine types and ports.
# Exit codes: 0 done, 1 failed, 64 wrong usage, 69 no gcloud.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/gcp/commands.sh
. scripts/gcp/commands.sh
settings scripts/gcp.env

readonly EVERYTHING=(images host-account firewall-backend firewall-ws address-ws backend ws loadtest)
readonly GRANT_ATTEMPTS_MAX=12 # a new account is known everywhere within a minute
readonly GRANT_PAUSE_SECONDS=${GRANT_PAUSE_SECONDS:-5}

# --- images: the registry, the account that builds them, the account that may pull them -------------------------------------------------------------------

has_line() { [[ $'\n'$described$'\n' == *$'\n'"$1"$'\n'* ]]; }

# enable API...
enable() {
  local api missing=()
  inquire "the list of services" gcloud services list --enabled --project="$GCP_PROJECT" '--format=value(config.name)' || described=
  for api in "$@"; do has_line "$api" || missing+=("$api"); done
  ((${#missing[@]} == 0)) || run gcloud services enable "${missing[@]}" --project="$GCP_PROJECT"
}

# service_account NAME PURPOSE
service_account() {
  if inquire "$1" gcloud iam service-accounts describe "$(account "$1")" --project="$GCP_PROJECT" '--format=value(email)'; then
    say "$1 is there"
  else
    run gcloud iam service-accounts create "$1" --project="$GCP_PROJECT" --display-name="$2"
  fi
}

# grant ACCOUNT ROLE GROUP NAME FLAG...: grants the role on the resource NAME; GROUP is the gcloud command group of its kind.
grant() {
  local member role=$2 group name=$4 attempt condition=()
  member=serviceAccount:$(account "$1")
  read -ra group <<<"$3"
  shift 4
  if inquire "a policy of $name" gcloud "${group[@]}" get-iam-policy "$name" "$@" \
    '--flatten=bindings[].members' '--format=value[separator=" "](bindings.role,bindings.members)' && has_line "$role $member"; then
    say "${member#*:} has $role"
    return
  fi
  # In a project with conditional roles gcloud would otherwise ask whether this binding has a condition.
  [[ ${group[*]} != projects ]] || condition=(--condition=None)
  for ((attempt = 1; attempt <= GRANT_ATTEMPTS_MAX; attempt++)); do
    run gcloud "${group[@]}" add-iam-policy-binding "$name" "$@" --member="$member" --role="$role" "${condition[@]}" \
      '--format=value(etag)' 2>"$scratch/said" && return
    [[ $(<"$scratch/said") == *"does not exist"* ]] || break
    sleep "$GRANT_PAUSE_SECONDS"
  done
  fail 1 "$role could not be granted to ${member#*:}: $(<"$scratch/said")"
}

repository() {
  if inquire "the repository $IMAGES_REPOSITORY" gcloud artifacts repositories describe "$IMAGES_REPOSITORY" --project="$GCP_PROJECT" \
    --location="$GCP_REGION" '--format=value(name)'; then
    say "the repository $IMAGES_REPOSITORY is there"
  else
    run gcloud artifacts repositories create "$IMAGES_REPOSITORY" --project="$GCP_PROJECT" --location="$GCP_REGION" \
      --repository-format=docker --description="Images of the gateway and the publisher, a tag for each commit"
  fi
}

# A dedicated account: Cloud Build's default one depends on the age of the project and may have no permissions.
images() {
  enable artifactregistry.googleapis.com cloudbuild.googleapis.com iam.googleapis.com cloudresourcemanager.googleapis.com
  service_account "$BUILD_ACCOUNT" "Builds the images"
  repository
  grant "$BUILD_ACCOUNT" roles/cloudbuild.builds.builder projects "$GCP_PROJECT"
}

host_account() {
  service_account "$HOST_ACCOUNT" "The hosts: may read the images"
  grant "$HOST_ACCOUNT" roles/artifactregistry.reader "artifacts repositories" "$IMAGES_REPOSITORY" --project="$GCP_PROJECT" --location="$GCP_REGION"
}

# --- firewall rules and addresses -------------------------------------------------------------------------------------------

sorted() { tr ',;\t ' '\n' | sed '/^$/d' | sort -u | paste -sd, -; }

# rule NAME PORTS SOURCES TARGET: PORTS as 3010,8080; SOURCES are ranges and tags of instances, separated by commas.
rule() {
  local name=$1 target=$4 port source allowed='' ranges='' tags=''
  for port in ${2//,/ }; do allowed+=${allowed:+,}tcp:$port; done
  for source in ${3//,/ }; do
    if [[ $source == *[.:]*/* ]]; then ranges+=${ranges:+,}$source; else tags+=${tags:+,}$source; fi
  done
  local flags=(--allow="$allowed")
  [[ -z $ranges ]] || flags+=(--source-ranges="$ranges")
  [[ -z $tags ]] || flags+=(--source-tags="$tags")
  flags+=(--target-tags="$target")
  if ! describe firewall-rules "$name" \
    '--format=value[separator=" "](allowed[].map().firewall_rule().list(),sourceRanges.list(),sourceTags.list(),targetTags.list())'; then
    run gcloud compute firewall-rules create "$name" --project="$GCP_PROJECT" --network="$GCP_NETWORK" --direction=INGRESS "${flags[@]}"
  elif [[ $(sorted <<<"$described") == $(sorted <<<"$allowed,$ranges,$tags,$target") ]]; then
    say "$name is as it should be"
  else
    say "$name differs: it was $described"
    run gcloud compute firewall-rules update "$name" --project="$GCP_PROJECT" "${flags[@]}"
  fi
}

# Grafana, the console and the publisher are for operators only: open to the Internet, anyone could take them over.
operator_ranges() {
  [[ -n ${OPERATOR_RANGES:-} ]] ||
    fail 64 "OPERATOR_RANGES is not set: the addresses that may reach Grafana, the console and the publisher, for example 203.0.113.7/32"
  local range
  for range in ${OPERATOR_RANGES//,/ }; do
    [[ $range =~ ^[0-9a-fA-F.:]+/([0-9]+)$ ]] || fail 64 "OPERATOR_RANGES has $range: write ranges such as 203.0.113.7/32"
    ((BASH_REMATCH[1] > 0)) || fail 64 "OPERATOR_RANGES has $range, which is every address: write your own addresses"
  done
}

firewall_backend() {
  rule odin-allow-operators "$GCP_GRAFANA_PORT,$GCP_CONSOLE_PORT" "$OPERATOR_RANGES" "$BACKEND_TAG"
  rule odin-allow-publisher "$GCP_PUBLISHER_PORT" "$OPERATOR_RANGES,$LOADTEST_TAG" "$BACKEND_TAG"
  rule odin-allow-gateways "$GCP_KAFKA_PORT,$GCP_LOKI_PORT" "$WS_TAG" "$BACKEND_TAG"
}

# Health checks and the backend's Prometheus have their own rules, which stay when CLIENT_RANGES is narrowed.
firewall_ws() {
  rule odin-allow-clients "$GCP_WS_PORT" "$CLIENT_RANGES" "$WS_TAG"
  rule odin-allow-health-checks "$GCP_WS_PORT" "$HEALTH_CHECK_RANGES" "$WS_TAG"
  rule odin-allow-scrapes "$GCP_WS_PORT" "$BACKEND_TAG,$LOADTEST_TAG" "$WS_TAG"
}

address_ws() {
  local name
  for name in $(ws_instances); do
    if describe addresses "$name-ip" --region="$GCP_REGION" '--format=value(address)'; then
      say "$name-ip is there"
    else
      run gcloud compute addresses create "$name-ip" --project="$GCP_PROJECT" --region="$GCP_REGION"
    fi
  done
}

# --- instances -------------------------------------------------------------------------------------------------------------

# instance NAME MACHINE_TYPE DISK_GB TAG ACCOUNT FLAG...: without an ACCOUNT the instance may call no Google API. The account's roles
# decide what it may do; scopes are the older mechanism, and this one permits every role.
instance() {
  local name=$1 machine=$2 disk=$3 tag=$4 email='' state found_machine found_email acts=(--no-service-account --no-scopes)
  if [[ -n $5 ]]; then
    email=$(account "$5")
    acts=(--service-account="$email" --scopes=cloud-platform)
  fi
  shift 5
  if ! describe instances "$name" --zone="$GCP_ZONE" '--format=value[separator=" "](status,machineType.basename(),serviceAccounts[0].email)'; then
    run gcloud compute instances create "$name" --project="$GCP_PROJECT" --zone="$GCP_ZONE" --machine-type="$machine" \
      --image-family="$GCP_IMAGE_FAMILY" --image-project="$GCP_IMAGE_PROJECT" --boot-disk-size="${disk}GB" --boot-disk-type=pd-balanced \
      --network="$GCP_NETWORK" --tags="$tag" "${acts[@]}" --metadata-from-file=startup-script=scripts/gcp/startup.sh "$@"
    return
  fi
  read -r state found_machine found_email <<<"$described"
  [[ $found_machine == "$machine" ]] ||
    say "$name is $found_machine and should be $machine: stop it, then 'gcloud compute instances set-machine-type $name --machine-type=$machine'"
  [[ -z $email || $found_email == "$email" ]] ||
    say "$name acts as ${found_email:-nobody} and cannot pull images unless that may: stop it, then 'gcloud compute instances set-service-account $name --service-account=$email --scopes=cloud-platform'"
  case $state in
    TERMINATED | STOPPED) run gcloud compute instances start "$name" --project="$GCP_PROJECT" --zone="$GCP_ZONE" ;;
    SUSPENDED) run gcloud compute instances resume "$name" --project="$GCP_PROJECT" --zone="$GCP_ZONE" ;;
    *) say "$name is there: $state" ;;
  esac
}

backend() { instance "$BACKEND_INSTANCE" "$BACKEND_MACHINE_TYPE" "$BACKEND_DISK_GB" "$BACKEND_TAG" "$HOST_ACCOUNT"; }
loadtest() { instance "$LOADTEST_INSTANCE" "$LOADTEST_MACHINE_TYPE" "$LOADTEST_DISK_GB" "$LOADTEST_TAG" ''; }
ws() {
  local name
  for name in $(ws_instances); do
    instance "$name" "$WS_MACHINE_TYPE" "$WS_DISK_GB" "$WS_TAG" "$HOST_ACCOUNT" --address="$name-ip"
  done
}

# --- commands --------------------------------------------------------------------------------------------------------------

# In the order of EVERYTHING: instances come after the resources that they need.
up() {
  local what wanted=" $* "
  [[ $wanted != *" firewall-backend "* ]] || operator_ranges
  [[ $wanted != *" ws "* ]] || wanted+="address-ws "
  [[ ! $wanted =~ \ (backend|ws|host-account)\  ]] || wanted+="images host-account "
  for what in "${EVERYTHING[@]}"; do
    [[ $wanted != *" $what "* ]] || "${what//-/_}"
  done
}

instances_of() {
  case $1 in
    backend) echo "$BACKEND_INSTANCE" ;;
    ws) ws_instances ;;
    loadtest) echo "$LOADTEST_INSTANCE" ;;
  esac
}

# When its host stops, the gateway gets SIGTERM and drains.
down() {
  local what name state
  for what in "$@"; do
    for name in $(instances_of "$what"); do
      describe instances "$name" --zone="$GCP_ZONE" '--format=value(status)' && state=$described || state=absent
      if $dry_run || [[ $state == RUNNING ]]; then
        run gcloud compute instances stop "$name" --project="$GCP_PROJECT" --zone="$GCP_ZONE"
      else
        say "$name does not run: $state"
      fi
    done
  done
}

# discard KIND NAME FLAG...: deletes the resource if it exists.
discard() {
  local kind=$1 name=$2
  shift 2
  if describe "$kind" "$name" "$@" '--format=value(name)' || $dry_run; then
    run gcloud compute "$kind" delete "$name" --project="$GCP_PROJECT" "$@" --quiet
  fi
}

# discard_account NAME: deletes the service account if it exists.
discard_account() {
  if inquire "$1" gcloud iam service-accounts describe "$(account "$1")" --project="$GCP_PROJECT" '--format=value(email)' || $dry_run; then
    run gcloud iam service-accounts delete "$(account "$1")" --project="$GCP_PROJECT" --quiet
  fi
}

discard_images() {
  if inquire "the repository $IMAGES_REPOSITORY" gcloud artifacts repositories describe "$IMAGES_REPOSITORY" --project="$GCP_PROJECT" \
    --location="$GCP_REGION" '--format=value(name)' || $dry_run; then
    run gcloud artifacts repositories delete "$IMAGES_REPOSITORY" --project="$GCP_PROJECT" --location="$GCP_REGION" --quiet
  fi
  discard_account "$BUILD_ACCOUNT"
}

delete() {
  local what name
  for what in "$@"; do
    for name in $(instances_of "$what"); do discard instances "$name" --zone="$GCP_ZONE"; done
  done
  for what in "$@"; do
    case $what in
      firewall-backend) for name in operators publisher gateways; do discard firewall-rules "odin-allow-$name"; done ;;
      firewall-ws) for name in clients health-checks scrapes; do discard firewall-rules "odin-allow-$name"; done ;;
      address-ws) for name in $(ws_instances); do discard addresses "$name-ip" --region="$GCP_REGION"; done ;;
      images) discard_images ;;
      host-account) discard_account "$HOST_ACCOUNT" ;;
    esac
  done
}

status() {
  run gcloud compute instances list --project="$GCP_PROJECT" --filter="tags.items=($BACKEND_TAG $WS_TAG $LOADTEST_TAG)" \
    '--format=table(name,zone.basename(),machineType.basename(),status,networkInterfaces[0].networkIP,networkInterfaces[0].accessConfigs[0].natIP)'
  run gcloud compute addresses list --project="$GCP_PROJECT" --filter='name~^odin-' '--format=table(name,region.basename(),address,status)'
  run gcloud compute firewall-rules list --project="$GCP_PROJECT" --filter='name~^odin-' \
    '--format=table(name,allowed[].map().firewall_rule().list(),sourceRanges.list(),sourceTags.list(),targetTags.list())'
  run gcloud artifacts repositories list --project="$GCP_PROJECT" --location="$GCP_REGION" --filter="name~/$IMAGES_REPOSITORY\$" \
    '--format=table(name.basename(),format,sizeBytes)'
}

main() {
  local command='' yes=false whats=()
  for word in "$@"; do
    case $word in
      --dry-run) dry_run=true ;;
      --yes) yes=true ;;
      -h | --help | help) usage "${BASH_SOURCE[0]}"; exit 0 ;;
      up | down | delete | status) command=${command:-$word} ;;
      images | host-account | firewall-backend | firewall-ws | address-ws | backend | ws | loadtest) whats+=("$word") ;;
      *)
        usage "${BASH_SOURCE[0]}" >&2
        if [[ -n $command ]]; then fail 64 "unknown WHAT $word: it must be one of ${EVERYTHING[*]} (the gateways are ws)"; fi
        fail 64 "unknown command $word: it must be up, down, delete or status"
        ;;
    esac
  done
  [[ -n $command ]] || { usage "${BASH_SOURCE[0]}" >&2; fail 64 "no command: it must be up, down, delete or status"; }
  ((${#whats[@]} > 0)) || whats=("${EVERYTHING[@]}")
  need_gcloud
  [[ $command != delete ]] || $yes || $dry_run || fail 64 "delete also deletes the disks and the images: confirm with delete --yes"
  "$command" "${whats[@]}"
}

main "$@"
