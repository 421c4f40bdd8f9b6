#!/usr/bin/env bash
# Checks and sets the kernel settings of a host that carries tens of thousands of WebSocket sessions, and of the hosts of the broker and
# the load generator. Shows for each setting the current value, the wanted value and the reason.
#
#   host-tune.sh --check   [OPTION...]    show each setting; exit 1 when one differs. Needs no root
#   host-tune.sh --apply   [OPTION...]    set those that differ, now and at every boot; a second run changes nothing
#   host-tune.sh --revert                 restore every previous value, and remove every file that --apply wrote
#
#   --role ROLE           gateway (default), backend (broker and monitoring) or generator (load generator). Only a gateway's host
#                         reserves CPUs for shards and excludes a port from connection tracking; a generator needs ports to connect from
#   --shard-cpus LIST     the CPUs of the gateway's shards, such as 3 or 2-3 (default: the highest, where a single shard runs)
#   --interface NAME      the network interface, or several separated by commas (default: all hardware interfaces)
#   --port PORT|off       the gateway's port, to exclude from connection tracking (default: 3004, or off if the host has a firewall)
#   Options that are not given keep their value of the last --apply. The last three apply to a gateway's host only. Settings that
#   --apply made for another role and that the new role does not need are restored.
#
# Values that are as good as the wanted ones, or better, stay, and so do files that this script did not write. Previous values are
# saved in /var/lib/odin-host-tune/before. The systemd unit runs --boot, which sets what sysctl.d cannot set and writes no files.
# Exit codes: 0 done, 1 something differs or failed, 64 wrong usage.
# The tests set ODIN_HOST_TUNE_ROOT=DIR to use DIR in place of /.
set -euo pipefail
export LC_ALL=C
umask 022

readonly SYSCTL=/etc/sysctl.d/90-odin-gateway.conf
readonly LIMITS=/etc/security/limits.d/90-odin-gateway.conf
readonly UNIT=/etc/systemd/system/odin-host-tune.service
readonly WANTED_BY=/etc/systemd/system/multi-user.target.wants/odin-host-tune.service
readonly BALANCER=/etc/systemd/system/irqbalance.service.d/90-odin-gateway.conf
readonly COPY=/usr/local/lib/odin-host-tune # what the unit runs
readonly PARTS=(host-tune.sh host-tune/cpus.sh host-tune/notrack.sh host-tune/settings.sh host-tune/state.sh)
readonly STATE=/var/lib/odin-host-tune/before
readonly MARK='# Written by host-tune.sh; host-tune.sh --revert removes it.'

root=${ODIN_HOST_TUNE_ROOT:-}
root=${root%/}
scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly root scripts

say() { printf 'host-tune.sh: %s\n' "$*" >&2; }
fail() {
  say "$2"
  exit "$1"
}
usage() { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; }

# shellcheck source=scripts/host-tune/cpus.sh
source "$scripts/host-tune/cpus.sh"
# shellcheck source=scripts/host-tune/notrack.sh
source "$scripts/host-tune/notrack.sh"
# shellcheck source=scripts/host-tune/settings.sh
source "$scripts/host-tune/settings.sh"
# shellcheck source=scripts/host-tune/state.sh
source "$scripts/host-tune/state.sh"

# Prints the table. Equal settings of one kind share a line, with their number.
show() {
  local index
  for index in "${!names[@]}"; do
    printf '%s\037%s\037%s\037%s\037%s\n' "${names[index]}" "${currents[index]//$'\t'/ }" "${bounds[index]}${wanteds[index]}" \
      "${states[index]}" "${whys[index]}"
  done | awk -F '\037' '
    { key = $1 FS $3 FS $4 FS $5 }
    !(key in count) { order[++kinds] = key }
    { count[key]++ }
    !((key, $2) in seen) { seen[key, $2]; current[key] = current[key] (current[key] == "" ? "" : "; ") $2 }
    function width(text, least) { return length(text) > least ? length(text) : least }
    END {
      name[0] = "SETTING"; is[0] = "CURRENT"; wanted[0] = "WANTED"; state[0] = "STATE"; why[0] = "WHY"
      for (i = 1; i <= kinds; i++) {
        split(order[i], part, FS)
        name[i] = part[1] (count[order[i]] > 1 ? " (" count[order[i]] ")" : "")
        is[i] = current[order[i]]
        if (length(is[i]) > 26) is[i] = substr(is[i], 1, 23) "..."
        wanted[i] = part[2]; state[i] = part[3]; why[i] = part[4]
      }
      for (i = 0; i <= kinds; i++) { a = width(name[i], a); b = width(is[i], b); c = width(wanted[i], c); d = width(state[i], d) }
      for (i = 0; i <= kinds; i++) printf "%-" a "s  %-" b "s  %-" c "s  %-" d "s  %s\n", name[i], is[i], wanted[i], state[i], why[i]
    }'
}

