#!/usr/bin/env bash
# Builds a Rust peer and runs it on one CPU, all its threads.
#
#   bench/peers/run.sh tokio-tungstenite|fastwebsockets CPU --brokers HOST:PORT [--listen IP:PORT] ...
set -euo pipefail

usage() {
  sed -n '4p' "$0" | sed 's/^# *//' >&2
  exit 2
}

[[ $# -ge 2 ]] || usage
name=$1
cpu=$2
shift 2
[[ $name == tokio-tungstenite || $name == fastwebsockets ]] || usage
[[ $cpu =~ ^[0-9]+$ ]] || usage

cd "$(dirname "$0")/../.."
cargo build --release --quiet --package peers --bin "peer-$name"
# As many descriptors as this shell may have: one per connection.
ulimit -Sn "$(ulimit -Hn)"
exec taskset --cpu-list "$cpu" "${CARGO_TARGET_DIR:-target}/release/peer-$name" "$@"
