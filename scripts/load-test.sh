#!/usr/bin/env bash
# Load tests a running gateway: starts the publisher, opens sessions with odin-bench, which audits every delivery, stops the publisher.
#
#   load-test.sh [--dry-run] RECIPE [FLAG...]    FLAGs go to odin-bench sustained
#     capacity          12,000 sessions at 100/s for 30 minutes, publisher at 100 events/s
#     capacity:short    the same for 5 minutes
#     stress            18,000 at 200/s
#     stress:heavy      24,000 at 200/s
#     sustained         1,000 at 50/s for an hour, publisher at 1,000 events/s of 20 tokens
#     custom            by TARGET_CONNECTIONS (7000), RAMP_RATE (100), DURATION (1800), PUBLISHER_RATE (100), PUBLISHER_TOKENS (BTC,ETH,SOL)
#   load-test.sh status    show the running test and the last result; exit 1 if none runs
#   load-test.sh stop      stop the test early, with the summary so far
#
# WS_URL (ws://localhost:3004/ws), HEALTH_URL (/health of the same address), CHANNELS, SUBSCRIPTION_MODE, CHANNELS_PER_CLIENT,
# CONNECTION_TIMEOUT and SOURCE_ADDRESSES are passed to odin-bench. PUBLISHER_URL (http://localhost:3003) is the publisher's API;
# PUBLISHER_URL=off if another program publishes. Logs and results: LOAD_TEST_DIR (target/load-test). The gateway refuses sessions above
# WS_MAX_CONNECTIONS, which fails the test: raise it for a stress test. It also refuses sessions above WS_MAX_CONNECTIONS_PER_IP, because
# all come from one address: set that to 0 during the test, or name this machine in WS_TRUSTED_PROXIES.
# Exit codes: 0 every session got every event, 1 failed, 64 wrong usage, 69 no odin-bench.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
readonly TOKENS_20=BTC,ETH,SOL,ODIN,DOGE,ADA,XRP,DOT,LTC,LINK,AVAX,UNI,ATOM,XLM,NEAR,ALGO,FIL,ICP,APT,ARB
readonly STOP_SECONDS_MAX=60
readonly dir=${LOAD_TEST_DIR:-target/load-test}
dry_run=false

say() { printf 'load-test.sh: %s\n' "$*" >&2; }
fail() {
  say "$2"
  exit "$1"
}
usage() { sed -n 's/^#   //p' "${BASH_SOURCE[0]}"; }

find_bench() {
  bench=${ODIN_BENCH:-target/release/odin-bench}
  [[ -x $bench ]] || $dry_run || fail 69 "no $bench: run cargo build --release -p bench"
}

# Prints the pid of this folder's odin-bench, after a check of its command line: a pid file may be stale, and pids are reused.
running() {
  local pid
  pid=$(cat "$dir/pid" 2>/dev/null) && [[ -r /proc/$pid/cmdline ]] || return 1
  tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -q ' sustained ' || return 1
  printf '%s' "$pid"
}

# --- the publisher ---------------------------------------------------------------------------------------------------------

# publisher PATH JSON
publisher() {
  local command=(curl -fsS -m 30 -H 'content-type: application/json' -d "$2" "$publisher_url$1")
  if $dry_run; then
    echo "${command[@]@Q}"
  else
    "${command[@]}" >"$dir/publisher.json"
  fi
}

start_publisher() {
  [[ $publisher_url != off ]] || return 0
  publisher /start "{\"rate\":$publisher_rate,\"tokenIds\":[\"${publisher_tokens//,/\",\"}\"]}" ||
    fail 1 "the publisher at $publisher_url did not start: check that it runs and that this host can reach it; use PUBLISHER_URL=off if another program publishes"
  $dry_run || echo "$publisher_url" >"$dir/publisher"
}

# Stops only a publisher that a test of this folder started.
stop_publisher() {
  if ! $dry_run; then
    publisher_url=$(cat "$dir/publisher" 2>/dev/null) || return 0
    rm -f "$dir/publisher"
  elif [[ $publisher_url == off ]]; then
    return
  fi
  publisher /stop '{}' || say "the publisher at $publisher_url could not be stopped: curl -X POST $publisher_url/stop"
}

# --- commands --------------------------------------------------------------------------------------------------------------

