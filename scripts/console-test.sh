#!/usr/bin/env bash
# Tests the console page of a real gateway in headless Chromium: content, behaviour, appearance.
#
#   console-test.sh [--screenshots DIR]     run the tests; screenshots to DIR (default: target/console-test)
#
# The script uses the existing target/release/odin-gateway, and builds it if it is missing. The gateway listens on 127.0.0.1, on the
# first free port from 13003. The only package, pinned by console-test/package-lock.json, is installed to target/console-test; the
# browser is the installed one.
# Exit codes: 0 done, 1 failed, 64 wrong usage, 69 not possible here (no browser, node, npm or registry): a caller can skip and
# report why.
set -euo pipefail

readonly NODE_VERSION_MIN=20
readonly RUN_SECONDS_MAX=240

say() { printf 'console-test.sh: %s\n' "$*" >&2; }
fail() {
  say "$2"
  exit "$1"
}
usage() { sed -n '/^#   console-test.sh/s/^#   //p' "${BASH_SOURCE[0]}" >&2; }

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly tests=$root/scripts/console-test
readonly target=${CARGO_TARGET_DIR:-$root/target}
readonly work=$target/console-test
screenshots=$work
while (($#)); do
  case $1 in
    --screenshots)
      (($# > 1)) || fail 64 "--screenshots needs a folder"
      mkdir -p "$2"
      screenshots=$(cd "$2" && pwd)
      shift 2
      ;;
    help | --help | -h)
      usage
      exit 0
      ;;
    *)
      usage
      fail 64 "unknown argument $1"
      ;;
  esac
done

find_browser() {
  local name
  for name in chromium chromium-browser google-chrome; do
    command -v "$name" && return
  done
  fail 69 "no Chromium (Debian: apt-get install chromium)"
}

need_node() {
  command -v node >/dev/null || fail 69 "no node, version $NODE_VERSION_MIN or newer (Debian: apt-get install nodejs)"
  command -v npm >/dev/null || fail 69 "no npm (Debian: apt-get install npm)"
  local version
  version=$(node -p 'process.versions.node.split(".")[0]')
  ((version >= NODE_VERSION_MIN)) || fail 69 "node $version is too old: $NODE_VERSION_MIN or newer is needed"
}

# npm's error codes for a registry that cannot be reached, and for an empty cache in offline mode.
readonly UNREACHABLE='code (ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ENETUNREACH|EHOSTUNREACH|ETIMEDOUT|ERR_SOCKET_TIMEOUT|ENOTCACHED|E403|E407|E502|E503|E504)'

install_packages() {
  cmp -s "$tests/package-lock.json" "$work/installed-lock.json" && return
  cp "$tests"/{package.json,package-lock.json,.npmrc} "$work"
  local log=$work/npm.log
  if ! npm --prefix "$work" ci --omit=dev --ignore-scripts --prefer-offline --no-audit --no-fund \
    --fetch-retries=1 --fetch-retry-mintimeout=1000 --fetch-retry-maxtimeout=2000 --fetch-timeout=30000 >"$log" 2>&1; then
    cat "$log" >&2
    ! grep -qE "$UNREACHABLE" "$log" || fail 69 "npm cannot reach its registry, and its cache has no playwright-core"
    fail 1 "npm ci failed"
  fi
  cp "$work/package-lock.json" "$work/installed-lock.json"
}

CHROMIUM=$(find_browser)
need_node
mkdir -p "$work"
install_packages
ODIN_GATEWAY=$target/release/odin-gateway
if [[ ! -x $ODIN_GATEWAY ]]; then
  say "building the gateway"
  (cd "$root" && cargo build --release -p gateway)
fi

export CHROMIUM ODIN_GATEWAY SCREENSHOTS=$screenshots NODE_PATH=$work/node_modules
# One file after another, because they share the machine. `timeout` starts a separate process group and forwards every signal to it,
# so that no gateway outlives this script.
timeout --kill-after=10 "$RUN_SECONDS_MAX" node --test --test-concurrency=1 --test-reporter=spec "$tests"/*.test.js &
running=$!
trap 'kill "$running" 2>/dev/null || true' EXIT INT TERM
status=0
wait "$running" || status=$?
((status != 124)) || fail 1 "the tests did not finish in $RUN_SECONDS_MAX s"
((status == 0)) || exit 1
say "screenshots in $screenshots"