tally() {
  local state
  count=0
  for state in "${states[@]}"; do [[ $state != "$1" ]] || count=$((count + 1)); done
}

# only KEEPER: removes the settings of the other keepers from the arrays.
only() {
  local index
  for index in "${!keepers[@]}"; do
    [[ ${keepers[index]} == "$1" ]] || unset "names[index]" "files[index]" "currents[index]" "wanteds[index]" "bounds[index]" \
      "states[index]" "whys[index]" "keepers[index]"
  done
}

# Prints the last lines and sets differing.
summary() {
  local count ok
  tally ok; ok=$count
  tally differs; differing=$count
  printf '\n%d settings: %d ok, %d differ' "${#states[@]}" "$ok" "$differing"
  for state in read-only refused 'not here'; do
    tally "$state"
    ((count == 0)) || printf ', %d %s' "$count" "$state"
  done
  echo
  tally read-only
  ((count == 0)) || echo "read-only: a container shows them but cannot set them; run this on the host itself"
  tally refused
  ((count == 0)) || echo "refused: the kernel rejected the value; some interrupts cannot be moved"
  notes
}

notes() {
  local file folder key text
  for folder in /usr/lib /run /etc; do
    for file in "$root$folder"/sysctl.d/*.conf; do
      [[ -f $file && ${file##*/} > ${SYSCTL##*/} ]] || continue
      for key in "${kept[@]}"; do
        [[ ${keeper[$key]} == sysctl ]] || continue
        text=${key#/proc/sys/}
        ! grep -qE "^[[:space:]]*-?${text//\//[./]}[[:space:]]*=" "$file" ||
          echo "note: ${file#"$root"} sets ${text//\//.} too, and overrides this setting at boot"
      done
    done
  done
}

check() {
  collect
  if [[ $role == gateway ]]; then cores; else echo "CPUs: $online; a $role host reserves none for shards"; fi
  echo
  show
  summary
  ((differing == 0)) || { echo "to set them: host-tune.sh --apply as root"; exit 1; }
}

# set_differing [KEEPER]: saves the current values and writes those that differ. Records values that the kernel refuses.
set_differing() {
  local index file
  for index in "${!states[@]}"; do
    [[ ${states[index]} == differs && -n ${files[index]} && ${keepers[index]} =~ ^(${1:-sysctl|unit})$ ]] || continue
    keep "${keepers[index]}" "${files[index]}"
  done
  save
  for index in "${!states[@]}"; do
    file=${files[index]}
    [[ ${states[index]} == differs && ${keepers[index]} =~ ^(${1:-sysctl|unit})$ ]] || continue
    if put "$file" "${wanteds[index]}"; then
      echo "${names[index]} (${file}): ${currents[index]//$'\t'/ } -> ${wanteds[index]}"
    else
      refused[$file]=yes
    fi
  done
  save
}

# Settings for another role, or for CPUs and interfaces that are no longer named.
put_back_unwanted() {
  local file all=("${kept[@]}")
  kept=()
  for file in "${all[@]}"; do
    if [[ $'\n'$(printf '%s\n' "${files[@]}")$'\n' != *$'\n'$file$'\n'* ]] && put_back "$file"; then
      unset "keeper[$file]" "before[$file]"
    else
      kept+=("$file")
    fi
  done
}

put() {
  case $1 in
    "$NOTRACK") put_notrack "$2" ;;
    *) { printf '%s\n' "$2" >"$root$1"; } 2>/dev/null ;;
  esac
}

