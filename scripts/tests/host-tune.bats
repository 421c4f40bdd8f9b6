#!/usr/bin/env bats
# host-tune.sh on a host that is made of files.

bats_require_minimum_version 1.5.0

setup() {
  host=$BATS_TEST_TMPDIR/host
  load host
  make_host
}

holds() { [ "$(cat "$host$1")" = "$2" ] || { echo "$1 holds $(cat "$host$1"), not $2"; return 1; }; }

@test "check tells what differs, changes nothing and exits with 1" {
  before=$(picture)
  run tune --check
  [ "$status" -eq 1 ]
  told ok fs.file-max
  told differs net.core.somaxconn
  told differs 'interrupt affinity'
  told differs 'XPS of ens4'
  told 'not here' vm.swappiness
  [[ $output == *"shards on 3, idle beside them 2, everything else on 0-1"* ]]
  [ "$before" = "$(picture)" ]
}

@test "apply makes check clean, and revert restores every byte" {
  before=$(picture)
  run tune --apply
  echo "$output"
  [ "$status" -eq 0 ]
  run tune --check
  echo "$output"
  [ "$status" -eq 0 ]
  holds /proc/sys/kernel/io_uring_disabled 0
  holds /proc/sys/net/core/somaxconn 16384
  holds /proc/sys/net/ipv4/tcp_mem '524288 786432 1048576'
  holds /proc/sys/net/netfilter/nf_conntrack_max 262144
  holds /proc/irq/24/smp_affinity_list 0-1
  holds /proc/irq/default_smp_affinity 00000003
  holds /sys/devices/system/cpu/cpu3/cpufreq/scaling_governor performance
  holds /sys/kernel/mm/transparent_hugepage/enabled madvise
  run tune --revert
  echo "$output"
  [ "$status" -eq 0 ]
  diff <(echo "$before") <(picture)
}

@test "applied twice, nothing is written the second time and the saved values stay" {
  with_irqbalance
  before=$(picture)
  tune --apply
  first=$(stamps)
  run tune --apply
  [ "$status" -eq 0 ]
  diff <(echo "$first") <(stamps)
  tune --revert
  diff <(echo "$before") <(picture)
}

@test "what apply keeps for the next boot is what it set, in files that systemd and pam_limits read" {
  tune --apply
  grep -qx 'net.core.somaxconn = 16384' "$host/etc/sysctl.d/90-odin-gateway.conf"
  grep -qx 'net.ipv4.tcp_mem = 524288 786432 1048576' "$host/etc/sysctl.d/90-odin-gateway.conf"
  run grep -E 'fs\.|nf_conntrack|syncookies' "$host/etc/sysctl.d/90-odin-gateway.conf" # good already, or the unit's
  [ "$status" -eq 1 ]
  grep -qx '\* hard nofile 1048576' "$host/etc/security/limits.d/90-odin-gateway.conf"
  grep -qx 'root hard memlock 65536' "$host/etc/security/limits.d/90-odin-gateway.conf"
  [ "$(readlink "$host/etc/systemd/system/multi-user.target.wants/odin-host-tune.service")" = /etc/systemd/system/odin-host-tune.service ]
  [ -x "$host/usr/local/lib/odin-host-tune/host-tune.sh" ]
}

@test "values that are better than wanted are left alone" {
  tree /proc/sys/net/core/somaxconn 65535
  tree /proc/sys/net/ipv4/tcp_mem $'900000\t1900000\t2800000'
  tree /sys/kernel/mm/transparent_hugepage/enabled 'always madvise [never]'
  tree /proc/self/limits "$(printf 'Max locked memory unlimited unlimited bytes\nMax open files 1024 2000000 files')"
  run tune --apply
  [ "$status" -eq 0 ]
  holds /proc/sys/net/core/somaxconn 65535
  holds /proc/sys/net/ipv4/tcp_mem $'900000\t1900000\t2800000'
  holds /sys/kernel/mm/transparent_hugepage/enabled 'always madvise [never]'
  [ ! -e "$host/etc/security/limits.d/90-odin-gateway.conf" ]
  run grep somaxconn "$host/etc/sysctl.d/90-odin-gateway.conf" "$host/var/lib/odin-host-tune/before"
  [ "$status" -eq 1 ]
}

