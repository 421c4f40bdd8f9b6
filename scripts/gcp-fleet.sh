#!/usr/bin/env bash
# Shows and controls the services on the instances. gcp-provision.sh creates the instances, gcp-deploy.sh deploys the services.
#
#   gcp-fleet.sh [--dry-run] ps|start|stop|restart|logs [backend|ws|all]    run docker compose there; stop drains the gateways
#   gcp-fleet.sh [--dry-run] health [backend|ws|all]     200 from each, or exit 1
#   gcp-fleet.sh [--dry-run] verify                      health, a WebSocket handshake with each gateway, and the publisher
#   gcp-fleet.sh [--dry-run] stats                       resource use of the containers and counters of the gateways
#   gcp-fleet.sh [--dry-run] urls
#   gcp-fleet.sh [--dry-run] ssh backend|ws|loadtest
#   gcp-fleet.sh [--dry-run] publisher start|stop|status    start at PUBLISHER_RATE (100) events/s of PUBLISHER_TOKENS (BTC,ETH,SOL)
#   gcp-fleet.sh [--dry-run] load-test capacity|capacity:short|stress|stress:heavy|sustained|custom|status|stop|logs    on odin-loadtest
#
# Names and ports: scripts/gcp.env; set GCP_PROJECT. Exit codes: 0 done, 1 failed, 64 wrong usage, 69 no gcloud.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/gcp/commands.sh
. scripts/gcp/commands.sh
settings scripts/gcp.env

readonly CURRENT=/opt/odin/current
readonly SECONDS_MAX=10 # of one answer

heading() { $dry_run || echo "== $1"; }

# hosts WHAT: lines of ROLE NAME.
hosts() {
  local name
  [[ $1 == ws ]] || echo "backend $BACKEND_INSTANCE"
  [[ $1 == backend ]] || for name in $(ws_instances); do echo "ws-server $name"; done
}

# Use the real folder, not the link: with another path Compose would see other mounts and recreate the containers.
compose() {
  local action=$1 role name
  while read -r role name <&4; do
    heading "$name"
    remote "$name" "cd -P $CURRENT/deployments/gcp/distributed/$role && sudo docker compose $action"
  done 4< <(hosts "$2")
}

ask() { run curl -fsS -m "$SECONDS_MAX" "$@"; }

health() {
  local role name port code=0
  while read -r role name <&4; do
    find_address "$name" external
    port=$GCP_WS_PORT
    [[ $role == ws-server ]] || port=$GCP_PUBLISHER_PORT
    heading "$name"
    ask "http://$address:$port/health" || code=1
    echo
  done 4< <(hosts "$1")
  ((code == 0)) || fail 1 "not every host is healthy; a backend answers only to OPERATOR_RANGES"
}

# A handshake as in a browser. The connection stays open, so the timeout of curl is not a failure.
handshake() {
  local status
  local command=(curl -sS -m 3 -o /dev/null -w '%{http_code}' -H 'Connection: Upgrade' -H 'Upgrade: websocket'
    -H 'Sec-WebSocket-Version: 13' -H 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==' "http://$1:$GCP_WS_PORT/ws")
  if $dry_run; then
    run "${command[@]}"
    return
  fi
  status=$("${command[@]}" 2>/dev/null) || true
  [[ $status == 101 ]] || fail 1 "ws://$1:$GCP_WS_PORT/ws answered $status instead of 101"
  echo "ws://$1:$GCP_WS_PORT/ws accepts WebSockets"
}

verify() {
  local name
  health all
  for name in $(ws_instances); do
    find_address "$name" external
    handshake "$address"
  done
}

stats() {
  local role name
  while read -r role name <&4; do
    heading "$name"
    remote "$name" "sudo docker stats --no-stream"
    [[ $role != ws-server ]] || remote "$name" \
      "curl -fsS http://127.0.0.1:$GCP_WS_PORT/metrics | grep -E '^ws_(connections_active|messages_sent_total|kafka_messages_received_total|disconnects_total|capacity_rejections_total|gaps_total|cpu_usage_percent|memory_bytes)'"
  done 4< <(hosts all)
}

urls() {
  local name
  for name in $(ws_instances); do
    find_address "$name" external
    echo "WebSocket   ws://$address:$GCP_WS_PORT/ws"
    echo "Health      http://$address:$GCP_WS_PORT/health"
    echo "Metrics     http://$address:$GCP_WS_PORT/metrics"
  done
  find_address "$BACKEND_INSTANCE" external
  echo "Grafana     http://$address:$GCP_GRAFANA_PORT"
  echo "Console     http://$address:$GCP_CONSOLE_PORT"
  echo "Publisher   http://$address:$GCP_PUBLISHER_PORT/status"
  echo "Prometheus  ssh -L 9091:127.0.0.1:9091 to $BACKEND_INSTANCE, then http://localhost:9091"
}

publisher() {
  local tokens=${PUBLISHER_TOKENS:-BTC,ETH,SOL} url
  find_address "$BACKEND_INSTANCE" external
  url=http://$address:$GCP_PUBLISHER_PORT
  case $1 in
    start) ask -H 'content-type: application/json' -d "{\"rate\":${PUBLISHER_RATE:-100},\"tokenIds\":[\"${tokens//,/\",\"}\"]}" "$url/start" ;;
    stop) ask -X POST "$url/stop" ;;
    status) ask "$url/status" ;;
    *) fail 64 "publisher needs start, stop or status" ;;
  esac
  echo
}

