#!/usr/bin/env bash
# Installs a release on this host, as root. gcp-deploy.sh copies the release and this script to the host and runs it.
#
#   install.sh [--env ask|keep|replace] backend|ws-server|loadtest REVISION ARCHIVE [NAME=VALUE...]
#
# Each release is unpacked to /opt/odin/releases/REVISION; /opt/odin/current is the newest that was ready. Settings of the host are under
# /opt/odin/settings and are kept between releases: the .env of each role (the NAME=VALUEs, including the images' registry and tag, and
# Grafana's password, which the first install generates), and .env.production, which operators may edit. An unedited one is replaced. If it
# was edited and the release has a different one, the script shows the difference, and --env decides.
# Exit codes: 0 done, 1 failed, 3 .env.production needs a decision, 64 wrong usage.
set -euo pipefail

root=${ODIN_ROOT:-/opt/odin}
readonly root
readonly READY_SECONDS_MAX=${READY_SECONDS_MAX:-300} # a gateway reads its history first
readonly DOCKER_SECONDS_MAX=${DOCKER_SECONDS_MAX:-600} # the first boot installs it
readonly RELEASES_KEPT=3
readonly RUST_IMAGE=rust:1.91.1-bookworm

say() { printf 'install.sh: %s\n' "$*" >&2; }
fail() {
  say "$2"
  exit "$1"
}

wait_for_docker() {
  local waited=0
  until docker compose version >/dev/null 2>&1; do
    ((waited < DOCKER_SECONDS_MAX)) ||
      fail 1 "no Docker after $DOCKER_SECONDS_MAX s: 'journalctl -u google-startup-scripts' shows the output of the startup script"
    sleep 5
    waited=$((waited + 5))
  done
}

# Do not unpack an existing revision again: containers mount its files.
unpack() {
  [[ ! -d $release ]] || return 0
  rm -rf "$release.new"
  mkdir -p "$release.new"
  tar -xzf "$archive" -C "$release.new"
  mv "$release.new" "$release"
}

# set_variables FILE NAME=VALUE...: keeps the other lines. Other users can read neither the file nor its temporary copy.
set_variables() (
  umask 077
  file=$1
  shift
  touch "$file"
  for pair in "$@"; do
    grep -v "^${pair%%=*}=" "$file" >"$file.new" || true
    printf '%s\n' "$pair" >>"$file.new"
    cat "$file.new" >"$file"
    rm "$file.new"
  done
)

write_dot_env() {
  local file=$root/settings/$role.env
  set_variables "$file" "${variables[@]}"
  if [[ $role == backend ]] && ! grep -q '^GF_SECURITY_ADMIN_PASSWORD=.' "$file"; then
    set_variables "$file" "GF_SECURITY_ADMIN_PASSWORD=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')"
    say "generated a password for Grafana's admin: sudo grep GF_SECURITY_ADMIN_PASSWORD $file"
  fi
  ln -sfn "$file" "$folder/.env"
}

# Links the host's own .env.production into the release. `shipped` is the version of the last release.
place_production_settings() {
  local brought=$folder/.env.production own=$root/settings/$role.env.production
  local shipped=$own.shipped
  [[ -f $brought && ! -L $brought ]] || return 0
  if [[ -f $own ]] && ! cmp -s "$own" "$shipped" && ! cmp -s "$brought" "$shipped" && ! cmp -s "$own" "$brought"; then
    case $env in
      keep) say "kept the .env.production that was edited on this host" ;;
      replace)
        cp "$own" "$own.before-$revision"
        cp "$brought" "$own"
        say "replaced .env.production; the edited one is $own.before-$revision"
        ;;
      *)
        say ".env.production was edited on this host, and the release has a different one (- this host's, + the release's):"
        diff -u "$own" "$brought" | tail -n +3 >&2 || true
        say "nothing was changed. Deploy again with --env keep or --env replace"
        exit 3
        ;;
    esac
  elif [[ ! -f $own ]] || cmp -s "$own" "$shipped"; then
    cp "$brought" "$own"
  elif ! cmp -s "$own" "$brought"; then
    say "kept the .env.production that was edited on this host; the release's is as before"
  fi
  cp "$brought" "$shipped"
  ln -sfn "$own" "$brought"
}

