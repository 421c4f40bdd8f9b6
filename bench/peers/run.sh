#!/usr/bin/env bash
# Builds a peer whose sources are here and runs it on one CPU, all its threads.
#
#   bench/peers/run.sh tokio-tungstenite|fastwebsockets|gorilla CPU --brokers HOST:PORT [--listen IP:PORT] ...
set -euo pipefail

usage() {
  sed -n '4p' "$0" | sed 's/^# *//' >&2
  exit 2
}

[[ $# -ge 2 ]] || usage
name=$1
cpu=$2
shift 2
[[ $name == tokio-tungstenite || $name == fastwebsockets || $name == gorilla ]] || usage
[[ $cpu =~ ^[0-9]+$ ]] || usage

cd "$(dirname "$0")/../.."
if [[ $name == gorilla ]]; then
  command -v go >/dev/null || {
    echo "Go is not installed: install Go 1.26 or newer (https://go.dev/dl)" >&2
    exit 1
  }
  program=target/peers/peer-$name
  go build -C "bench/peers/$name" -buildvcs=false -o "$PWD/$program" .
  # Go's scheduler for one core, as it is pinned to one.
  export GOMAXPROCS=1
else
  program=${CARGO_TARGET_DIR:-target}/release/peer-$name
  cargo build --release --quiet --package peers --bin "peer-$name"
fi
# As many descriptors as this shell may have: one per connection.
ulimit -Sn "$(ulimit -Hn)"
exec taskset --cpu-list "$cpu" "$program" "$@"