@test "files of others stay as they are, and one that is in the way stops apply before anything is changed" {
  tree /etc/sysctl.d/99-own.conf 'net.core.somaxconn = 128'
  run tune --apply
  [ "$status" -eq 0 ]
  [[ $output == *"/etc/sysctl.d/99-own.conf sets net.core.somaxconn too"* ]]
  holds /etc/sysctl.d/99-own.conf 'net.core.somaxconn = 128'
  tune --revert
  holds /etc/sysctl.d/99-own.conf 'net.core.somaxconn = 128'

  tree /etc/sysctl.d/90-odin-gateway.conf '# an operator wrote this'
  before=$(picture)
  run tune --apply
  [ "$status" -eq 1 ]
  [[ $output == *"was not written by this script"* ]]
  [ "$before" = "$(picture)" ]
}

@test "a setting that the kernel does not have is told and does not fail the rest" {
  rm "$host/proc/sys/kernel/io_uring_disabled" "$host/proc/sys/net/ipv4/tcp_mem"
  rm -r "$host/proc/sys/net/netfilter" "$host"/sys/devices/system/cpu/cpu*/cpufreq "$host"/sys/class/net/ens4/queues/tx-[123]
  tune --apply
  run tune --check
  [ "$status" -eq 0 ]
  told 'not here' kernel.io_uring_disabled
  told 'not here' nf_conntrack_max
  told 'not here' 'CPU governor'
  told 'not here' 'XPS of ens4'
}

@test "a setting that cannot be written is told with the remedy and does not fail the rest" {
  chmod a-w "$host/proc/sys/net/core/somaxconn"
  run tune --apply
  [ "$status" -eq 0 ]
  holds /proc/sys/net/core/somaxconn 4096
  holds /proc/sys/net/core/wmem_max 1048576
  run tune --check
  [ "$status" -eq 0 ]
  told read-only net.core.somaxconn
  [[ $output == *"run this on the host itself"* ]]
}

@test "what the kernel refuses is remembered until the next boot" {
  [ "$(id -u)" = 0 ] || skip "needs root"
  # A write to it fails as one to an interrupt of the kernel's own does.
  chattr +i "$host/proc/irq/24/smp_affinity_list" 2>/dev/null || skip "this file system has no immutable files"
  run tune --apply
  again=$(tune --check) || again="exit $?"
  tree /proc/sys/kernel/random/boot_id second-boot
  run -1 tune --check
  after=$output
  chattr -i "$host/proc/irq/24/smp_affinity_list"
  grep -E '^interrupt affinity .* refused ' <<<"$again"
  grep -E '^interrupt affinity .* differs ' <<<"$after"
}

@test "after a boot the unit sets what sysctl.d cannot, and revert puts back that boot's values" {
  tune --apply
  files=$(cd "$host/etc" && find . -type f -exec sha256sum {} +)
  tree /proc/sys/kernel/random/boot_id second-boot
  tree /proc/irq/24/smp_affinity_list 0-3
  tree /proc/irq/25/smp_affinity_list 2
  rm -r "$host/proc/irq/26"
  interrupt 40 1-3
  tree /proc/sys/net/netfilter/nf_conntrack_max 131072
  run env ODIN_HOST_TUNE_ROOT="$host" "$host/usr/local/lib/odin-host-tune/host-tune.sh" --boot
  echo "$output"
  [ "$status" -eq 0 ]
  holds /proc/irq/25/smp_affinity_list 0-1
  holds /proc/irq/40/smp_affinity_list 0-1
  [ "$files" = "$(cd "$host/etc" && find . -type f -exec sha256sum {} +)" ]
  tune --revert
  holds /proc/irq/25/smp_affinity_list 2
  holds /proc/irq/40/smp_affinity_list 1-3
  holds /proc/sys/net/netfilter/nf_conntrack_max 131072
  holds /proc/sys/net/core/somaxconn 4096
}