# recipe CONNECTIONS RAMP DURATION RATE TOKENS
recipe() {
  local name
  for name in TARGET_CONNECTIONS RAMP_RATE DURATION PUBLISHER_RATE PUBLISHER_TOKENS; do
    [[ -z ${!name:-} ]] || fail 64 "$what fixes $name, which is set to ${!name}: unset it, or use custom"
  done
  connections=$1 ramp=$2 duration=$3 publisher_rate=$4 publisher_tokens=$5
}

choose() {
  case $what in
    capacity) recipe 12000 100 30m 100 BTC,ETH,SOL ;;
    capacity:short) recipe 12000 100 5m 100 BTC,ETH,SOL ;;
    stress) recipe 18000 200 30m 100 BTC,ETH,SOL ;;
    stress:heavy) recipe 24000 200 30m 100 BTC,ETH,SOL ;;
    sustained) recipe 1000 50 60m 1000 "$TOKENS_20" ;;
    custom)
      connections=${TARGET_CONNECTIONS:-7000} ramp=${RAMP_RATE:-100} duration=${DURATION:-1800}
      publisher_rate=${PUBLISHER_RATE:-100} publisher_tokens=${PUBLISHER_TOKENS:-BTC,ETH,SOL}
      ;;
  esac
  publisher_url=${PUBLISHER_URL:-http://localhost:3003}
}

hold() {
  local name code=0
  name=$dir/${what/:/-}-$(date -u +%Y%m%dT%H%M%SZ)
  local command=("$bench" sustained --ws-url "${WS_URL:-ws://localhost:3004/ws}" --target-connections "$connections"
    --ramp-rate "$ramp" --duration "$duration" --json "$name.json" "$@")
  if $dry_run; then
    echo "${command[@]@Q}"
    return
  fi
  ulimit -n "$(ulimit -Hn)" 2>/dev/null || true
  say "$what: log and result are $name.log and .json"
  # Run in the foreground, so that Ctrl-C reaches it: it prints a summary, and the publisher is stopped below.
  (
    echo "$BASHPID" >"$dir/pid"
    exec "${command[@]}"
  ) 2>&1 | tee -i "$name.log" || code=${PIPESTATUS[0]}
  rm -f "$dir/pid"
  if ((code == 0)); then say "passed"; else say "FAILED (odin-bench exited with $code): the lines above give the reasons"; fi
  ((code <= 1)) || code=1
  return "$code"
}

run() {
  local code=0
  choose
  find_bench
  if ! $dry_run; then
    mkdir -p "$dir"
    exec 9>"$dir/lock"
    flock -n 9 || fail 1 "a load test runs already: load-test.sh status shows it, load-test.sh stop ends it"
    trap stop_publisher EXIT
    trap : INT TERM
  fi
  start_publisher
  hold "$@" || code=$?
  if $dry_run; then stop_publisher; fi
  return "$code"
}

status() {
  local pid newest
  newest=$(find "$dir" -maxdepth 1 -name '*.json' ! -name publisher.json -printf '%T@ %p\n' 2>/dev/null | sort -rn | head -n 1 | cut -d' ' -f2-)
  [[ -z $newest ]] || echo "last result: $newest ($(grep -o '"passed": *[a-z]*' "$newest" | head -n 1))"
  if pid=$(running); then
    echo "running: pid $pid, for $(ps -o etime= -p "$pid" | tr -d ' ')"
    tail -n 3 "$(find "$dir" -maxdepth 1 -name '*.log' -printf '%T@ %p\n' | sort -rn | head -n 1 | cut -d' ' -f2-)"
  else
    echo "nothing runs"
    return 1
  fi
}

stop() {
  local pid waited=0
  if pid=$(running); then
    kill -INT "$pid"
    while running >/dev/null; do
      ((waited < STOP_SECONDS_MAX)) || fail 1 "odin-bench ($pid) did not end within $STOP_SECONDS_MAX s: kill -INT $pid again ends it at once"
      sleep 1
      waited=$((waited + 1))
    done
    say "ended"
  else
    say "nothing runs"
  fi
  stop_publisher # what a test that was killed has left
}

what=''
[[ ${1:-} != --dry-run ]] || { dry_run=true; shift; }
case ${1:-} in
  capacity | capacity:short | stress | stress:heavy | sustained | custom)
    what=$1
    shift
    [[ ${1:-} != -- ]] || shift
    run "$@"
    ;;
  status | stop) "$1" ;;
  -h | --help | help) usage ;;
  '') usage >&2; exit 64 ;;
  *) usage >&2; fail 64 "unknown recipe or command $1" ;;
esac
