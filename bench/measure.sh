#!/usr/bin/env bash
# Measures every scenario, and every peer on the same work, and keeps what came of it: JSON, a page with plots and the table.
#
#   bench/measure.sh [DIR]     default: bench/runs/<date>-<cpus>core-<vm or metal>
#
# Takes about an hour on a machine where nothing else should run. Needs two CPUs (the servers get the last one, everything else
# the first), `ulimit -Hn` of 20,000, a JDK with Maven for the real Kafka (scripts/kafka.sh), Go for the peer gorilla. What this
# machine has not got is left out, and said. ONLY=NAME runs the one run of that name.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

kind=$(grep -qw hypervisor /proc/cpuinfo && echo vm || echo metal)
out=${1:-bench/runs/$(date +%F)-$(nproc)core-$kind}
bench=target/release/odin-bench
kafka_port=${KAFKA_PORT:-29092}
mkdir -p "$out"
ulimit -n "$(ulimit -Hn)"

cargo build --release -p gateway -p bench -p peers || exit 1
cargo build --release -p wire --example ceiling || exit 1

# run NAME ARGUMENTS...: one run of odin-bench; its table stands beside its JSON and its page.
run() {
  local name=$1 status
  shift
  [ -n "${ONLY:-}" ] && [ "$ONLY" != "$name" ] && return
  printf '\n--- %s: odin-bench %s\n' "$name" "$*"
  "$bench" "$@" --json "$out/$name.json" --html "$out/$name.html" >"$out/$name.txt" 2>"$out/$name.log"
  status=$?
  case $status in
    0) rm -f "$out/$name.log" ;;
    *) echo "exit $status:" && tail -n 5 "$out/$name.log" ;;
  esac
  cat "$out/$name.txt"
}

# A real Kafka where it can be had: what comes from the hosted broker's polling is gone, and every peer gets on with it.
kafka=()
if brokers=$(taskset -c 0 scripts/kafka.sh up --port "$kafka_port" --dir target/measure-kafka | sed -n 's/^KAFKA_BROKERS=//p') &&
  [ -n "$brokers" ]; then
  trap 'scripts/kafka.sh down --dir target/measure-kafka' EXIT
  kafka=(--brokers "$brokers")
else
  echo "no real Kafka here: everything runs on the hosted one"
fi

size=(--connections 12000 --payload 256)
run fanout-25 fanout "${size[@]}" --rate 25 --duration 20
run fanout-250 fanout "${size[@]}" --rate 250 --duration 20
run capacity capacity "${size[@]}" --duration 8
run filtered filtered "${size[@]}" --rate 1 --duration 20 "${kafka[@]}"
run idle idle --connections 19000 --duration 60
run storm storm --connections 12000 --staying 1000 --rate 5 --storms 5
run stall-disconnect stall --connections 5000 --rate 25 --stalled 10 --stall 20s --rounds 5
run stall-conflate stall --connections 5000 --rate 25 --stalled 10 --stall 20s --rounds 5 --slow-consumer conflate
# Slowly, so that what is let in before the first refusal takes the CPU not over the threshold of a pause as well.
run overload overload --connections 12000 --rate 50 --ramp-rate 50 --rounds 5
run overload-none overload --connections 12000 --rate 25 --ramp-rate 200 --expect none --flush-window-max 200ms
run resume-history resume --events 10000 --repeats 50
run drain drain --connections 12000 --drain 10s --rate 2
# The hosted broker keeps too little of a partition.
if [ ${#kafka[@]} -gt 0 ]; then run resume-kafka resume --from kafka --cursors 1000 "${kafka[@]}"; fi
run compare-ceiling-5 compare --peer ceiling "${size[@]}" --rate 5 --duration 10 --rounds 5 --env WS_FLUSH_WINDOW_MAX=0ms "${kafka[@]}"
for peer in tokio-tungstenite fastwebsockets gorilla centrifugo; do
  run "compare-$peer-5" compare --peer "$peer" "${size[@]}" --rate 5 --duration 10 "${kafka[@]}"
  run "compare-$peer-25" compare --peer "$peer" "${size[@]}" --rate 25 --duration 10 --rounds 2 "${kafka[@]}"
  run "compare-$peer-filtered" compare --peer "$peer" --scenario filtered "${size[@]}" --rate 1 --duration 10 --rounds 1 "${kafka[@]}"
  run "compare-$peer-idle" compare --peer "$peer" --scenario idle --connections 12000 --duration 30 --rounds 1
  run "compare-$peer-storm" compare --peer "$peer" --scenario storm --connections 12000 --rounds 1
done
printf '\nIn %s. Add a README.md that says what the machine was doing.\n' "$out"