@test "check and a later apply take the options of the last apply" {
  tune --apply --shard-cpus 0 --interface ens4
  holds /proc/irq/24/smp_affinity_list 2-3
  run tune --check
  [ "$status" -eq 0 ]
  [[ $output == *"shards on 0, idle beside them 1"* ]]
  run tune --check --shard-cpus 3
  [ "$status" -eq 1 ]
}

@test "a backend and a generator of load keep no CPU for a shard, and steer nothing" {
  with_irqbalance
  for role in backend generator; do
    run -1 tune --check --role "$role"
    [[ $output == *"a $role host reserves none"* ]]
    ! grep -E 'interrupt|RPS|XPS|irqbalance|tracking of' <<<"$output" || return 1
    before=$(cat "$host"/proc/irq/*/smp_affinity_list "$host"/sys/class/net/ens4/queues/*/*)
    tune --apply --role "$role"
    run -0 tune --check
    told ok net.core.somaxconn
    [ "$before" = "$(cat "$host"/proc/irq/*/smp_affinity_list "$host"/sys/class/net/ens4/queues/*/*)" ]
    [ ! -e "$host/etc/systemd/system/irqbalance.service.d" ]
    case $role in
      backend)
        holds /proc/sys/kernel/io_uring_disabled 2 # nothing there works by it
        holds /proc/sys/net/ipv4/tcp_tw_reuse 2
        ;;
      generator)
        holds /proc/sys/net/ipv4/ip_local_port_range '10000 65535'
        holds /proc/sys/net/ipv4/tcp_tw_reuse 1
        ;;
    esac
    tune --revert
  done
}

@test "a host that changes its role gets back what only the former one wanted" {
  with_irqbalance
  tune --apply --role backend
  backend=$(picture)
  tune --revert
  tune --apply
  holds /proc/irq/24/smp_affinity_list 0-1
  tune --apply --role backend
  holds /proc/irq/24/smp_affinity_list 0-3
  holds /proc/irq/default_smp_affinity f
  holds /proc/sys/kernel/io_uring_disabled 2
  diff <(grep -v '/var/lib\|host-tune/before\|balancer\|irqbalance.service.d$' <<<"$backend") \
    <(picture | grep -v '/var/lib\|host-tune/before\|balancer\|irqbalance.service.d$')
  [ ! -e "$host/etc/systemd/system/irqbalance.service.d/90-odin-gateway.conf" ]
  run ! grep -E '^(sysctl|unit).*(irq|xps|io_uring)' "$host/var/lib/odin-host-tune/before"
  tune --apply --role gateway
  run -0 tune --check
  told ok 'interrupt affinity'
}

@test "siblings stay out of it, unless they are all that there is beside the shards" {
  run tune --check --shard-cpus 1,2
  [[ $output == *"shards on 1-2, everything else on 0,3"* ]]
  topology 2 2
  run tune --check
  [[ $output == *"shards on 1, everything else on 0"* ]]
  run tune --check --shard-cpus 0-1
  told 'not here' 'interrupts, RPS, XPS'
}

@test "packets are spread over the other CPUs where there are fewer queues than these" {
  topology 8 2
  tune --apply
  holds /sys/class/net/ens4/queues/rx-0/rps_cpus 0000003f
  holds /sys/class/net/ens4/queues/tx-3/xps_cpus 00000080
  holds /sys/class/net/ens4/queues/tx-0/xps_cpus 00000049
}

@test "send queues of which none is shared with a shard are left as the driver set them" {
  for queue in 0 1 2 3; do tree "/sys/class/net/ens4/queues/tx-$queue/xps_cpus" "$((1 << queue))"; done
  run tune --check
  told ok 'XPS of ens4'
}

