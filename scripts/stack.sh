#!/usr/bin/env bash
# Runs the distributed deployment on this machine, without Docker: Kafka, publisher, gateway and Prometheus. They use the configuration
# files of deployments/gcp/distributed; only addresses are replaced. Clients audit every delivery, and the script queries Prometheus,
# including every query of the dashboards.
#
#   stack.sh                start the stack, run the queries, stop it; exit 1 when an answer is wrong or missing
#   stack.sh COMMAND...     run COMMAND in place of the dashboards' queries, with GATEWAY_URL, PUBLISHER_URL, PROMETHEUS_URL and
#                           KAFKA_BROKERS set; the script fails when COMMAND fails
#   stack.sh --help         print this text
#
# Differences from the hosts: Apache Kafka replaces Redpanda, so Redpanda's metrics are not queried; Prometheus scrapes every second, so
# that a minute is enough; there are 200 clients. The script needs what kafka.sh and promtool.sh need, and odin-gateway, odin-publisher
# and odin-bench in target/release or target/debug. Every process listens on 127.0.0.1, on a free port, and ends with the script. The
# files stay in target/stack. Exit codes: 0 done, 1 failed, 64 wrong usage, 69 not possible here.
set -euo pipefail

readonly CLIENTS=200
readonly EVENTS_PER_SECOND=100
readonly READY_SECONDS_MAX=60
# Rates over 30 s need 30 s of load; the audit takes a few seconds more.
readonly LOAD_SECONDS=45
# Open files that the production limit of 12,000 connections requires.
readonly DESCRIPTORS=12768

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly top
readonly folder=$top/target/stack
readonly backend=$top/deployments/gcp/distributed/backend
readonly ws_server=$top/deployments/gcp/distributed/ws-server

fail() {
  printf 'stack.sh: %s\n' "$2" >&2
  exit "$1"
}

usage() { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; }
case ${1:-} in
  -h | --help | help) usage; exit 0 ;;
  -*) usage >&2; fail 64 "unknown option $1" ;;
esac

# The newest build of a program.
program() {
  local newest
  newest=$(find "$top/target/release/$1" "$top/target/debug/$1" -printf '%T@ %p\n' 2>/dev/null | sort -rn | head -n 1 | cut -d' ' -f2)
  [[ -n $newest ]] || fail 69 "no target/*/$1: cargo build --workspace --bins"
  echo "$newest"
}

free_ports() {
  python3 -c '
import socket, sys
sockets = [socket.socket() for _ in range(int(sys.argv[1]))]
for one in sockets:
    one.bind(("127.0.0.1", 0))
print(*(one.getsockname()[1] for one in sockets))' "$1"
}

await() {
  local url=$1
  for _ in $(seq $((READY_SECONDS_MAX * 5))); do
    curl -sf -o /dev/null "$url" && return
    sleep 0.2
  done
  tail -n 5 "$folder"/*.log >&2
  fail 1 "$url did not answer within $READY_SECONDS_MAX s"
}

pids=()
# shellcheck disable=SC2317 # called by the trap
stop() {
  local status=$?
  trap - EXIT
  # Stop the clients first; otherwise the gateway spreads their closes over its whole drain.
  for ((i = ${#pids[@]} - 1; i >= 0; i--)); do
    { kill "${pids[i]}" && wait "${pids[i]}"; } 2>/dev/null || true
  done
  "$top/scripts/kafka.sh" down --dir "$folder/kafka" >/dev/null 2>&1
  exit "$status"
}

start_kafka() {
  local status=0
  "$top/scripts/kafka.sh" up --port "$1" --dir "$folder/kafka" >"$folder/kafka.log" 2>&1 || status=$?
  ((status == 0)) || fail "$status" "$(tail -n 1 "$folder/kafka.log")"
}

start_publisher() {
  env -i KAFKA_BROKERS="$KAFKA_BROKERS" HOST=127.0.0.1 API_PORT="$1" LOG_FORMAT=json "$(program odin-publisher)" >"$folder/publisher.log" 2>&1 &
  pids+=($!)
  await "$PUBLISHER_URL/health"
  curl -sf -o /dev/null -d "{\"rate\": $EVENTS_PER_SECOND, \"tokenIds\": [\"BTC\", \"ETH\", \"SOL\"]}" "$PUBLISHER_URL/start"
}

start_gateway() {
  (
    ulimit -n "$(ulimit -Hn)"
    set -a
    # shellcheck disable=SC1091 # not a script: lines of NAME=value, as Docker reads them
    . "$ws_server/.env.production"
    export WS_ADDR=127.0.0.1:$1
    exec "$(program odin-gateway)"
  ) >"$folder/gateway.log" 2>&1 &
  pids+=($!)
  await "$GATEWAY_URL/health/ready"
}

start_prometheus() {
  local own=$1 programs=$2
  rm -rf "$folder/prometheus"
  mkdir -p "$folder/prometheus"
  cp -rL "$backend/prometheus.yml" "$backend/prometheus/rules" "$backend/prometheus/targets" "$folder/prometheus"
  sed -i -e "s/odin-ws-go:3004/${GATEWAY_URL#http://}/" -e "s/publisher:3003/${PUBLISHER_URL#http://}/" -e "s/localhost:9090/127.0.0.1:$own/" \
    -e 's/^\(  scrape_interval\|  evaluation_interval\): .*/\1: 1s/' "$folder/prometheus/prometheus.yml" "$folder/prometheus/targets"/*.yml
  "$programs/promtool" check config "$folder/prometheus/prometheus.yml" >"$folder/promtool.log" || fail 1 "$(cat "$folder/promtool.log")"
  "$programs/prometheus" --config.file="$folder/prometheus/prometheus.yml" --storage.tsdb.path="$folder/prometheus/data" \
    --web.listen-address="127.0.0.1:$own" --log.level=warn >"$folder/prometheus.log" 2>&1 &
  pids+=($!)
  await "$PROMETHEUS_URL/-/ready"
}