# The targets are the existing gateways. They have no labels, which would separate series that the rules compare.
write_targets() {
  local file=$folder/prometheus/targets/gateways.yml targets=$1 target
  [[ $role == backend && -n $targets && -f $file ]] || return 0
  {
    echo "- targets:"
    for target in ${targets//,/ }; do echo "    - $target"; done
  } >"$file"
}

tune() {
  local code=0 host
  case $role in ws-server) host=gateway ;; backend) host=backend ;; loadtest) host=generator ;; esac
  [[ -x $release/scripts/host-tune.sh ]] || fail 1 "the release has no scripts/host-tune.sh"
  "$release/scripts/host-tune.sh" --apply --role "$host" || code=$?
  # Start the gateway even if this host lacks a setting.
  ((code == 0)) || say "host-tune.sh --apply exited with $code; the lines above name the settings that failed"
}

variable() {
  local pair
  for pair in "${variables[@]}"; do
    [[ ${pair%%=*} != "$1" ]] || printf '%s' "${pair#*=}"
  done
}

ready_url() {
  case $role in
    ws-server) echo "http://127.0.0.1:$(variable READY_PORT)/health/ready" ;;
    backend) echo "http://$(variable BACKEND_INTERNAL_IP):$(variable READY_PORT)/health" ;;
  esac
}

# Pull while the old container still runs: if this fails, nothing is replaced. `up` pulls new images of other projects.
pull() {
  local images image
  images=$(variable ODIN_IMAGES)
  image=${images}odin-gateway:$(variable ODIN_TAG)
  [[ $role != backend ]] || image=${images}odin-publisher:$(variable ODIN_TAG)
  "$release/scripts/gcp/registry-login.sh" "$images" >/dev/null || fail 1 "the login to the registry failed; the previous containers still run"
  docker pull --quiet "$image" || fail 1 "$image could not be pulled; the previous containers still run"
}

# Replaces the running containers, which drains the gateway (stop_grace_period). Never builds: a missing image is an error.
start() {
  local url waited=0
  url=$(ready_url)
  cd "$folder"
  docker compose up -d --no-build --remove-orphans || fail 1 "docker compose up failed: $(docker compose ps --all 2>&1 | tail -n 20)"
  until curl -fsS -m 5 -o /dev/null "$url" 2>"$scratch/said"; do
    ((waited < READY_SECONDS_MAX)) || {
      docker compose ps --all >&2 || true
      docker compose logs --tail 40 >&2 || true
      fail 1 "not ready after $READY_SECONDS_MAX s: $(<"$scratch/said"). To go back to the previous release: gcp-deploy.sh --revision $(basename "$(readlink "$root/current" 2>/dev/null || echo REVISION)") ..."
    }
    sleep 2
    waited=$((waited + 2))
  done
  say "$url answers"
}

# Builds the load generator with the toolchain image, so the host needs no toolchain.
build_bench() {
  docker run --rm -v "$release:/source" -w /source -v odin-cargo:/usr/local/cargo/registry -e CARGO_TARGET_DIR=/source/target \
    "$RUST_IMAGE" cargo build --release --locked -p bench
  "$release/target/release/odin-bench" --version
}

prune() {
  local old
  find "$root/releases" -mindepth 1 -maxdepth 1 -type d -printf '%T@ %p\n' | sort -rn | tail -n +$((RELEASES_KEPT + 1)) | cut -d' ' -f2- |
    while read -r old; do
      [[ $old -ef $root/current ]] || rm -rf "$old"
    done
}

env=ask
while [[ ${1:-} == --* ]]; do
  case $1 in
    --env) env=${2:?--env needs ask, keep or replace}; shift 2 ;;
    *) fail 64 "unknown role $1: it must be backend, ws-server or loadtest" ;;
  esac
done
(($# >= 3)) || fail 64 "usage: install.sh [--env ask|keep|replace] backend|ws-server|loadtest REVISION ARCHIVE [NAME=VALUE...]"
role=$1 revision=$2 archive=$3
shift 3
variables=("$@")
release=$root/releases/$revision
folder=$release/deployments/gcp/distributed/$role
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

mkdir -p "$root/settings"
exec 9>"$root/settings/lock"
flock -n 9 || fail 1 "another install runs on this host"
wait_for_docker
unpack
tune
if [[ $role == loadtest ]]; then
  build_bench
else
  [[ -f $folder/docker-compose.yml ]] || fail 1 "revision $revision has no deployments/gcp/distributed/$role/docker-compose.yml"
  pull
  place_production_settings
  write_dot_env
  write_targets "$(variable GATEWAYS)"
  start
fi
ln -sfn "$release" "$root/current"
prune
say "$role runs revision $revision"