@test "irqbalance is told to keep off, by a file of our own, unless its owner has told it something" {
  with_irqbalance
  tune --apply
  grep -qF '"IRQBALANCE_BANNED_CPULIST=2-3" "IRQBALANCE_BANNED_CPUS=0000000c"' "$host/etc/systemd/system/irqbalance.service.d/90-odin-gateway.conf"
  holds /etc/default/irqbalance '# OPTIONS='
  tune --revert
  [ ! -e "$host/etc/systemd/system/irqbalance.service.d" ]
  tree /etc/default/irqbalance 'IRQBALANCE_BANNED_CPULIST="1"'
  tune --apply
  [ ! -e "$host/etc/systemd/system/irqbalance.service.d" ]
  run tune --check
  told read-only 'irqbalance, banned CPUs'
}

@test "masks of more than 32 CPUs are groups of 32 bits, the highest first" {
  # shellcheck source=scripts/host-tune/cpus.sh
  source "$BATS_TEST_DIRNAME/../host-tune/cpus.sh"
  [ "$(mask_of 0-3)" = 0000000f ]
  [ "$(mask_of 31-32)" = 00000001,80000000 ]
  [ "$(mask_of 0,95)" = 80000000,00000000,00000001 ]
  [ "$(list_of ffffffff,00000000)" = 32-63 ]
  [ "$(list_of 1,80000001)" = 0,31-32 ]
  [ -z "$(list_of 00000000,00000000)" ]
  for list in 0 63 64 0-127 5,37,69-71,255; do [ "$(list_of "$(mask_of "$list")")" = "$list" ]; done
  [ "$(minus 0-127 126-127)" = 0-125 ]
  [ -z "$(minus 4 0-9)" ]
}

@test "on 96 CPUs everything but the shard's core is used" {
  topology 96 2
  interrupt 24 0-95
  tree /proc/irq/default_smp_affinity ffffffff,ffffffff,ffffffff
  tune --apply
  holds /proc/irq/24/smp_affinity_list 0-93
  holds /proc/irq/default_smp_affinity 3fffffff,ffffffff,ffffffff
}

@test "wrong usage is an error of code 64 that says what is wanted" {
  for arguments in '' '--check --apply' '--shard-cpus 1' '--check --shard-cpus 4' '--check --shard-cpus x' \
    '--check --interface none' '--check --role maybe' '--check --shard-cpus' '--check --port 0' '--check --port 65536' \
    '--check --role backend --shard-cpus 3' '--check --role generator --port 3004' 'apply'; do
    # shellcheck disable=SC2086 # words
    run tune $arguments
    echo "$arguments: $output"
    [ "$status" -eq 64 ]
    [ -n "$output" ]
  done
  run tune --help
  [ "$status" -eq 0 ]
  [[ ${lines[0]} == "Checks and sets the kernel settings"* ]]
}

@test "without root, check works and apply says what it needs" {
  [ "$(id -u)" = 0 ] || skip "needs root to become someone else"
  chmod a+x "$BATS_RUN_TMPDIR"
  run setpriv --reuid 65534 --regid 65534 --clear-groups env ODIN_HOST_TUNE_ROOT="$host" bash "$(readlink -f "$BATS_TEST_DIRNAME/../host-tune.sh")" --check
  echo "$output"
  [ "$status" -eq 1 ]
  told differs net.core.somaxconn
  for action in apply revert; do
    run setpriv --reuid 65534 --regid 65534 --clear-groups env ODIN_HOST_TUNE_ROOT="$host" bash "$(readlink -f "$BATS_TEST_DIRNAME/../host-tune.sh")" "--$action"
    [ "$status" -eq 1 ]
    [[ $output == *"run it as root"* ]]
  done
}

@test "reverting where nothing was applied does nothing" {
  before=$(picture)
  run tune --revert
  [ "$status" -eq 0 ]
  [ "$before" = "$(picture)" ]
}
