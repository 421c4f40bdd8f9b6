#!/usr/bin/env bats
# The units for hosts without Docker: what systemd makes of them, and that the gateway works within them.
# shellcheck disable=SC2016,SC2030,SC2031 # what runs inside is expanded there; bats runs each test in a shell of its own

bats_require_minimum_version 1.5.0

readonly EXPOSURE_MAX=15 # tenths; 14 when it was written: what is left is the network and pinning

setup() {
  top=$(cd "$BATS_TEST_DIRNAME/../.." && pwd)
  folder=$top/deployments/systemd
  unit=$folder/odin-gateway.service
  command -v systemd-analyze >/dev/null || skip "no systemd-analyze here (Debian: apt-get install systemd)"
}

# with_program PROGRAM: the unit with a program that is there, for systemd to look at.
with_program() {
  sed "s|^ExecStart=[^ ]*|ExecStart=$1|" "$2" >"$BATS_TEST_TMPDIR/${2##*/}"
  echo "$BATS_TEST_TMPDIR/${2##*/}"
}

# Sets $binary. Not in a subshell: a skip there would skip nothing.
find_gateway() {
  binary=$(find "${CARGO_TARGET_DIR:-$top/target}"/{release,debug}/odin-gateway -maxdepth 0 -printf "%T@ %p\n" 2>/dev/null | sort -rn | sed -n "1s/^[^ ]* //p")
  [ -n "$binary" ] || skip "no odin-gateway is built: cargo build -p gateway"
}

setting() { sed -n "s/^$1=//p" "${2:-$unit}"; }
seconds() { case $1 in *ms) echo 1 ;; *m) echo $((${1%m} * 60)) ;; *h) echo $((${1%h} * 3600)) ;; *) echo "${1%s}" ;; esac }

@test "systemd finds nothing to say about the gateway's unit" {
  run systemd-analyze verify "$(with_program /bin/true "$unit")"
  echo "$output"
  [ "$status" -eq 0 ]
  [ -z "$output" ]
}

@test "systemd finds nothing to say about the unit that host-tune.sh writes" {
  host=$BATS_TEST_TMPDIR/host
  load host
  make_host
  tune --apply
  run systemd-analyze verify "$(with_program /bin/true "$host/etc/systemd/system/odin-host-tune.service")"
  echo "$output"
  [ "$status" -eq 0 ]
  [ -z "$output" ]
}

@test "the gateway's unit is exposed no more than it has to be" {
  run systemd-analyze security --offline=yes --threshold="$EXPOSURE_MAX" --no-pager "$unit"
  echo "$output" | tail -n 1
  [ "$status" -eq 0 ]
}

@test "every variable of the example is one that the gateway knows" {
  names=$(grep -oE '^#?[A-Z][A-Z_]+=' "$folder/gateway.env.example" | tr -d '#=')
  [ "$(wc -l <<<"$names")" -gt 10 ]
  known=$(sed -nE 's/^    ([A-Z_]+) = .*/\1/p' "$top/gateway/src/config/table.rs")
  run comm -23 <(sort -u <<<"$names") <(sort -u <<<"$known")
  [ -z "$output" ] || { echo "unknown: $output"; return 1; }
}

@test "the gateway takes the example as it is, without a warning" {
  find_gateway
  # As systemd reads it: NAME=value, comments with # in front.
  mapfile -t variables < <(grep -E '^[A-Z]' "$folder/gateway.env.example")
  run --separate-stderr env -i "${variables[@]}" "$binary" --check-config
  echo "$output" "$stderr"
  [ "$status" -eq 0 ]
  [ -z "$stderr" ]
  [[ $output == *"WS_ADDR=[::]:3004"* ]]
}

@test "the unit's bounds are above what the example asks for" {
  example=$folder/gateway.env.example
  drain=$(seconds "$(setting WS_DRAIN "$example")")
  [ "$(setting TimeoutStopSec)" -gt $((drain + 5)) ]
  memory=$(setting WS_MEMORY_LIMIT "$example") bound=$(setting MemoryMax)
  [ $((${memory%GiB} * 1024 * 11 / 10)) -le "${bound%M}" ]
  # The gateway's spare sockets and descriptors: limits.rs.
  spare=$(sed -nE 's/^pub const (SOCKETS|DESCRIPTORS)_SPARE: usize = ([0-9]+);.*/\2/p' "$top/gateway/src/limits/mod.rs" | paste -sd+ | xargs -I{} bash -c 'echo $(({}))')
  [ "$spare" -gt 0 ]
  [ "$(setting LimitNOFILE)" -ge $(($(setting WS_MAX_CONNECTIONS "$example") + $(setting WS_SHARDS "$example") * spare)) ]
  [ "$(setting RestartPreventExitStatus)" = "$(sed -nE 's/^pub const EXIT_(USAGE|UNAVAILABLE): u8 = ([0-9]+);/\2/p' "$top/gateway/src/args.rs" | paste -sd' ')" ]
}

