#!/usr/bin/env bash
# Runs a gateway with 12,000 sessions for a minute, audits every delivery, and tests different states of its log.
#
#   twelve-thousand.sh read      the log is a file
#   twelve-thousand.sh unread    the log is a pipe that nobody reads: full before the first session, and never emptied
#   twelve-thousand.sh full      the log is on a full disk (/dev/full)
#   twelve-thousand.sh closed    the log is a pipe whose reader has exited
#
# The gateway logs at LOG_LEVEL=debug, and refused requests cause lines before and during the minute. The deliveries must not be
# affected: odin-bench exits with 1 when one is lost, repeated or out of order. Every line that cannot be written must be counted in
# ws_log_lines_dropped_total; /health/live must answer; on SIGTERM the gateway must exit with 0.
# SESSIONS (12000) and SECONDS_HELD (60) reduce the load. The script uses the existing target/release/odin-gateway and odin-bench
# (ODIN_GATEWAY and ODIN_BENCH name others) and listens on a free port of 127.0.0.1. Files: target/twelve-thousand/LOG, or under TWELVE_THOUSAND_DIR.
# Exit codes: 0 done, 1 failed, 64 wrong usage, 69 not possible on this machine.
set -euo pipefail

readonly READY_SECONDS_MAX=60
readonly DRAIN_SECONDS=1
# The time after WS_DRAIN for clients that do not answer (docs/CONFIG.md), plus two seconds for a busy machine.
readonly END_SECONDS_MAX=$((DRAIN_SECONDS + 7))
# Descriptors of the gateway and the client, in addition to one for each session.
readonly FILES_BESIDE=1600

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly top
readonly gateway=${ODIN_GATEWAY:-$top/target/release/odin-gateway} bench=${ODIN_BENCH:-$top/target/release/odin-bench}
readonly sessions=${SESSIONS:-12000} seconds=${SECONDS_HELD:-60}

fail() {
  printf 'twelve-thousand.sh: %s\n' "$2" >&2
  exit "$1"
}
usage() { sed -n '/^#   twelve-thousand.sh/s/^#   //p' "${BASH_SOURCE[0]}" >&2; }

[[ ${1:-} != --help && ${1:-} != -h ]] || { usage && exit 0; }
[[ $# == 1 && $1 =~ ^(read|unread|full|closed)$ ]] || { usage && exit 64; }
readonly log=$1
readonly folder=${TWELVE_THOUSAND_DIR:-$top/target/twelve-thousand}/$log
for needed in curl jq python3; do
  command -v "$needed" >/dev/null || fail 69 "no $needed here (Debian: apt-get install $needed)"
done
for program in "$gateway" "$bench"; do
  [[ -x $program ]] || fail 69 "no $program: cargo build --release -p gateway -p bench makes it"
done
ulimit -n "$(ulimit -Hn)"
[[ $(ulimit -n) == unlimited ]] || (($(ulimit -n) >= sessions + FILES_BESIDE)) ||
  fail 69 "$(ulimit -Hn) open files are permitted, $((sessions + FILES_BESIDE)) are needed (ulimit -n)"

# ended_in_time PID
ended_in_time() {
  for _ in $(seq $((END_SECONDS_MAX * 10))); do
    kill -0 "$1" 2>/dev/null || return 0
    sleep 0.1
  done
  return 1
}

rm -rf "$folder"
mkdir -p "$folder"
declare -A pids=() # of what runs still: a number that was waited for may be another program's
# shellcheck disable=SC2317 # called by the trap
stop() {
  local status=$?
  trap - EXIT
  for pid in "${pids[@]}"; do
    kill "$pid" 2>/dev/null || continue
    ended_in_time "$pid" || kill -KILL "$pid"
    wait "$pid" 2>/dev/null || true
  done
  if ((status == 1)); then
    tail -n 10 "$folder"/{errors,gateway.log} >&2 2>/dev/null || true
  fi
  exit "$status"
}
trap stop EXIT
trap 'exit 1' INT TERM

# Opens the target of the log. A descriptor that reads and writes opens the pipe first, so that no open waits for the other end.
reader='' writer=''
case $log in
  read) exec {writer}>"$folder/gateway.log" ;;
  full) exec {writer}>/dev/full ;;
  unread | closed)
    mkfifo "$folder/pipe"
    exec {both}<>"$folder/pipe"
    exec {reader}<"$folder/pipe"
    exec {writer}>"$folder/pipe"
    exec {both}>&-
    ;;
esac

port=$(python3 -c 'import socket; one = socket.socket(); one.bind(("127.0.0.1", 0)); print(one.getsockname()[1])')
readonly url=http://127.0.0.1:$port
readonly watch=$top/scripts/twelve-thousand/watch.py

# Start without the reading end; otherwise the reader would never be closed. A Rust program always has standard output open: at the
# start it replaces a closed one with /dev/null.
start_gateway() {
  [[ -z $reader ]] || exec {reader}<&-
  WS_ADDR=127.0.0.1:$port WS_MAX_CONNECTIONS=$sessions WS_DRAIN=${DRAIN_SECONDS}s LOG_LEVEL=debug LOG_FORMAT=json DEV_EVENT_RATE=11 \
    exec "$gateway" --dev >&"$writer" 2>"$folder/errors" {writer}>&-
}
start_gateway &
pids[gateway]=$!
exec {writer}>&-
[[ $log != closed ]] || exec {reader}<&-

for _ in $(seq $((READY_SECONDS_MAX * 5))); do
  curl -sf -m 5 -o /dev/null "$url/health/ready" && ready=true && break
  kill -0 "${pids[gateway]}" 2>/dev/null || break
  sleep 0.2
done
[[ ${ready:-} == true ]] || fail 1 "the gateway did not become ready"

python3 "$watch" fill "$port" "$log" || fail 1 "the log is not in the required state before the sessions start"
python3 "$watch" hold "$port" "$log" "$sessions" "$seconds" >"$folder/hold" 2>&1 &
pids[watch]=$!
# Run in the background, so that a signal to this script also stops it.
"$bench" sustained --ws-url "ws://127.0.0.1:$port/ws" --target-connections "$sessions" --ramp-rate 1000 --channels '*.trade' \
  --duration "$seconds" --json "$folder/sustained.json" &
pids[bench]=$!
audit=0
wait "${pids[bench]}" || audit=$?
unset 'pids[bench]'
kill "${pids[watch]}" 2>/dev/null || true
watched=0
wait "${pids[watch]}" || watched=$?
unset 'pids[watch]'
cat "$folder/hold"
((audit == 0)) || fail 1 "the audit failed: odin-bench's exit code is $audit"
((watched == 0)) || fail 1 "the log did not stay in the required state during the sessions"

curl -sf -m 20 -o /dev/null "$url/health/live" || fail 1 "/health/live does not answer"
dropped=$(python3 "$watch" end "$port" "$log") || fail 1 "the count of dropped lines is wrong"

kill -TERM "${pids[gateway]}"
ended_in_time "${pids[gateway]}" || fail 1 "the gateway did not exit within $END_SECONDS_MAX s of SIGTERM"
ended=0
wait "${pids[gateway]}" || ended=$?
unset 'pids[gateway]'
((ended == 0)) || fail 1 "the gateway exited with code $ended"
jq -r --arg log "$log" --arg dropped "$dropped" \
  '"log \($log): \(.established) sessions, \(.delivered) deliveries, \(.lost) lost, \(.duplicated) twice, \(.reordered) out of order, " +
  "p50 \(.latency_ms.p50) ms, p99 \(.latency_ms.p99) ms, \($dropped) log lines dropped"' "$folder/sustained.json"