exists() { if [[ $1 == "$NOTRACK" ]]; then [[ -x $root/usr/sbin/nft ]]; else [[ -e $root$1 ]]; fi; }

# put_back FILE: restores the previous value.
put_back() {
  local file=$1 current
  if [[ ${keeper[$file]} == unit && $saved_boot != "$(boot_now)" ]] || ! exists "$file"; then
    echo "$file: does not exist since the last boot, nothing to restore"
    return
  fi
  current=$(value_of "$file") || current=''
  if [[ $file == "$NOTRACK" && $current == "$NOTRACK_FOREIGN" ]]; then
    echo "$file: now $current, which this script did not set; not changed"
  elif [[ $current == "${before[$file]}" ]]; then
    return
  elif put "$file" "${before[$file]}"; then
    echo "$file: ${before[$file]//$'\t'/ }"
  else
    say "$file: ${before[$file]} could not be written"
    return 1
  fi
}

apply() {
  need_root
  refuse_foreign_files
  load_boot
  collect
  [[ -n $* ]] || put_back_unwanted
  set_differing "$@"
  collect
  if [[ -n $* ]]; then only "$1"; else write_files; fi
  summary
  ((differing == 0)) || { show | grep -E '^SETTING|differs'; exit 1; }
}

need_root() {
  ((EUID == 0)) || [[ -n $root && -w $root ]] || fail 1 "--$action changes the kernel's settings: run it as root (sudo $0 --$action)"
}

systemd_reload() {
  [[ -z $root && -d /run/systemd/system ]] || return 0
  systemctl daemon-reload || say "systemctl daemon-reload failed: run it by hand"
  [[ -z ${1:-} ]] || systemctl try-restart irqbalance.service || say "irqbalance could not be restarted: run systemctl restart irqbalance"
}

revert() {
  local file failed=0
  need_root
  [[ -e $root$STATE ]] || { echo "nothing to revert: $STATE is not there"; return; }
  refuse_foreign_files
  for file in "${kept[@]}"; do
    put_back "$file" || failed=$((failed + 1))
  done
  ((failed == 0)) || fail 1 "$failed values could not be restored; no file was removed: run --revert again"
  remove_files
}

action='' shard_list='' interface_list='' role='' port=''
while (($#)); do
  case $1 in
    --check | --apply | --revert | --boot)
      [[ -z $action ]] || fail 64 "--check, --apply and --revert exclude each other: give one"
      action=${1#--}
      shift
      ;;
    --shard-cpus | --interface | --port | --role)
      [[ -n ${2:-} ]] || fail 64 "$1 needs a value"
      case $1 in
        --shard-cpus) shard_list=$2 ;;
        --interface) interface_list=$2 ;;
        --port)
          [[ $2 == off || $2 =~ ^[1-9][0-9]{0,4}$ && $2 -le 65535 ]] || fail 64 "--port $2: must be 1 to 65535, or off"
          port=$2
          ;;
        --role) [[ $2 =~ ^(gateway|backend|generator)$ ]] || fail 64 "--role $2: must be gateway, backend or generator"; role=$2 ;;
      esac
      shift 2
      ;;
    --help | -h | help) usage; exit 0 ;;
    *) usage >&2; fail 64 "unknown argument $1" ;;
  esac
done
[[ -n $action ]] || { usage >&2; exit 64; }

load
[[ $action != revert ]] || { revert; exit; }
remember shard-cpus "$shard_list"
remember interface "$interface_list"
remember port "$port"
remember role "$role"
role=${options[role]:-gateway}
[[ $role == gateway || -z $shard_list$interface_list$port ]] ||
  fail 64 "--shard-cpus, --interface and --port need --role gateway; the role of this host is $role"
find_cpus "${options[shard-cpus]:-}"
find_interfaces "${options[interface]:-}"
case $action in
  check) check ;;
  apply) apply ;;
  boot) apply unit ;;
esac