# ask QUERY: prints the value of the first series, or nothing.
ask() {
  curl -sf --data-urlencode "query=$1" "$PROMETHEUS_URL/api/v1/query" | jq -r '.data.result[0].value[1] // empty'
}

wrong=0
# expect TEXT QUERY: prints ok if the result of QUERY is 1, else WRONG.
expect() {
  local answer
  answer=$(ask "$2")
  if [[ $answer == 1 ]]; then
    echo "ok    $1"
  else
    echo "WRONG $1: $2 is ${answer:-empty}"
    wrong=1
  fi
}

questions() {
  local broken
  for job in gateway publisher prometheus; do
    expect "Prometheus reaches the $job" "min(up{job=\"$job\"})"
  done
  expect "every client is connected" "sum(ws_connections_active) == bool $CLIENTS"
  expect "records arrive" 'sum(rate(ws_kafka_messages_received_total[30s])) > bool 0'
  expect "events are delivered" 'sum(rate(ws_messages_sent_total[30s])) > bool 0'
  expect "nothing is lost" '(sum(ws_gaps_total) or vector(0)) == bool 0'
  broken=$(curl -sf "$PROMETHEUS_URL/api/v1/rules" | jq -r '.data.groups[].rules[] | select(.health != "ok") | "\(.name): \(.lastError)"')
  if [[ -n $broken ]]; then
    echo "WRONG rules: $broken"
    wrong=1
  else
    echo "ok    every rule is evaluated"
  fi
}

for needed in curl jq python3; do
  command -v "$needed" >/dev/null || fail 69 "no $needed here (Debian: apt-get install $needed)"
done
(($(ulimit -Hn) >= DESCRIPTORS)) || fail 69 "ulimit -Hn is $(ulimit -Hn): the production limit of connections needs $DESCRIPTORS"
programs=$("$top/scripts/promtool.sh") || exit
bench=$(program odin-bench)
rm -rf "$folder"
mkdir -p "$folder"
trap stop EXIT
trap 'exit 1' INT TERM

# The controller of kafka.sh listens on port + 10000, so the port must be below 55536.
until read -r kafka_port gateway_port publisher_port prometheus_port < <(free_ports 4) && ((kafka_port < 55000)); do :; done
export KAFKA_BROKERS=127.0.0.1:$kafka_port GATEWAY_URL=http://127.0.0.1:$gateway_port
export PUBLISHER_URL=http://127.0.0.1:$publisher_port PROMETHEUS_URL=http://127.0.0.1:$prometheus_port
start_kafka "$kafka_port"
start_publisher "$publisher_port"
start_gateway "$gateway_port"
start_prometheus "$prometheus_port" "$programs"

"$bench" sustained --ws-url "ws://127.0.0.1:$gateway_port/ws" --target-connections "$CLIENTS" --ramp-rate 100 --duration "$LOAD_SECONDS" \
  >"$folder/clients.log" 2>&1 &
clients=$!
pids+=("$clients")
sleep $((LOAD_SECONDS - 10))
questions
(($# > 0)) || set -- "$top/scripts/dashboard-queries.sh" "$PROMETHEUS_URL"
if "$@"; then
  echo "ok    $(basename "$1")"
else
  echo "WRONG $(basename "$1")"
  wrong=1
fi
if wait "$clients"; then
  echo "ok    every client got every event, once and in order"
else
  echo "WRONG the clients' audit: $(tail -n 5 "$folder/clients.log")"
  wrong=1
fi
exit "$wrong"
