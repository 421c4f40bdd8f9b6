#!/usr/bin/env bash
# Deploys a revision of this repository on the instances that gcp-provision.sh created: Cloud Build makes its images, the hosts pull and
# start them, and the script waits until they are ready. Nothing is compiled on a host that serves clients.
#
#   gcp-deploy.sh [--dry-run] [--revision REV] [--env keep|replace] [--rebuild] images|backend|ws|loadtest|all
#   all is backend, then ws; images only makes the images, and prints their tag
#
# REV is a commit, branch or tag, HEAD by default. Uncommitted changes are not deployed; an older REV rolls back. Images are made once for
# each commit; --rebuild makes them again. The gateways are replaced one after another, each with its drain, and the next only when the
# previous one is ready. If .env.production was edited on a host, the deploy never overwrites it without consent: it stops, shows the
# difference, and asks for --env keep or --env replace. odin-bench is built on its own host, which serves no clients. Names and ports:
# scripts/gcp.env.
# Exit codes: 0 done, 1 failed, 3 --env is needed, 64 wrong usage, 69 no gcloud.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/gcp/commands.sh
. scripts/gcp/commands.sh
settings scripts/gcp.env

readonly ENV_NEEDS_A_DECISION=3

pack() {
  commit=$(git rev-parse --verify --quiet --short=12 "$revision^{commit}") || fail 64 "there is no revision $revision in this repository"
  [[ $revision != HEAD || -z $(git status --porcelain) ]] || say "deploying $commit; uncommitted changes are not deployed"
  archive=odin-$commit.tar.gz
  run git archive --format=tar.gz --output="$scratch/$archive" "$commit"
}

# Builds the images of the commit unless the registry has both. Cloud Build pushes them only when both are built.
images() {
  local prefix out=2
  prefix=$(images_prefix)
  if ! $rebuild; then
    # Names without tags, one line for each image of this commit.
    inquire "the images" gcloud artifacts docker images list "${prefix%/}" --project="$GCP_PROJECT" --include-tags --filter="tags:$commit" \
      '--format=value(package)' || $dry_run || fail 1 "there is no repository ${prefix%/}: scripts/gcp-provision.sh up images creates it"
    if [[ $described == *odin-gateway* && $described == *odin-publisher* ]]; then
      say "the images of $commit exist already"
      return
    fi
  fi
  ! $dry_run || out=1
  run gcloud builds submit "$scratch/$archive" --project="$GCP_PROJECT" --region="$GCP_REGION" --config=deployments/gcp/cloudbuild.yaml \
    --service-account="projects/$GCP_PROJECT/serviceAccounts/$(account "$BUILD_ACCOUNT")" --substitutions="_IMAGES=$prefix,_TAG=$commit" >&"$out" ||
    fail 1 "Cloud Build made no images of $commit; nothing was deployed. The lines above name its log"
}

# install NAME ROLE NAME=VALUE...
install() {
  local name=$1 role=$2 code=0
  shift 2
  wait_for_ssh "$name"
  copy "$name" "$scratch/$archive" scripts/gcp/install.sh
  remote "$name" "sudo bash /tmp/install.sh $(quoted "${install_flags[@]}" "$role" "$commit" "/tmp/$archive" "$@")" || code=$?
  remote "$name" "rm -f /tmp/$archive /tmp/install.sh" || say "the copied files are still in /tmp of $name"
  case $code in
    0) ;;
    "$ENV_NEEDS_A_DECISION") fail "$ENV_NEEDS_A_DECISION" "$name was left as it is" ;;
    *) fail 1 "the deploy to $name failed; nothing else was deployed" ;;
  esac
}

# Instances of the same network can resolve each other's names.
gateways() {
  local name targets=''
  for name in $(ws_instances); do targets+=${targets:+,}$name:$GCP_WS_PORT; done
  printf '%s' "$targets"
}

backend() {
  install "$BACKEND_INSTANCE" backend "BACKEND_INTERNAL_IP=$backend_address" "ODIN_IMAGES=$(images_prefix)" "ODIN_TAG=$commit" \
    "GATEWAYS=$(gateways)" "READY_PORT=$GCP_PUBLISHER_PORT"
}

ws() {
  local name
  for name in $(ws_instances); do
    install "$name" ws-server "BACKEND_INTERNAL_IP=$backend_address" "ODIN_IMAGES=$(images_prefix)" "ODIN_TAG=$commit" \
      "INSTANCE=$name" "READY_PORT=$GCP_WS_PORT"
  done
}

loadtest() { install "$LOADTEST_INSTANCE" loadtest; }

all() {
  backend
  ws
}

main() {
  local what=''
  revision=HEAD rebuild=false install_flags=()
  while (($# > 0)); do
    case $1 in
      --dry-run) dry_run=true ;;
      --revision) revision=${2:?--revision needs a commit, branch or tag}; shift ;;
      --env)
        [[ ${2:-} == keep || ${2:-} == replace ]] || fail 64 "--env must be keep or replace"
        install_flags+=(--env "$2")
        shift
        ;;
      --rebuild) rebuild=true ;;
      images | backend | ws | loadtest | all) what=$1 ;;
      -h | --help | help) usage "${BASH_SOURCE[0]}"; exit 0 ;;
      *) usage "${BASH_SOURCE[0]}" >&2; fail 64 "unknown argument $1: what to deploy must be images, backend, ws, loadtest or all (the gateways are ws)" ;;
    esac
    shift
  done
  [[ -n $what ]] || { usage "${BASH_SOURCE[0]}" >&2; exit 64; }
  need_gcloud
  pack
  case $what in
    images) images ;;
    loadtest) loadtest ;;
    *)
      find_address "$BACKEND_INSTANCE" internal
      backend_address=$address
      images
      "$what"
      ;;
  esac
  [[ $what != images ]] || $dry_run || echo "$commit"
}

main "$@"
