# shellcheck shell=bash disable=SC2154 # root and options are host-tune.sh's and state.sh's
# Excludes the gateway's port from connection tracking, with a separate nft table. The value of the setting is the port that is not
# tracked, or `tracked`.
#
# A table of the same name with other rules belongs to another program and is never changed. A port whose address the host translates
# needs tracking. On a host with a firewall the operator must give --port: a rule that accepts packets by connection state would drop
# untracked packets. The script runs the nft of $root, so that tests with a simulated host do not change this machine's kernel.

readonly NOTRACK='table inet odin_notrack' # the setting's name where others have their file
readonly NOTRACK_FOREIGN="another's rules"
readonly NOTRACK_MARK='comment "host-tune.sh"'

nft() { "$root/usr/sbin/nft" "$@"; }

notrack_rules() {
  echo "tcp dport $1 notrack"
  echo "tcp sport $1 notrack"
  echo "oifname \"lo\" tcp dport $1 notrack"
}

# Prints the rules of the table, sorted; a rule of another program makes it foreign.
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

# put_notrack PORT|tracked: in one transaction, so that no packet sees a part of the rules.
put_notrack() {
  local all
  {
    printf 'add %s\ndelete %s\n' "$NOTRACK" "$NOTRACK"
    [[ $1 == tracked ]] || {
      mapfile -t all < <(notrack_rules "$1")
      printf '%s {\n' "$NOTRACK"
      printf '  chain prerouting {\n    type filter hook prerouting priority raw; policy accept;\n    %s %s\n  }\n' "${all[0]}" "$NOTRACK_MARK"
      printf '  chain output {\n    type filter hook output priority raw; policy accept;\n'
      # A proxy on this host is a client too: its packets pass this hook before they are received.
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
      row none "$name" '' "$current" "$port" '' read-only "another program owns $NOTRACK: only its owner may change it"
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

# Both read the rules of the host, including those of an iptables that is built on nft.
translates() { grep -qiE "dport $1 .*(dnat|redirect)"; }
filters_input() {
  awk '/hook input/ { inside = 1; if (/policy drop/) found = 1; next } /^\t}/ { inside = 0 } inside && NF { found = 1 } END { exit !found }'
}