# Runs as a systemd unit there, so that it survives a lost ssh connection. Uses the hosts' internal addresses.
load_test() {
  local environment='' name ws backend
  case $1 in
    status | stop) remote "$LOADTEST_INSTANCE" "cd $CURRENT && sudo scripts/load-test.sh $1"; return ;;
    logs) remote "$LOADTEST_INSTANCE" "sudo journalctl -f -n 100 -u odin-load-test"; return ;;
    capacity | capacity:short | stress | stress:heavy | sustained | custom) ;;
    *) fail 64 "load-test has no recipe or command $1" ;;
  esac
  find_address "$(ws_instances | head -n 1)" internal
  ws=$address
  find_address "$BACKEND_INSTANCE" internal
  backend=$address
  for name in TARGET_CONNECTIONS RAMP_RATE DURATION PUBLISHER_RATE PUBLISHER_TOKENS CHANNELS SUBSCRIPTION_MODE CHANNELS_PER_CLIENT; do
    [[ -z ${!name:-} ]] || environment+=" $(quoted "--setenv=$name=${!name}")"
  done
  remote "$LOADTEST_INSTANCE" "sudo journalctl -f -n 0 -o cat -u odin-load-test & follower=\$!
sudo systemd-run --wait --collect --unit=odin-load-test --working-directory=$CURRENT -p LimitNOFILE=1048576 \
--setenv=WS_URL=ws://$ws:$GCP_WS_PORT/ws --setenv=PUBLISHER_URL=http://$backend:$GCP_PUBLISHER_PORT$environment $CURRENT/scripts/load-test.sh $1
code=\$?; sleep 1; sudo kill \$follower; exit \$code"
}

[[ ${1:-} != --dry-run ]] || { dry_run=true; shift; }
action=${1:-} what=${2:-all}
case $action in
  ps | start | stop | restart | logs | health)
    [[ $what == backend || $what == ws || $what == all ]] || fail 64 "$action needs backend, ws or all"
    need_gcloud
    case $action in
      health) health "$what" ;;
      ps) compose "ps --all" "$what" ;;
      start) compose "up -d" "$what" ;;
      logs) compose "logs --tail 100" "$what" ;;
      *) compose "$action" "$what" ;;
    esac
    ;;
  verify | stats | urls) need_gcloud; "$action" ;;
  publisher) need_gcloud; publisher "${2:-}" ;;
  load-test) need_gcloud; load_test "${2:-}" ;;
  ssh)
    need_gcloud
    case $what in
      backend) name=$BACKEND_INSTANCE ;;
      ws) name=$(ws_instances | head -n 1) ;;
      loadtest) name=$LOADTEST_INSTANCE ;;
      *) fail 64 "ssh needs backend, ws or loadtest" ;;
    esac
    read -ra flags <<<"$GCP_SSH_FLAGS"
    run gcloud compute ssh "$name" --project="$GCP_PROJECT" --zone="$GCP_ZONE" "${flags[@]}"
    ;;
  -h | --help | help) usage "${BASH_SOURCE[0]}" ;;
  *) usage "${BASH_SOURCE[0]}" >&2; exit 64 ;;
esac
