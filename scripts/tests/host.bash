# shellcheck shell=bash disable=SC2154 # host is the test's, output is of bats
# A host made of files, for the tests of host-tune.sh: the parts of /proc, /sys and /etc that it looks at.

# tree FILE CONTENT: makes a file of the host.
tree() {
  mkdir -p "$(dirname "$host$1")"
  printf '%s\n' "$2" >"$host$1"
}

# topology CPUS THREADS: CPUS CPUs, of which THREADS neighbours are threads of one core.
topology() {
  local cpu first
  tree /sys/devices/system/cpu/online "0-$(($1 - 1))"
  for ((cpu = 0; cpu < $1; cpu++)); do
    first=$((cpu / $2 * $2))
    tree "/sys/devices/system/cpu/cpu$cpu/topology/thread_siblings_list" "$(if (($2 == 1)); then echo "$cpu"; else echo "$first-$((first + $2 - 1))"; fi)"
  done
}

# interrupt NUMBER CPUS
interrupt() {
  mkdir -p "$host/proc/irq/$1/virtio0-input"
  tree "/proc/irq/$1/smp_affinity_list" "$2"
}

# A machine as Debian leaves it: four CPUs on two cores, 16 GiB, one interface with a queue for each CPU.
make_host() {
  local queue
  topology 4 2
  tree /proc/meminfo 'MemTotal:       16777216 kB'
  tree /proc/swaps 'Filename Type Size Used Priority'
  tree /proc/self/limits "$(printf 'Limit Soft Hard Units\nMax locked memory 8388608 8388608 bytes\nMax open files 1024 524288 files')"
  tree /proc/sys/kernel/random/boot_id first-boot
  tree /proc/sys/fs/file-max 9223372036854775807
  tree /proc/sys/fs/nr_open 1048576
  tree /proc/sys/kernel/io_uring_disabled 2
  tree /proc/sys/net/core/somaxconn 4096
  tree /proc/sys/net/core/wmem_max 212992
  tree /proc/sys/net/core/netdev_max_backlog 1000
  tree /proc/sys/net/core/rps_sock_flow_entries 0
  tree /proc/sys/net/ipv4/tcp_max_syn_backlog 1024
  tree /proc/sys/net/ipv4/tcp_syncookies 1
  tree /proc/sys/net/ipv4/tcp_slow_start_after_idle 1
  tree /proc/sys/net/ipv4/tcp_mem $'190000\t253000\t380000'
  tree /proc/sys/net/ipv4/ip_local_port_range $'32768\t60999'
  tree /proc/sys/net/ipv4/tcp_tw_reuse 2
  tree /proc/sys/vm/swappiness 60
  tree /proc/sys/net/netfilter/nf_conntrack_max 65536
  tree /sys/module/nf_conntrack/parameters/hashsize 16384
  tree /sys/kernel/mm/transparent_hugepage/enabled '[always] madvise never'
  tree /proc/irq/default_smp_affinity f
  for queue in 0 1 2 3; do
    tree "/sys/devices/system/cpu/cpu$queue/cpufreq/scaling_governor" schedutil
    tree "/sys/devices/system/cpu/cpu$queue/cpufreq/scaling_available_governors" 'performance schedutil '
    interrupt "$((24 + queue))" 0-3
    tree "/sys/class/net/ens4/queues/rx-$queue/rps_cpus" 0
    tree "/sys/class/net/ens4/queues/tx-$queue/xps_cpus" f
  done
  mkdir -p "$host/sys/class/net/ens4/device" "$host/sys/class/net/lo/queues" "$host/etc/security/limits.d" "$host/etc/sysctl.d" \
    "$host/etc/systemd/system" "$host/var/lib" "$host/usr/local"
}

# with_irqbalance: as its package installs it.
with_irqbalance() {
  tree /usr/lib/systemd/system/irqbalance.service '[Service]'
  tree /etc/default/irqbalance '# OPTIONS='
}

tune() { ODIN_HOST_TUNE_ROOT=$host "$BATS_TEST_DIRNAME/../host-tune.sh" "$@"; }

# picture: every path of the host with what it is and holds; a choice of the kernel as the word that is chosen.
picture() {
  (cd "$host" && find . -printf '%y %m %p\n' | sort && find . -type f ! -path './sys/kernel/mm/*' | sort | xargs sha256sum)
  grep -oE '\[?(always|madvise|never)\]?' "$host/sys/kernel/mm/transparent_hugepage/enabled" | head -n 1 | tr -d '[]'
}

# stamps: the same with the time of each file's last change and its inode: what a write of the same bytes would move.
stamps() { (cd "$host" && find . -printf '%p %i %T@\n' | sort); }

# told STATE NAME: whether the table has this setting in this state.
told() { grep -E "^$2( \([0-9]+\))?  .*  $1  " <<<"$output"; }
