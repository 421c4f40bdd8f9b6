#!/usr/bin/env bats
# load-test.sh: its recipes, and a small run against a gateway and a publisher's API.

setup() {
  root=$(cd "$BATS_TEST_DIRNAME/../.." && pwd)
  load_test=$root/scripts/load-test.sh
  export LOAD_TEST_DIR=$BATS_TEST_TMPDIR/load-test
  unset TARGET_CONNECTIONS RAMP_RATE DURATION WS_URL PUBLISHER_URL PUBLISHER_RATE PUBLISHER_TOKENS
}

teardown() {
  for pid in ${started:-}; do
    kill "$pid" 2>/dev/null || true
    wait "$pid" || true
  done
}

# A program in odin-bench's place: a line of Python is what it does.
fake_bench() {
  export ODIN_BENCH=$BATS_TEST_TMPDIR/odin-bench
  printf '#!/usr/bin/env python3\nimport signal, sys, time\nopen("%s/bench", "w").write(" ".join(sys.argv[1:]))\n%s\n' \
    "$BATS_TEST_TMPDIR" "$1" >"$ODIN_BENCH"
  chmod +x "$ODIN_BENCH"
}

# The publisher's API: every request is a line of the file `publisher`.
start_publisher() {
  python3 -u - "$BATS_TEST_TMPDIR/publisher" <<'PYTHON' >"$BATS_TEST_TMPDIR/port" 3>&- &
import http.server, sys
class Api(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        open(sys.argv[1], "a").write(f"{self.path} {body}\n")
        self.send_response(200); self.end_headers(); self.wfile.write(b"{}")
    def log_message(self, *_): pass
server = http.server.HTTPServer(("127.0.0.1", 0), Api)
print(server.server_port)
server.serve_forever()
PYTHON
  started="${started:-} $!"
  for _ in $(seq 100); do [ -s "$BATS_TEST_TMPDIR/port" ] && break; sleep 0.1; done
  PUBLISHER_URL=http://127.0.0.1:$(cat "$BATS_TEST_TMPDIR/port")
  export PUBLISHER_URL
}

@test "the recipes ask for what they say" {
  while read -r name connections ramp duration rate; do
    run "$load_test" --dry-run "$name"
    [ "$status" = 0 ]
    [[ $output == *"'--target-connections' '$connections' '--ramp-rate' '$ramp' '--duration' '$duration'"* ]]
    [[ $output == *"\"rate\":$rate,"*/start* && $output == */stop* ]]
  done <<'RECIPES'
capacity 12000 100 30m 100
capacity:short 12000 100 5m 100
stress 18000 200 30m 100
stress:heavy 24000 200 30m 100
sustained 1000 50 60m 1000
custom 7000 100 1800 100
RECIPES
}

@test "the publisher's tokens are BTC, ETH and SOL, and twenty for sustained" {
  "$load_test" --dry-run capacity | grep -qF '"tokenIds":["BTC","ETH","SOL"]'
  [ "$("$load_test" --dry-run sustained | grep -o '"tokenIds":[^]]*' | grep -o '"[A-Z]*"' | sort -u | wc -l)" = 20 ]
}

@test "a recipe's numbers are not quietly other ones" {
  TARGET_CONNECTIONS=5 run "$load_test" --dry-run capacity
  [ "$status" = 64 ]
  [[ $output == *"use custom"* ]]
  run env TARGET_CONNECTIONS=5 RAMP_RATE=2 DURATION=3 "$load_test" --dry-run custom
  [[ $output == *"'--target-connections' '5' '--ramp-rate' '2' '--duration' '3'"* ]]
}

@test "the publisher is started before and stopped after, whatever the audit says" {
  start_publisher
  for code in 0 1; do
    : >"$BATS_TEST_TMPDIR/publisher"
    fake_bench "sys.exit($code)"
    run "$load_test" capacity:short
    [ "$status" = "$code" ]
    [ "$(cut -d' ' -f1 "$BATS_TEST_TMPDIR/publisher" | paste -sd' ')" = "/start /stop" ]
  done
}

@test "without a publisher it fails before a session is opened" {
  fake_bench "sys.exit(0)"
  PUBLISHER_URL=http://127.0.0.1:1 run "$load_test" capacity
  [ "$status" = 1 ]
  [[ $output == *"did not start"* ]]
  [ ! -e "$BATS_TEST_TMPDIR/bench" ]
}

@test "status shows what runs, stop ends it with its summary and stops the publisher" {
  start_publisher
  fake_bench 'signal.signal(signal.SIGINT, lambda *_: sys.exit(print("summary") or 1))
time.sleep(60)'
  run "$load_test" status
  [ "$status" = 1 ]
  "$load_test" capacity 3>&- >"$BATS_TEST_TMPDIR/said" 2>&1 &
  test_pid=$!
  for _ in $(seq 100); do [ -s "$BATS_TEST_TMPDIR/bench" ] && break; sleep 0.1; done
  run "$load_test" status
  [ "$status" = 0 ]
  [[ $output == *"running: pid"* ]]
  run "$load_test" capacity # one at a time
  [ "$status" = 1 ]
  [[ $output == *"runs already"* ]]
  "$load_test" stop
  code=0
  wait "$test_pid" || code=$?
  [ "$code" = 1 ]
  grep -q summary "$BATS_TEST_TMPDIR/said"
  [ "$(tail -n 1 "$BATS_TEST_TMPDIR/publisher" | cut -d' ' -f1)" = /stop ]
}

@test "without odin-bench it says what makes it" {
  ODIN_BENCH=$BATS_TEST_TMPDIR/absent run "$load_test" capacity
  [ "$status" = 69 ]
  [[ $output == *"cargo build --release -p bench"* ]]
}

@test "a real gateway, forty sessions for two seconds: everything is delivered, and the audit is the exit code" {
  programs=$root/target/release
  [ -x "$programs/odin-gateway" ] && [ -x "$programs/odin-bench" ] || programs=$root/target/debug
  [ -x "$programs/odin-gateway" ] && [ -x "$programs/odin-bench" ] || skip "no odin-gateway and odin-bench in target: cargo build -p gateway -p bench"
  gateway_log=$BATS_TEST_TMPDIR/gateway
  WS_ADDR=127.0.0.1:0 WS_SHARDS=1 DEV_EVENT_RATE=100 "$programs/odin-gateway" --dev >"$gateway_log" 2>&1 3>&- &
  started="${started:-} $!"
  for _ in $(seq 150); do
    url=$(grep -oE 'ws://[0-9.:a-z]+/ws' "$gateway_log" | head -n 1) || true
    ready=${url/#ws/http}
    [ -n "$url" ] && curl -sf -o /dev/null "${ready%/ws}/health/ready" && break
    sleep 0.2
  done
  [ -n "$url" ] || { cat "$gateway_log"; false; }
  export ODIN_BENCH=$programs/odin-bench WS_URL=$url PUBLISHER_URL=off TARGET_CONNECTIONS=40 RAMP_RATE=100 DURATION=2
  run "$load_test" custom --channels '*.trade'
  echo "$output"
  [ "$status" = 0 ]
  run "$load_test" status
  [[ $output == *'"passed": true'* ]]
  # A channel that nobody publishes: nothing is delivered, and that is no success.
  run "$load_test" custom --channels 'NOBODY.trade'
  [ "$status" = 1 ]
}
