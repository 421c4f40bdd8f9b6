# shellcheck shell=bash
# Functions that the GCP scripts share: settings of gcp.env, messages, and gcloud with --dry-run. Sourced, never run.
#
# With dry_run=true no command runs: each is printed on stdout as a line that a shell can execute.

readonly SSH_ATTEMPTS_MAX=24 # a new instance answers within a minute
readonly SSH_PAUSE_SECONDS=${SSH_PAUSE_SECONDS:-5}

dry_run=false
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
fail() {
  say "$2"
  exit "$1"
}

# usage FILE: prints the header lines that are indented by three spaces.
usage() { sed -n 's/^#   //p' "$1"; }

# settings FILE: sets each NAME=VALUE of FILE that the environment does not set already.
settings() {
  local line name
  while IFS= read -r line || [[ -n $line ]]; do
    [[ $line =~ ^([A-Z_]+)=(.*)$ ]] || continue
    name=${BASH_REMATCH[1]}
    [[ -n ${!name:-} ]] || printf -v "$name" '%s' "${BASH_REMATCH[2]}"
  done <"$1"
}

need_gcloud() {
  [[ -n ${GCP_PROJECT:-} ]] ||
    fail 64 "GCP_PROJECT is not set: export GCP_PROJECT=PROJECT-ID (gcloud projects list shows yours)"
  $dry_run || command -v gcloud >/dev/null ||
    fail 69 "no gcloud: install the Google Cloud CLI and run 'gcloud auth login', or use --dry-run to see the commands"
}

quoted() {
  local word words=()
  for word in "$@"; do
    [[ $word =~ ^[A-Za-z0-9_=.,:/@+-]+$ ]] || word=${word@Q}
    words+=("$word")
  done
  printf '%s' "${words[*]}"
}

# Runs a command or, with --dry-run, prints it.
run() {
  if $dry_run; then
    quoted "$@"
    echo
  else
    "$@"
  fi
}

# inquire NAME COMMAND...: runs a gcloud COMMAND about NAME and sets $described to its output. False when NAME does not exist; any other
# failure ends the script, so that a missing permission is never mistaken for a missing resource. With --dry-run nothing exists.
described=
inquire() {
  local name=$1 said code api=compute.googleapis.com
  shift
  # In a new project gcloud would ask whether it may enable the API, and nobody would see the question.
  CLOUDSDK_CORE_DISABLE_PROMPTS=1 run "$@" >"$scratch/described" 2>"$scratch/said" && code=0 || code=$?
  if $dry_run; then
    cat "$scratch/described"
    return 1
  fi
  described=$(<"$scratch/described")
  ((code != 0)) || return 0
  said=$(<"$scratch/said")
  [[ $said != *"not found"* && $said != *NOT_FOUND* ]] || return 1
  if [[ $said =~ SERVICE_DISABLED|not\ been\ used\ in\ project|not\ enabled\ on\ project ]]; then
    [[ ! $said =~ [a-z]+\.googleapis\.com ]] || api=${BASH_REMATCH[0]}
    fail 1 "the project has not enabled $api: gcloud services enable $api --project=$GCP_PROJECT. gcloud said: $said"
  fi
  [[ $said != *"gcloud auth login"* && $said != *"active account"* ]] || fail 1 "not signed in: run 'gcloud auth login'. gcloud said: $said"
  fail 1 "gcloud could not look up $name: $said"
}

# describe KIND NAME FLAG...: inquires about a resource of Compute Engine.
describe() {
  local kind=$1 name=$2
  shift 2
  inquire "$name" gcloud compute "$kind" describe "$name" --project="$GCP_PROJECT" "$@"
}

# account NAME: prints the email of the project's service account NAME.
account() { printf '%s' "$1@$GCP_PROJECT.iam.gserviceaccount.com"; }

# Prints the prefix of the image names in the project's registry.
images_prefix() { printf '%s' "$GCP_REGION-docker.pkg.dev/$GCP_PROJECT/$IMAGES_REPOSITORY/"; }

# find_address NAME internal|external: sets $address to the IPv4 address of the instance.
address=
find_address() {
  local field='networkInterfaces[0].networkIP'
  [[ $2 == internal ]] || field='networkInterfaces[0].accessConfigs[0].natIP'
  if describe instances "$1" --zone="$GCP_ZONE" "--format=value($field)"; then
    address=$described
    [[ $address =~ ^[0-9.]+$ ]] || fail 1 "$1 has no $2 address: is it stopped? scripts/gcp-provision.sh up starts it"
  else
    $dry_run || fail 1 "there is no instance $1 in $GCP_ZONE of $GCP_PROJECT: scripts/gcp-provision.sh up creates it"
    address=$2-ADDRESS-OF-$1
  fi
}

ws_instances() { tr ',' '\n' <<<"$WS_INSTANCE"; }

# remote NAME COMMAND FLAG...: runs COMMAND in a shell on the instance.
remote() {
  local name=$1 line=$2 flags=()
  shift 2
  read -ra flags <<<"$GCP_SSH_FLAGS"
  run gcloud compute ssh "$name" --project="$GCP_PROJECT" --zone="$GCP_ZONE" "${flags[@]}" "$@" --command="$line"
}

# copy NAME FILE...: copies the files into /tmp of the instance.
copy() {
  local name=$1 flags=()
  shift
  read -ra flags <<<"$GCP_SSH_FLAGS"
  run gcloud compute scp "$@" "$name:/tmp/" --project="$GCP_PROJECT" --zone="$GCP_ZONE" "${flags[@]}"
}

wait_for_ssh() {
  local attempt
  if $dry_run; then
    remote "$1" true
    return
  fi
  for ((attempt = 1; attempt <= SSH_ATTEMPTS_MAX; attempt++)); do
    remote "$1" true >/dev/null 2>&1 </dev/null && return
    sleep "$SSH_PAUSE_SECONDS"
  done
  fail 1 "$1 does not answer to ssh: try 'gcloud compute ssh $1 --zone=$GCP_ZONE --troubleshoot'; behind a closed port 22, GCP_SSH_FLAGS=--tunnel-through-iap"
}
