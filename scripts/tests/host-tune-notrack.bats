#!/usr/bin/env bats
# shellcheck disable=SC2016 # what runs inside is expanded there
# host-tune.sh and connection tracking, on a real kernel: in network namespaces of its own, with a peer at the other end of a wire.

bats_require_minimum_version 1.5.0

setup() {
  [ "$(id -u)" = 0 ] || skip "needs root"
  command -v /usr/sbin/nft >/dev/null || skip "no nft here (Debian: apt-get install nftables)"
  unshare --net sh -c 'ip link add first type veth peer name second && nft add table inet probe &&
    nft add chain inet probe raw_hook "{ type filter hook prerouting priority raw; }" && nft add rule inet probe raw_hook tcp dport 1 notrack &&
    nft add rule inet probe raw_hook ct state new counter' || skip "this kernel has no nftables with connection tracking"
  host=$BATS_TEST_TMPDIR/host
  load host
  make_host
  mkdir -p "$host/usr/sbin"
  ln -s /usr/sbin/nft "$host/usr/sbin/nft"
}

# inside SCRIPT: runs it where 10.9.0.1 is the gateway's host, with programs that listen on 3004 and 3005, and a rule by which
# connections are tracked. `sessions ADDRESS PORT` opens five from this host, `peer sessions ADDRESS PORT` from another; entries
# prints how many are tracked.
inside() {
  export host BATS_TEST_TMPDIR BATS_TEST_DIRNAME
  export -f tune picture sessions
  run unshare --net --mount bash -euc '
    peer() { nsenter --net="/proc/$there/ns/net" bash -euc "$*"; }
    entries() { cat /proc/sys/net/netfilter/nf_conntrack_count; }
    tables() { nft -nn list ruleset; }
    fails() { if "$@"; then return 1; fi; }
    unshare --net sleep 600 3>&- & there=$!
    until [ "$(readlink /proc/$there/ns/net)" != "$(readlink /proc/$$/ns/net)" ]; do sleep 0.01; done
    ip link add here type veth peer name there netns $there
    ip address add 10.9.0.1/24 dev here && ip link set here up && ip link set lo up
    peer ip address add 10.9.0.2/24 dev there && peer ip link set there up
    nft add table ip tracker && nft add chain ip tracker watch "{ type filter hook prerouting priority 0; }"
    nft add rule ip tracker watch ct state new counter
    python3 -c "
import socket, time
kept = [socket.create_server((\"0.0.0.0\", port), backlog=64) for port in (3004, 3005)]
time.sleep(600)" 3>&- & programs=$!
    trap "kill $there $programs" EXIT
    until (: </dev/tcp/127.0.0.1/3005) 2>/dev/null; do sleep 0.05; done
    '"$1"
  echo "$output"
  [ "$status" -eq 0 ]
}

sessions() {
  local descriptor
  # shellcheck disable=SC2034 # kept open until the end
  for _ in 1 2 3 4 5; do exec {descriptor}<>"/dev/tcp/$1/$2"; done
}

@test "sessions from elsewhere and from this host's own proxy are not tracked, those of other ports are" {
  inside '
    before=$(entries)
    peer sessions 10.9.0.1 3004; sessions 127.0.0.1 3004
    [ "$(entries)" -eq $((before + 10)) ]
    tune --apply
    before=$(entries)
    peer sessions 10.9.0.1 3004; sessions 127.0.0.1 3004; sessions 10.9.0.1 3004
    [ "$(entries)" -eq "$before" ]
    peer sessions 10.9.0.1 3005
    [ "$(entries)" -eq $((before + 5)) ]
  '
}

@test "applied, check is clean; applied again nothing changes; another port takes the place; reverted, only others' tables are left" {
  inside '
    files=$(picture) before=$(tables)
    fails tune --check
    [ "$before" = "$(tables)" ]
    tune --apply
    tune --check | grep -E "tracking of the gateway.s port +3004 +3004 +ok"
    stamps=$(find "$host/etc" "$host/var" "$host/usr" -printf "%p %i %T@\n") applied=$(nft -a list ruleset)
    tune --apply
    [ "$applied" = "$(nft -a list ruleset)" ]
    [ "$stamps" = "$(find "$host/etc" "$host/var" "$host/usr" -printf "%p %i %T@\n")" ]
    tune --apply --port 3005
    [ "$(tables | grep -c "port 3005 notrack")" = 3 ]
    fails grep "port 3004" <<<"$(tables)"
    tune --check
    tune --apply --port off
    [ "$before" = "$(tables)" ]
    tune --apply --port 3004
    tune --revert
    diff <(echo "$before") <(tables)
    diff <(echo "$files") <(picture)
  '
}

@test "after a boot the unit creates the table again" {
  inside '
    tune --apply
    nft delete table inet odin_notrack
    echo second-boot >"$host/proc/sys/kernel/random/boot_id"
    ODIN_HOST_TUNE_ROOT=$host "$host/usr/local/lib/odin-host-tune/host-tune.sh" --boot
    [ "$(tables | grep -c "port 3004 notrack")" = 3 ]
    tune --check
  '
}

@test "a table of the same name that is another's is told and never touched" {
  inside '
    nft -f - <<"RULES"
table inet odin_notrack {
  chain prerouting { type filter hook prerouting priority raw; policy accept; tcp dport 3004 notrack;
  }
}
RULES
    before=$(tables)
    tune --apply
    tune --check | grep -E "tracking of the gateway.s port .* read-only .* another program owns"
    tune --revert
    [ "$before" = "$(tables)" ]
    nft delete table inet odin_notrack
    tune --apply
    nft add rule inet odin_notrack output tcp sport 22 notrack
    before=$(tables)
    tune --revert
    [ "$before" = "$(tables)" ]
  '
  [[ $output == *"now another's rules, which this script did not set; not changed"* ]]
}

@test "behind a firewall it waits to be told the port, and a port that is translated stays tracked" {
  inside '
    nft add table ip nat && nft add chain ip nat prerouting "{ type nat hook prerouting priority dstnat; }"
    nft add rule ip nat prerouting tcp dport 3005 dnat to 10.9.0.1:3004
    before=$(tables)
    tune --apply --port 3005
    tune --check | grep -E "tracking of the gateway.s port .* not here .* translates the address of port 3005"
    [ "$before" = "$(tables)" ]
    tune --revert
    nft add table inet filter && nft add chain inet filter input "{ type filter hook input priority 0; policy drop; }"
    before=$(tables)
    tune --apply
    tune --check | grep -E "tracking of the gateway.s port .* not here .* apply with --port 3004"
    [ "$before" = "$(tables)" ]
    tune --apply --port 3004
    [ "$(tables | grep -c "port 3004 notrack")" = 3 ]
  '
}

@test "what a packet that is not tracked meets in a firewall is what the README says" {
  inside '
    nft add table inet filter && nft add chain inet filter input "{ type filter hook input priority 0; policy drop; }"
    nft add rule inet filter input ct state established,related accept
    nft add rule inet filter input tcp dport 3004 ct state new accept
    peer timeout 5 bash -c "\": </dev/tcp/10.9.0.1/3004\""
    tune --apply --port 3004
    fails peer timeout 1 bash -c "\": </dev/tcp/10.9.0.1/3004\""
    nft insert rule inet filter input tcp dport 3004 accept
    peer timeout 5 bash -c "\": </dev/tcp/10.9.0.1/3004\""
  '
}

@test "where nft is not there, or shows nothing, the setting is not here and the rest is applied" {
  rm "$host/usr/sbin/nft"
  tune --apply
  run -0 tune --check
  told 'not here' "tracking of the gateway's port"
  [[ $output == *"apt-get install nftables"* ]]
  printf '#!/bin/sh\necho "Protocol not supported" >&2\nexit 1\n' >"$host/usr/sbin/nft"
  chmod +x "$host/usr/sbin/nft"
  run -0 tune --check
  [[ $output == *"nft shows no rules here: Protocol not supported"* ]]
}
