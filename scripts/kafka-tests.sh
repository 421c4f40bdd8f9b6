#!/usr/bin/env bash
# Runs the gateway's tests against a real Apache Kafka: starts the brokers, tests, and always stops the brokers. Minutes, two cores.
#
#   kafka-tests.sh [--port 21092] [--nodes 1|3] [NAME...]    with names, only the tests whose path contains one of them
#
# First with one node, then with three for the tests that need them; --nodes selects one of the two. Names select among the tests of one
# node unless --nodes is 3. The script uses its own ports (the controllers, 10000 above, stay below the range that Linux assigns to
# clients), with data under target/kafka-tests.
# Exit codes: 0 passed, 1 failed, 64 wrong usage, 69 not possible on this machine: one line that begins with `skipped:` says why.
set -euo pipefail

readonly THREE_NODES=(recovery::one_of_three churn::on_three_nodes) # the tests that need them

scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly scripts
readonly root=$scripts/..
readonly dir=$root/target/kafka-tests

usage() { sed -n '/^#   kafka-tests.sh/s/^#   //p' "${BASH_SOURCE[0]}" >&2; }

port=21092 nodes=''
while [[ ${1:-} == -* ]]; do
  case $1 in
    --port) port=${2:?--port needs a number}; shift 2 ;;
    --nodes) nodes=${2:?--nodes needs a number}; [[ $nodes == [13] ]] || { usage; exit 64; }; shift 2 ;;
    *) usage; [[ $1 == --help || $1 == -h ]] && exit 0; exit 64 ;;
  esac
done
names=("$@")

# One run at a time, because the tests kill brokers. Child processes do not hold the lock.
mkdir -p "$dir"
exec 8>"$dir.lock" # not the folder, which kafka.sh locks
flock -n 8 || { echo "another kafka-tests.sh runs; waiting for its end" >&2; flock -w 1200 8; }

down() { "$scripts/kafka.sh" down --dir "$dir" >/dev/null 2>&1 8>&- || true; }
trap down EXIT
trap 'exit 130' INT TERM

# up NODES: sets brokers. Exits if Kafka cannot run here.
up() {
  local said code=0
  brokers=$("$scripts/kafka.sh" up --nodes "$1" --port "$port" --dir "$dir" 2>"$dir/up.log" 8>&-) || code=$?
  said=$(cat "$dir/up.log")
  case $code in
    0) brokers=${brokers#KAFKA_BROKERS=} ;;
    69) echo "skipped: ${said#kafka.sh: }"; exit 69 ;;
    *) echo "$said" >&2; exit 1 ;;
  esac
}

# tests ARGUMENT...: passes the arguments to the test program. Also prints the measurements of passed tests.
tests() {
  (cd "$root" && ODIN_KAFKA_DIR=$dir KAFKA_BROKERS=$brokers \
    cargo test --release -p gateway --test kafka -- --ignored --test-threads=1 --show-output "$@" 8>&-)
}

down # what a run that was killed may have left
if [[ $nodes != 3 ]]; then
  up 1
  tests "${names[@]}" "${THREE_NODES[@]/#/--skip=}"
  down
fi
if [[ $nodes == 3 || -z $nodes && ${#names[@]} == 0 ]]; then
  up 3
  ((${#names[@]} > 0)) || names=("${THREE_NODES[@]}")
  tests "${names[@]}"
fi
