#!/usr/bin/env bash
# Fetches Centrifugo, or runs it as `odin-bench compare` does: on one CPU, reading odin.trades.
#
#   bench/peers/centrifugo.sh fetch                    prints the program's path
#   bench/peers/centrifugo.sh run CPU BROKERS [PORT]   ws://127.0.0.1:PORT/connection/websocket
#
# CENTRIFUGO=PATH takes a program that is there already; CENTRIFUGO_VERSION another release.
#
# How it is set up, and why (centrifugo.json.template):
# - It reads the same Kafka topic as the gateway, by its own consumer in `publication_data_mode`: records stay as they are
#   and a header names the channel. Its publish API would cost it an HTTP request per event on the same core.
# - No history, no recovery, no presence, no compression, no tokens: each would only cost it.
# - Its write delay and batching options stay at their defaults: it sends at once, and several publications in one message
#   when they are waiting.
# - Pings each 27 s, as the gateway's. `queue_max_size` 16 MiB per client (its default is 1 MiB) and `write_timeout` 30 s
#   (1 s), so that a burst is late rather than a disconnect.
# - GOMAXPROCS=1: the Go scheduler for one core, as it is pinned to one.
set -euo pipefail

usage() {
  sed -n '4,5p' "$0" | sed 's/^# *//' >&2
  exit 2
}

here=$(cd "$(dirname "$0")" && pwd)
version=${CENTRIFUGO_VERSION:-v6.2.3}
folder=${CARGO_TARGET_DIR:-$here/../../target}/centrifugo-$version

fetch() {
  if [[ -n ${CENTRIFUGO:-} ]]; then
    [[ -x $CENTRIFUGO ]] || { echo "CENTRIFUGO=$CENTRIFUGO is no program" >&2; exit 1; }
    echo "$CENTRIFUGO"
    return
  fi
  if [[ ! -x $folder/centrifugo ]]; then
    command -v go >/dev/null || {
      echo "Go is not installed: install it, or set CENTRIFUGO to the path of a Centrifugo v6" >&2
      exit 1
    }
    mkdir -p "$folder"
    # The program's own go.mod is what counts, not one above this folder.
    (cd "$folder" && GOBIN=$(pwd) GOFLAGS=-mod=mod go install "github.com/centrifugal/centrifugo/v6@$version" >&2) || {
      echo "Centrifugo $version cannot be fetched: set CENTRIFUGO to the path of a Centrifugo v6, or CENTRIFUGO_VERSION" >&2
      exit 1
    }
  fi
  echo "$folder/centrifugo"
}

run() {
  local cpu=$1 brokers=$2 port=${3:-3101} program list config
  [[ $cpu =~ ^[0-9]+$ && $port =~ ^[0-9]+$ ]] || usage
  program=$(fetch)
  list="[\"${brokers//,/\",\"}\"]"
  mkdir -p "$folder"
  config=$folder/configuration-$port.json
  sed -e "s/@PORT@/$port/" -e "s/@BROKERS@/$list/" -e "s/@FETCH_MAX_WAIT@/500ms/" \
    "$here/centrifugo.json.template" >"$config"
  ulimit -Sn "$(ulimit -Hn)"
  GOMAXPROCS=1 exec taskset --cpu-list "$cpu" "$program" --config "$config"
}

case ${1:-} in
  fetch) fetch ;;
  run) [[ $# -ge 3 ]] || usage; run "${@:2}" ;;
  *) usage ;;
esac
