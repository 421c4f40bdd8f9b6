# shellcheck shell=bash disable=SC2154 # root and fail are host-tune.sh's
# Sets of CPUs for host-tune.sh: the lists (0-2,5) and masks (00000000,00000027) that the kernel uses, and the assignment of the
# CPUs. Reads below $root; changes nothing.

# expand LIST: prints its CPUs, one a line.
expand() {
  local range
  for range in ${1//,/ }; do seq "${range%-*}" "${range#*-}"; done
}

# compress: prints the CPUs of standard input, one a line, as a list.
compress() {
  sort -nu | awk '
    NR == 1 { first = last = $1; next }
    $1 == last + 1 { last = $1; next }
    { text = text range() ","; first = last = $1 }
    function range() { return first == last ? first : first "-" last }
    END { if (NR) print text range() }'
}

# minus LIST LIST: prints the first list without the second.
minus() { { expand "$1" | grep -vxFf <(expand "$2") || true; } | compress; }

# meets LIST LIST: true if the lists have a CPU in common.
meets() { expand "$1" | grep -xFf <(expand "$2") >/dev/null; }

# mask_of LIST: prints the required groups of 32 bits, the highest CPUs first. The kernel adds missing groups.
mask_of() {
  local cpu group text=''
  local -a groups=(0)
  for cpu in $(expand "$1"); do groups[cpu / 32]=$((${groups[cpu / 32]:-0} | 1 << cpu % 32)); done
  for ((group = 0; group < cpu / 32 + 1; group++)); do printf -v text '%08x%s' "${groups[group]:-0}" "${text:+,$text}"; done
  echo "$text"
}

# list_of MASK: prints the mask as a list, empty for no CPU.
list_of() {
  local -a groups
  local group bit count
  IFS=, read -ra groups <<<"$1"
  count=${#groups[@]}
  for ((group = 0; group < count; group++)); do
    for ((bit = 0; bit < 32; bit++)); do
      ((16#${groups[count - 1 - group]} >> bit & 1)) || continue
      echo $((group * 32 + bit))
    done
  done | compress
}

# find_cpus [LIST]: sets online, shard_cpus (the list, or the highest CPU, where the gateway puts a single shard),
# avoided (these and the hardware threads of the same cores) and others, for everything else; others is empty if there are
# no other CPUs.
find_cpus() {
  local cpu siblings
  online=$(<"$root/sys/devices/system/cpu/online")
  shard_cpus=${1:-$(expand "$online" | tail -n 1)}
  [[ $shard_cpus =~ ^[0-9]{1,4}(-[0-9]{1,4})?(,[0-9]{1,4}(-[0-9]{1,4})?)*$ ]] || fail 64 "--shard-cpus $shard_cpus: must be a list such as 3 or 2-3,6"
  shard_cpus=$(expand "$shard_cpus" | compress)
  [[ -n $shard_cpus && -z $(minus "$shard_cpus" "$online") ]] || fail 64 "--shard-cpus ${1:-}: the CPUs of this machine are $online"
  siblings=$(for cpu in $(expand "$shard_cpus"); do
    expand "$(cat "$root/sys/devices/system/cpu/cpu$cpu/topology/thread_siblings_list" 2>/dev/null || echo "$cpu")"
  done | compress)
  avoided=$siblings
  others=$(minus "$online" "$avoided")
  # With only two threads of one core, use the shard's sibling rather than the shard's CPU.
  [[ -n $others ]] || { avoided=$shard_cpus && others=$(minus "$online" "$avoided"); }
}

# cores: prints the assignment of the CPUs.
cores() {
  local left
  left=$(minus "$avoided" "$shard_cpus")
  echo "CPUs: $online; shards on $shard_cpus${left:+, idle beside them $left}, everything else on ${others:-the same}"
}