# systemd itself, as the manager of a user in a namespace of its own; which cannot make users or raise limits.
# in_systemd ENVIRONMENT SCRIPT
in_systemd() {
  [ "$(id -u)" = 0 ] || skip "needs root"
  [ -x /lib/systemd/systemd ] || skip "no systemd here"
  unshare --mount --pid --fork --mount-proc true || skip "this machine allows no namespaces"
  find_gateway
  export BATS_TEST_TMPDIR unit binary
  run timeout 120 unshare --mount --pid --fork --mount-proc bash -uc '
    mount -t tmpfs tmpfs /run
    mount --bind -o ro /proc/sys /proc/sys
    # What the system instance makes at boot: for paths that a unit is not to see.
    mkdir -p /run/systemd/system /run/systemd/inaccessible/dir /run/units /run/manager /run/user
    touch /run/systemd/inaccessible/reg
    mkfifo /run/systemd/inaccessible/fifo
    mknod /run/systemd/inaccessible/chr c 0 0
    mknod /run/systemd/inaccessible/blk b 0 0
    install -m 755 "$binary" /run/odin-gateway
    sed -e "s|^ExecStart=.*|ExecStart=/run/odin-gateway --dev|" \
      -e "s|^EnvironmentFile=.*|Environment='"$1"'\nStandardOutput=file:/run/log\nStandardError=inherit|" \
      -e "/^DynamicUser=/d; /^User=/d; /^After=/d; /^Wants=/d; s/^LimitNOFILE=.*/LimitNOFILE=$(ulimit -Hn)/" "$unit" >/run/units/odin-gateway.service
    export XDG_RUNTIME_DIR=/run/manager SYSTEMD_UNIT_PATH=/run/units:
    /lib/systemd/systemd --user --unit=odin-gateway.service &
    manager=$!
    for _ in $(seq 100); do
      systemctl --user is-system-running >/dev/null 2>&1 || true
      [ ! -S /run/manager/systemd/private ] || break
      kill -0 "$manager" 2>/dev/null || break
      sleep 0.1
    done
    [ -S /run/manager/systemd/private ] || { echo no manager; exit 0; }
    '"$2"'
    echo "--- log"
    cat /run/log
    echo "--- end"
    kill -KILL "$manager"
  '
  echo "$output"
  [[ $output != *"no manager"* ]] || skip "systemd does not run as a user's manager here"
}

@test "the gateway serves within the unit's sandbox, and ends with 0 at systemctl stop" {
  in_systemd 'WS_ADDR=127.0.0.1:0 WS_SHARDS=1 WS_MAX_CONNECTIONS=1000 LOG_FORMAT=text NO_COLOR=1' '
    for _ in $(seq 300); do
      address=$(sed -nE "s/.*serving.*address=(127[0-9.:]+).*/\1/p" /run/log 2>/dev/null)
      [ -z "$address" ] || break
      sleep 0.1
    done
    exec 3<>"/dev/tcp/${address%:*}/${address#*:}"
    printf "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" >&3
    timeout 5 head -n 1 <&3
    process=$(systemctl --user show -P MainPID odin-gateway)
    grep -E "^(Seccomp|NoNewPrivs|CapEff):" "/proc/$process/status"
    systemctl --user stop odin-gateway
    systemctl --user show -p Result -p NRestarts odin-gateway
  '
  [[ $output == *"HTTP/1.1 "[25]* ]]
  [[ $output =~ Seccomp:[[:space:]]+2 ]]
  [[ $output =~ CapEff:[[:space:]]+0000000000000000 ]]
  [[ $output == *Result=success* ]]
  [[ $output == *NRestarts=0* ]]
  [[ $output == *stopped*"--- end"* ]]
}

@test "a configuration that cannot be used is not tried again, a failure is" {
  in_systemd 'WS_MAX_CONNECTIONS=abc' '
    for _ in $(seq 100); do
      [ "$(systemctl --user show -P ActiveState odin-gateway)" != failed ] || break
      sleep 0.1
    done
    systemctl --user show -p ActiveState -p ExecMainStatus -p NRestarts odin-gateway
    sed -i "s|^ExecStart=.*|ExecStart=/bin/false|; s|^RestartSec=.*|RestartSec=100ms|" /run/units/odin-gateway.service
    systemctl --user daemon-reload
    systemctl --user start odin-gateway
    for _ in $(seq 100); do
      [ "$(systemctl --user show -P NRestarts odin-gateway)" -lt 6 ] || { echo tried again; break; }
      sleep 0.1
    done
  '
  [[ $output == *ActiveState=failed* ]]
  [[ $output == *ExecMainStatus=64* ]]
  [[ $output == *NRestarts=0* ]]
  [[ $output == *"WS_MAX_CONNECTIONS=abc"* ]]
  [[ $output == *"tried again"* ]]
}

@test "every system call of the gateway is one that the unit allows" {
  command -v strace >/dev/null || skip "no strace here"
  find_gateway
  cd "$BATS_TEST_TMPDIR"
  WS_ADDR=127.0.0.1:0 WS_SHARDS=1 LOG_FORMAT=text strace -f -qq -o trace "$binary" --dev >log 2>&1 3>&- &
  tracer=$!
  for _ in $(seq 300); do
    ! grep -q reading log || break
    sleep 0.1
  done
  gateway=$(sed -n '1s/ .*//p' trace)
  kill -TERM "$gateway"
  wait "$tracer"
  used=$(sed -nE 's/^[0-9]+ +(<\.\.\. )?([a-z0-9_]+)[( ].*/\2/p' trace | sort -u)
  grep -qx io_uring_enter <<<"$used"
  read -ra allowed < <(setting SystemCallFilter | sed -n '/^~/!p' | paste -sd' ')
  read -ra denied < <(setting SystemCallFilter | sed -n 's/^~//p' | paste -sd' ')
  run comm -23 <(echo "$used") <(calls_of "${allowed[@]}" | sort -u)
  [ -z "$output" ] || { echo "not allowed: $output"; return 1; }
  run comm -12 <(echo "$used") <(calls_of "${denied[@]}" | sort -u)
  [ -z "$output" ] || { echo "denied: $output"; return 1; }
}

# calls_of NAME...: system calls, those of @sets too.
calls_of() {
  local name
  for name in "$@"; do
    case $name in
      @*) systemd-analyze syscall-filter "$name" | sed -nE 's/^    ([@a-z0-9_-]+).*/\1/p' | while read -r name; do calls_of "$name"; done ;;
      *) echo "$name" ;;
    esac
  done
}
