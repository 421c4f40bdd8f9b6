#!/usr/bin/env bash
# Tests that the dashboards show data: runs a gateway and a publisher under load, a real Prometheus that scrapes both, and every query of
# the dashboards and the recording rules. Then runs the tests of the rules.
#
#   observability-test.sh     about a minute
#
# The gateway's --dev mode hosts the Kafka cluster. The script uses odin-gateway, odin-publisher and odin-bench from target/release or
# target/debug, whichever are newer, and the installed Prometheus, or Debian's package, unpacked by promtool.sh. Every process listens on
# 127.0.0.1, on a free port, and ends with the script; logs and data stay in target/observability-test.
# Exit codes: 0 done, 1 failed, 64 wrong usage, 69 not possible on this machine: the last line says why.
set -euo pipefail

readonly CLIENTS=100
readonly EVENTS_PER_SECOND=300
# Rates of the recording rules have a window of a minute, in which some scrapes are enough.
readonly SCRAPED_SECONDS=35
readonly START_SECONDS_MAX=60

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly root
readonly folder=$root/target/observability-test
readonly rules=$root/deployments/local/prometheus

fail() {
  printf 'observability-test.sh: %s\n' "$2" >&2
  exit "$1"
}
if (($#)); then
  sed -n '/^#   observability-test.sh/s/^#   //p' "${BASH_SOURCE[0]}" >&2
  [[ $1 == --help || $1 == -h || $1 == help ]] && exit 0
  exit 64
fi
for program in curl jq; do
  command -v "$program" >/dev/null || fail 69 "no $program here (Debian: apt-get install $program)"
done

# program NAME: prints the path of its newest build.
program() {
  local newest
  # shellcheck disable=SC2012 # names of ours
  newest=$(ls -t "$root/target/release/$1" "$root/target/debug/$1" 2>/dev/null | head -n 1)
  [[ -n $newest ]] || fail 69 "no target/*/$1: cargo build --workspace --bins"
  echo "$newest"
}

pids=()
# shellcheck disable=SC2317 # called by the trap
stop() {
  local status=$?
  trap - EXIT
  # Stop the clients first, so that the gateway has no sessions to drain.
  for ((i = ${#pids[@]} - 1; i >= 0; i--)); do
    kill "${pids[i]}" 2>/dev/null || true
    wait "${pids[i]}" 2>/dev/null || true
  done
  exit "$status"
}
trap stop EXIT
trap 'exit 130' INT TERM

# until_some COMMAND...: repeats COMMAND until it prints something, and prints that.
until_some() {
  local said
  for _ in $(seq $((START_SECONDS_MAX * 5))); do
    said=$("$@" 2>/dev/null) || true
    [[ -z $said ]] || { echo "$said"; return; }
    sleep 0.2
  done
  tail -n 5 "$folder"/*.log >&2
  fail 1 "no output within $START_SECONDS_MAX s from: $*"
}

# logged_address MESSAGE FILE: prints the listen address from the log line with MESSAGE.
logged_address() { jq -rR "fromjson? | select(.message == \"$1\") | .address" "$2"; }
ready() { curl -sf "$1"; }

gateway_program=$(program odin-gateway)
publisher_program=$(program odin-publisher)
bench_program=$(program odin-bench)
prometheus_programs=$("$root/scripts/promtool.sh") || fail 69 "no promtool here, and Debian's package prometheus could not be fetched"

"$prometheus_programs/promtool" check rules "$rules"/rules/*.yml
"$prometheus_programs/promtool" test rules "$rules"/tests/*.yml
[[ ! -f $root/deployments/local/prometheus.yml ]] ||
  "$prometheus_programs/promtool" check config "$root/deployments/local/prometheus.yml"

rm -rf "$folder"
mkdir -p "$folder"
# Set every value whose metric is absent when unknown, and switch on every limit, with high values.
env -i WS_ADDR=127.0.0.1:0 WS_SHARDS=2 WS_PINNING=off WS_CPU_LIMIT=2 WS_MEMORY_LIMIT=1GiB WS_MAX_CONNECTIONS=1000 LOG_FORMAT=json \
  DEV_EVENT_RATE=0 CONN_RATE_LIMIT_ENABLED=true CONN_RATE_LIMIT_IP_BURST=1000 CONN_RATE_LIMIT_IP_RATE=1000 \
  CONN_RATE_LIMIT_GLOBAL_BURST=1000 CONN_RATE_LIMIT_GLOBAL_RATE=1000 "$gateway_program" --dev >"$folder/gateway.log" 2>&1 &
pids+=($!)
gateway=$(until_some logged_address serving "$folder/gateway.log")
until_some ready "http://$gateway/health/ready" >/dev/null
brokers=$(curl -sf "http://$gateway/health" | jq -r .dev.brokers)

env -i KAFKA_BROKERS="$brokers" HOST=127.0.0.1 API_PORT=0 LOG_FORMAT=json "$publisher_program" >"$folder/publisher.log" 2>&1 &
pids+=($!)
publisher=$(until_some logged_address listening "$folder/publisher.log")
until_some ready "http://$publisher/health" >/dev/null
curl -sf -o /dev/null -d "{\"rate\": $EVENTS_PER_SECOND, \"tokenIds\": [\"BTC\", \"ETH\", \"SOL\"]}" "http://$publisher/start"

"$bench_program" sustained --ws-url "ws://$gateway/ws" --target-connections "$CLIENTS" --ramp-rate "$CLIENTS" \
  --channels '*.trade,*.analytics' --duration $((SCRAPED_SECONDS * 2)) >"$folder/bench.log" 2>&1 &
pids+=($!)

cat >"$folder/prometheus.yml" <<CONFIG
global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}
rule_files: ["$rules/rules/*.yml"]
scrape_configs:
  - {job_name: gateway, static_configs: [{targets: ["$gateway"]}]}
  - {job_name: publisher, static_configs: [{targets: ["$publisher"]}]}
CONFIG
"$prometheus_programs/promtool" check config "$folder/prometheus.yml"
"$prometheus_programs/prometheus" --config.file="$folder/prometheus.yml" --storage.tsdb.path="$folder/data" --log.format=json \
  --web.listen-address=127.0.0.1:0 >"$folder/prometheus.log" 2>&1 &
pids+=($!)
prometheus=$(until_some jq -rR 'fromjson? | select(.msg == "Listening on") | .address' "$folder/prometheus.log")
until_some ready "http://$prometheus/-/ready" >/dev/null

sleep "$SCRAPED_SECONDS"
for pid in "${pids[@]}"; do
  kill -0 "$pid" 2>/dev/null || { tail -n 5 "$folder"/*.log >&2; fail 1 "a program ended early"; }
done
"$root/scripts/dashboard-queries.sh" "http://$prometheus"
