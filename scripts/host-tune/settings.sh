# shellcheck shell=bash disable=SC2154 # `root`, `role` and the CPU lists are set by host-tune.sh and cpus.sh
# The settings of host-tune.sh: the wanted values, the reasons, and the rules for sufficient values. Reads below $root; changes nothing.
#
# A setting is kept over a reboot by `sysctl` (sysctl.d), by `unit` (the systemd unit: what sysctl.d cannot set, or what exists
# only once a module is loaded), by `limits` (limits.d) or by `balancer` (irqbalance's drop-in). collect fills one array for each
# column; the index is the setting. States: ok, differs, read-only (usually a container), refused (the kernel rejected the
# value), not here.

# Rules: RULE CURRENT WANTED, true if the current value is sufficient. The kernel's numbers may exceed 63 bits.
at_least() { if ((${#1} == ${#2})); then [[ ! $1 < $2 ]]; else ((${#1} > ${#2})); fi; }
at_most() { at_least "$2" "$1"; }
is() { [[ $1 == "$2" ]]; }
no_always() { [[ $1 != always ]]; }
third_at_least() { at_least "$(awk '{ print $3 }' <<<"$1")" "$(awk '{ print $3 }' <<<"$2")"; }
as_wide() { (($(awk '{ print $2 - $1 }' <<<"$1") >= $(awk '{ print $2 - $1 }' <<<"$2"))); }
off_shards() { [[ -n $1 ]] && ! meets "$1" "$avoided"; }
mask_off_shards() { off_shards "$(list_of "$1")"; }
# Receive queues: if there are too few, packets must be distributed as well.
spread_off_shards() {
  local list
  list=$(list_of "$1")
  if [[ -n $list ]]; then ! meets "$list" "$avoided"; else [[ -z $(list_of "$2") ]]; fi
}

value_of() {
  local text=''
  [[ $1 != "$NOTRACK" ]] || { notrack_value && return; }
  { IFS= read -r text <"$root$1"; } 2>/dev/null || [[ -n $text ]] || return 1
  [[ $text =~ \[([a-z]+)\] ]] && text=${BASH_REMATCH[1]} # a choice: always [madvise] never
  printf '%s' "$text"
}

row() { keepers+=("$1") names+=("$2") files+=("$3") currents+=("$4") wanteds+=("$5") bounds+=("$6") states+=("$7") whys+=("$8"); }
absent() { row none "$1" '' - - '' 'not here' "$2"; }

# setting KEEPER NAME FILE RULE WANTED WHY
setting() {
  local current bound=''
  if ! current=$(value_of "$3"); then
    [[ ! -e $root$3 || -r $root$3 ]] || set -- "${@:1:5}" 'only root may read it'
    row "$1" "$2" "$3" - "$5" '' 'not here' "$6"
    return
  fi
  case $4 in at_least | third_at_least | as_wide) bound='>= ' ;; at_most) bound='<= ' ;; esac
  local state=ok
  "$4" "$current" "$5" || state=$(why_not "$3")
  row "$1" "$2" "$3" "$current" "$5" "$bound" "$state" "$6"
}

sysctl() { setting sysctl "$1" "/proc/sys/${1//.//}" "$2" "$3" "$4"; }

# why_not FILE: prints why the value cannot be set.
why_not() {
  if [[ -n ${refused[$1]:-} ]]; then
    echo refused
  elif [[ $(stat -c %A "$root$1") != ?[r-]w* || ,$(findmnt -fno OPTIONS -T "$root$1"), == *,ro,* ]]; then
    echo read-only
  else
    echo differs
  fi
}

collect() {
  keepers=() names=() files=() currents=() wanteds=() bounds=() states=() whys=()
  for_files
  for_connections
  for_memory
  for_conntrack
  [[ $role != generator ]] || for_generators
  for_governor
  [[ $role == gateway ]] || return 0
  for_notrack
  if [[ -z $others ]]; then
    absent 'interrupts, RPS, XPS' "every CPU is a shard's: there is none to move them to"
  else
    for_interrupts
    for_queues
  fi
}

for_files() {
  sysctl fs.file-max at_least 2097152 'each socket is an open file; this bounds those of all processes'
  sysctl fs.nr_open at_least 1048576 "bounds every process's limit of open files, LimitNOFILE too"
  limit nofile 'Max open files' 1048576 1048576 'hard limit of logins; the gateway raises its own soft limit to it'
  [[ $role != backend ]] || return 0
  limit memlock 'Max locked memory' 67108864 65536 'the same of locked memory: 512 KiB for each executor, 64 shards, twice'
  sysctl kernel.io_uring_disabled is 0 "the gateway's sockets work by io_uring"
}

# limit NAME LABEL WANTED WANTED_IN_FILE WHY: a hard limit of this login, unless our file has it for the next one.
limit() {
  local current state=ok
  current=$(awk -v label="$2" 'index($0, label) == 1 { print $5 }' "$root/proc/self/limits")
  if grep -qs "hard $1 $4\$" "$root$LIMITS"; then
    current=$3
  elif [[ $current != unlimited ]] && ! at_least "${current:-0}" "$3"; then
    state=differs
  fi
  row limits "hard $1" "$1 $4" "${current:--}" "$3" '>= ' "$state" "$5"
}

for_connections() {
  sysctl net.core.somaxconn at_least 16384 'TCP_LISTEN_BACKLOG is lowered to it without a word; 12,000 clients may come back at once'
  sysctl net.ipv4.tcp_max_syn_backlog at_least 16384 'handshakes under way, beyond which new peers are dropped if SYN cookies are off'
  sysctl net.ipv4.tcp_syncookies at_least 1 'with it a full queue of handshakes refuses nobody'
  sysctl net.ipv4.tcp_slow_start_after_idle is 0 'a session that was quiet gets its next burst (resume, snapshot) in one round trip'
  sysctl net.core.wmem_max at_least 1048576 'WS_SOCKET_SEND_BYTES is lowered to it without a word; room for 1MiB'
  sysctl net.core.netdev_max_backlog at_least 16384 "packets that wait for a CPU: 12,000 clients' acknowledgements at once"
  sysctl net.core.rps_sock_flow_entries is 0 "flow steering would put TCP's work back on the shard's CPU"
}

for_memory() {
  local kib page quarter
  kib=$(awk '/^MemTotal:/ { print $2 }' "$root/proc/meminfo")
  page=$(getconf PAGESIZE)
  quarter=$((kib * 1024 / page / 4))
  sysctl net.ipv4.tcp_mem third_at_least "$((quarter / 2)) $((quarter * 3 / 4)) $quarter" \
    "pages of all sockets, a quarter of the memory: 12,000 stalled sessions hold 3 GiB, at the bound everybody's sends stall"
  if (($(wc -l <"$root/proc/swaps") > 1)); then
    sysctl vm.swappiness at_most 10 'a shard that waits for a page from disk delays all of its sessions'
  else
    absent vm.swappiness 'no swap, nothing to avoid'
  fi
  setting unit 'transparent huge pages' /sys/kernel/mm/transparent_hugepage/enabled no_always madvise \
    'always makes 2 MiB of what needs 4 KiB, and counts against WS_MEMORY_LIMIT'
}

for_conntrack() {
  local max=/proc/sys/net/netfilter/nf_conntrack_max
  [[ -e $root$max ]] || { absent nf_conntrack_max 'connection tracking is not loaded, which is best'; return; }
  setting unit nf_conntrack_max "$max" at_least 262144 'one entry a connection, two through NAT; over it packets of all are dropped'
  setting unit 'nf_conntrack hashsize' /sys/module/nf_conntrack/parameters/hashsize at_least 65536 'four entries a bucket at the maximum'
}

for_generators() {
  sysctl net.ipv4.ip_local_port_range as_wide '10000 65535' "one port for each connection to one address; services' own ports stay below"
  sysctl net.ipv4.tcp_tw_reuse is 1 'a port is free again a second after its connection'
}

for_governor() {
  local choices found=''
  for choices in "$root"/sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_available_governors; do
    [[ -e $choices && " $(<"$choices") " == *' performance '* ]] || continue
    found=yes
    choices=${choices#"$root"}
    setting unit 'CPU governor' "${choices%/*}/scaling_governor" is performance 'a CPU that clocks down between two events is late with the next'
  done
  [[ -n $found ]] || absent 'CPU governor' 'the host or the firmware sets the clock'
}

for_interrupts() {
  local folder
  for folder in "$root"/proc/irq/[0-9]*/; do
    compgen -G "$folder*/" >/dev/null || continue # an interrupt that no driver has asked for
    folder=${folder#"$root"}
    setting unit 'interrupt affinity' "${folder}smp_affinity_list" off_shards "$others" "each interrupt stops the shard, and empties its caches"
  done
  setting unit 'affinity of new interrupts' /proc/irq/default_smp_affinity mask_off_shards "$(mask_of "$others")" 'for devices that come later'
  for_balancer
}

for_balancer() {
  local unit theirs current=none state=differs why='irqbalance would move interrupts back'
  for unit in /usr/lib /lib /etc; do [[ ! -e $root$unit/systemd/system/irqbalance.service ]] || break; unit=''; done
  [[ -n $unit ]] || { absent 'irqbalance, banned CPUs' 'not installed'; return; }
  theirs=$(grep -hs '^[[:space:]]*IRQBALANCE_BANNED_CPU' "$root/etc/default/irqbalance" | tail -n 1 || true)
  if [[ -n $theirs ]]; then
    current=${theirs#*=} current=${current//\"/} state=read-only
    why="set in /etc/default/irqbalance, which is its owner's: set IRQBALANCE_BANNED_CPULIST there"
    [[ $theirs != *CPULIST* || -n $(minus "$avoided" "$current") ]] || state=ok
  elif grep -qs "CPULIST=$avoided\"" "$root$BALANCER"; then
    current=$avoided state=ok
  fi
  row balancer 'irqbalance, banned CPUs' "$avoided" "$current" "$avoided" '' "$state" "$why"
}

for_queues() {
  local name
  for name in $interfaces; do
    [[ -d $root/sys/class/net/$name/queues ]] || fail 64 "--interface $name: there is no such interface"
    receive_queues "$name"
    send_queues "$name"
  done
}

receive_queues() {
  local queues queue wanted=00000000
  queues=("$root/sys/class/net/$1/queues"/rx-*)
  # As many queues as CPUs: their interrupts already distribute the packets.
  ((${#queues[@]} >= $(expand "$others" | wc -l))) || wanted=$(mask_of "$others")
  for queue in "${queues[@]#"$root"}"; do
    setting unit "RPS of $1" "$queue/rps_cpus" spread_off_shards "$wanted" "who handles received packets: not the shard's CPU"
  done
}

# Each of the last queues belongs to the CPU of a shard, the first ones to all others. No change if this is true already, for example
# because the driver gave each CPU a queue.
send_queues() {
  local -a queues shards served=()
  local count own index list cpu
  queues=("$root/sys/class/net/$1/queues"/tx-*)
  count=${#queues[@]}
  ((count > 1)) || { absent "XPS of $1" 'one send queue, all share it'; return; }
  mapfile -t shards < <(expand "$shard_cpus")
  own=$((${#shards[@]} < count ? ${#shards[@]} : count - 1))
  for index in "${!shards[@]}"; do served[count - 1 - index % own]+="${shards[index]},"; done
  index=0
  for cpu in $(expand "$(minus "$online" "$shard_cpus")"); do
    served[index++ % (count - own)]+="$cpu,"
  done
  local rule=same_cpus
  ! separate_queues "${queues[@]}" || rule=are_separate
  for index in "${!queues[@]}"; do
    list=${served[index]:-}
    [[ -z $list ]] || list=$(mask_of "${list%,}")
    setting unit "XPS of $1" "${queues[index]#"$root"}/xps_cpus" "$rule" "${list:-00000000}" \
      "a shard's sends do not wait for another CPU's on the same queue"
  done
}

same_cpus() { [[ $(list_of "$1") == "$(list_of "$2")" ]]; }
are_separate() { :; }
# True if each CPU of a shard already has a queue that only shards use.
separate_queues() {
  local queue list own=''
  for queue in "$@"; do
    list=$(list_of "$(cat "$queue/xps_cpus" 2>/dev/null)")
    meets "$list" "$shard_cpus" || continue
    [[ -z $(minus "$list" "$shard_cpus") ]] || return 1
    own+="$list,"
  done
  [[ -z $(minus "$shard_cpus" "${own%,}") ]]
}
