#!/usr/bin/env bats
# shellcheck disable=SC2016 # what runs inside is expanded there
# host-tune.sh on a real kernel: in a network namespace of its own, with an interface of its own. The rest of the host is files,
# so that nothing of this machine's own is touched.

setup() {
  [ "$(id -u)" = 0 ] || skip "needs root"
  unshare --net --mount true || skip "this machine allows no namespaces"
  unshare --net ip link add first type veth peer name second || skip "no veth interfaces here"
  host=$BATS_TEST_TMPDIR/host
  load host
  make_host
  topology 2 1
  rm -r "$host/proc/sys/net" "$host/sys/class/net"
  mkdir "$BATS_TEST_TMPDIR/sysfs"
  ln -s /proc/sys/net "$host/proc/sys/net"
  ln -s "$BATS_TEST_TMPDIR/sysfs/class/net" "$host/sys/class/net"
}

# inside SCRIPT: runs it in the namespaces, with `tune`, `kernel` (what the kernel says now) and interfaces of two queues each.
inside() {
  export host BATS_TEST_TMPDIR BATS_TEST_DIRNAME
  export -f tune kernel
  unshare --net --mount bash -euc '
    mount -t sysfs sysfs "$BATS_TEST_TMPDIR/sysfs"
    ip link add first numtxqueues 2 numrxqueues 2 type veth peer name second
    '"$1"
}

kernel() {
  local file
  for file in /proc/sys/net/core/{somaxconn,wmem_max} /proc/sys/net/ipv4/{tcp_max_syn_backlog,tcp_syncookies,tcp_slow_start_after_idle} \
    "$host"/sys/class/net/first/queues/*/?ps_cpus; do
    printf '%s ' "${file##*/}"
    cat "$file"
  done
}

@test "applied to a kernel, check is clean; applied again nothing changes; reverted, every value is back" {
  run inside '
    before=$(kernel)
    tune --apply --interface first
    tuned=$(kernel)
    [ "$before" != "$tuned" ]
    tune --check
    stamps=$(find "$host/etc" "$host/var" -printf "%p %i %T@\n")
    tune --apply --interface first
    [ "$tuned" = "$(kernel)" ]
    [ "$stamps" = "$(find "$host/etc" "$host/var" -printf "%p %i %T@\n")" ]
    [ "$(cat /proc/sys/net/core/somaxconn)" -ge 16384 ]
    [ "$(cat /proc/sys/net/ipv4/tcp_slow_start_after_idle)" = 0 ]
    [ "$((16#$(cat "$host/sys/class/net/first/queues/tx-1/xps_cpus")))" = 2 ]
    tune --revert
    diff <(echo "$before") <(kernel)
    echo all of it
  '
  echo "$output"
  [ "$status" -eq 0 ]
  [[ $output == *"all of it" ]]
  [ ! -e "$host/var/lib/odin-host-tune" ]
}

@test "what this namespace may not set, and what a read-only mount keeps, is told and does not fail the rest" {
  run inside '
    mount --bind /proc/sys/net/ipv4 /proc/sys/net/ipv4
    mount -o remount,bind,ro /proc/sys/net/ipv4
    tune --apply --interface first
    tune --check
  '
  echo "$output"
  [ "$status" -eq 0 ]
  told read-only net.ipv4.tcp_slow_start_after_idle
  told 'not here' net.core.netdev_max_backlog # of the first network namespace only
  told ok net.core.somaxconn
}
