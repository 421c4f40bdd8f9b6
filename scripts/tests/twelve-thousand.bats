#!/usr/bin/env bats
# twelve-thousand.sh: that it finds the faults that it is there for, and a small run of a real gateway.

setup() {
  root=$(cd "$BATS_TEST_DIRNAME/../.." && pwd)
  twelve_thousand=$root/scripts/twelve-thousand.sh
  export SESSIONS=40 SECONDS_HELD=8 TWELVE_THOUSAND_DIR=$BATS_TEST_TMPDIR/run ENDED=$BATS_TEST_TMPDIR/ended
  unset ODIN_GATEWAY ODIN_BENCH FAULT
}

# fake_bench SECONDS CODE: a program in odin-bench's place, which finds nothing wrong but by its exit code.
fake_bench() {
  export ODIN_BENCH=$BATS_TEST_TMPDIR/odin-bench
  cat >"$ODIN_BENCH" <<BENCH
#!/usr/bin/env bash
sleep $1
touch "\$ENDED"
while [ "\$1" != --json ]; do shift; done
echo '{"established":40,"delivered":1,"lost":0,"duplicated":0,"reordered":0,"latency_ms":{"p50":1,"p99":2}}' >"\$2"
exit $2
BENCH
  chmod +x "$ODIN_BENCH"
}

fake_gateway() { export ODIN_GATEWAY=$root/scripts/tests/fake_gateway.py; }

real_programs() {
  local programs
  for programs in "$root"/target/{release,debug}; do
    export ODIN_GATEWAY=$programs/odin-gateway ODIN_BENCH=$programs/odin-bench
    if [ -x "$ODIN_GATEWAY" ] && [ -x "$ODIN_BENCH" ]; then return; fi
  done
  skip "no odin-gateway and odin-bench in target: cargo build -p gateway -p bench"
}

# fails_saying TEXT COMMAND...
fails_saying() {
  run "${@:2}"
  echo "$output"
  [ "$status" = 1 ]
  [[ $output == *"$1"* ]]
}

@test "what becomes of the log has to be said" {
  for arguments in '' lost 'full closed'; do
    # shellcheck disable=SC2086 # as many as there are
    run "$twelve_thousand" $arguments
    [ "$status" = 64 ]
    [[ $output == *"twelve-thousand.sh unread"* ]]
  done
}

@test "without a gateway it says what makes it" {
  ODIN_GATEWAY=$BATS_TEST_TMPDIR/absent run "$twelve_thousand" full
  [ "$status" = 69 ]
  [[ $output == *"cargo build --release -p gateway -p bench"* ]]
}

@test "a gateway that counts every lost line and ends when told passes" {
  fake_gateway
  fake_bench 6 0
  run "$twelve_thousand" full
  echo "$output"
  [ "$status" = 0 ]
  [[ $output == *"log full: 40 sessions, 1 deliveries, 0 lost"*"log lines dropped"* ]]
}

@test "a line that is lost and not counted fails it" {
  fake_gateway
  fake_bench 0 0
  FAULT=uncounted fails_saying "of 8000 lines 0 count as dropped" "$twelve_thousand" closed
}

@test "a line that is counted although the log is read fails it" {
  fake_gateway
  fake_bench 0 0
  fails_saying "of 8000 lines 8000 count as dropped: none is dropped" "$twelve_thousand" read
}

@test "a gateway that does not end when told fails it, and is gone" {
  fake_gateway
  fake_bench 6 0
  FAULT=stuck fails_saying "did not exit within" "$twelve_thousand" full
  run kill -0 "$(head -n 1 "$TWELVE_THOUSAND_DIR/full/errors")"
  [ "$status" = 1 ]
}

@test "a delivery that is lost fails it" {
  fake_gateway
  fake_bench 0 1
  fails_saying "the audit failed" "$twelve_thousand" full
}

@test "a real gateway, forty sessions: the log is full, closed, and nothing else is wrong" {
  real_programs
  for log in full closed; do
    run "$twelve_thousand" "$log"
    echo "$output"
    [ "$status" = 0 ]
    [[ $output == *"log $log: 40 sessions"*" 0 lost, 0 twice, 0 out of order"* ]]
  done
}
