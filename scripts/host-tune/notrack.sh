# shellcheck shell=bash disable=SC2154 # root and options are host-tune.sh's and state.sh's
# The gateway's port, out of connection tracking: an nft table of its own. What the kernel has there is treated as any other
# setting's value: the port that is not tracked, or `tracked`.
#
# A table of the same name whose rules are not this script's is somebody else's, and is never touched. A port whose address the
# host translates needs tracking, and a host with a firewall waits for its operator's --port: a rule that accepts packets by the
# state of their connection would drop those that are not tracked. nft is that of the host, so that the tests of a host that is
# made of files do not reach this machine's kernel.

readonly NOTRACK='table inet odin_notrack' # the setting's name where others have their file
readonly NOTRACK_FOREIGN="another's rules"
readonly NOTRACK_MARK='comment "host-tune.sh"'

nft() { "$root/usr/sbin/nft" "$@"; }

notrack_rules() {
  echo "tcp dport $1 notrack"
  echo "tcp sport $1 notrack"
  echo "oifname \"lo\" tcp dport $1 notrack"
}

# What stands in the table, sorted: a rule of anybody else's spoils it.
notrack_listed() { nft -nn list "$NOTRACK" 2>/dev/null | sed -n '/^\t\t/{/type filter hook/d;s/^\t*//;p}' | sort; }

notrack_value() {
  local listed port
  listed=$(notrack_listed)
  port=$(sed -n 's/^tcp dport \([0-9]*\) .*/\1/p' <<<"$listed")
  if [[ -n $port && $listed == "$(notrack_rules "$port" | sed "s/\$/ $NOTRACK_MARK/" | sort)" ]]; then
    echo "$port"
  elif nft list "$NOTRACK" >/dev/null 2>&1; then
    echo "$NOTRACK_FOREIGN"
  else
    echo tracked
  fi
}

# put_notrack PORT|tracked: in one transaction, so that no packet meets half of it.
put_notrack() {
  local all
  {
    printf 'add %s\ndelete %s\n' "$NOTRACK" "$NOTRACK"
    [[ $1 == tracked ]] || {
      mapfile -t all < <(notrack_rules "$1")
      printf '%s {\n' "$NOTRACK"
      printf '  chain prerouting {\n    type filter hook prerouting priority raw; policy accept;\n    %s %s\n  }\n' "${all[0]}" "$NOTRACK_MARK"
      printf '  chain output {\n    type filter hook output priority raw; policy accept;\n'
      # A proxy on this host is a client too: its packets pass here before they are received.
      printf '    %s %s\n    %s %s\n  }\n}\n' "${all[1]}" "$NOTRACK_MARK" "${all[2]}" "$NOTRACK_MARK"
    }
  } | nft -f - 2>/dev/null
}

for_notrack() {
  local name="tracking of the gateway's port" why='a session is no entry in the table, however many there are' port=${options[port]:-3004} current said
  if [[ ! -e $root/proc/sys/net/netfilter/nf_conntrack_max ]]; then
    absent "$name" 'connection tracking is not loaded, which is best'
  elif [[ ! -x $root/usr/sbin/nft ]]; then
    absent "$name" 'nft is not installed (Debian: apt-get install nftables)'
  elif ! said=$(nft -nn list ruleset 2>&1); then
    absent "$name" "nft shows no rules here: ${said%%$'\n'*}"
  else
    current=$(notrack_value)
    [[ $port != off ]] || port=tracked
    if [[ $current == "$NOTRACK_FOREIGN" ]]; then
      row none "$name" '' "$current" "$port" '' read-only "$NOTRACK is not of this script: it is its owner's to change"
    elif [[ $current == "$port" ]]; then
      row unit "$name" "$NOTRACK" "$current" "$port" '' ok "$why"
    elif [[ $port != tracked ]] && translates "$port" <<<"$said"; then
      absent "$name" "this host translates the address of port $port, as for a container's published port, which takes tracking"
    elif [[ -z ${options[port]:-} && $current == tracked ]] && filters_input <<<"$said"; then
      absent "$name" "a firewall stands here: once it accepts port $port whatever a connection's state, apply with --port $port"
    else
      row unit "$name" "$NOTRACK" "$current" "$port" '' "$(if [[ -n ${refused[$NOTRACK]:-} ]]; then echo refused; else echo differs; fi)" "$why"
    fi
  fi
}

# Both read the host's rules, those of iptables among them where it is built on nft.
translates() { grep -qiE "dport $1 .*(dnat|redirect)"; }
filters_input() {
  awk '/hook input/ { inside = 1; if (/policy drop/) found = 1; next } /^\t}/ { inside = 0 } inside && NF { found = 1 } END { exit !found }'
}
