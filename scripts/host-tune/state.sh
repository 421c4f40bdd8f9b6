# shellcheck shell=bash disable=SC2154,SC2153 # the names of files and the settings' arrays are host-tune.sh's and settings.sh's
# What host-tune.sh has to remember, and the files that it owns.
#
# The state file has a line for each value that was there before (`sysctl|unit TAB file TAB value`), for what the kernel refused,
# for the options of the last --apply, and for the folders that were made. A value is written down before it is changed, and
# never again: it survives any number of --apply. Those of `unit` are of one boot, because the kernel begins anew with its own
# and may number interrupts otherwise: after another boot they are taken anew.

declare -A before=() keeper=() refused=() options=()
kept=() made=() saved_boot=''

boot_now() { cat "$root/proc/sys/kernel/random/boot_id" 2>/dev/null || echo unknown; }

load() {
  local kind name value
  [[ -e $root$STATE ]] || return 0
  while IFS=$'\t' read -r kind name value; do
    case $kind in
      boot) saved_boot=$name ;;
      option) options[$name]=$value ;;
      made) made+=("$name") ;;
      refused) refused[$name]=yes ;;
      sysctl | unit) kept+=("$name") keeper[$name]=$kind before[$name]=$value ;;
      '#'*) ;;
      *) fail 1 "$STATE: a line that begins with $kind is none of this script's; mend the file or move it away" ;;
    esac
  done <"$root$STATE"
  # What the kernel refused before this boot it may take now.
  [[ $saved_boot == "$(boot_now)" ]] || refused=()
}

remember() { [[ -z $2 ]] || options[$1]=$2; }

# Forgets the former boot's values of `unit`.
load_boot() {
  local name all=("${kept[@]}")
  [[ $saved_boot != "$(boot_now)" ]] || return 0
  kept=() saved_boot=$(boot_now)
  for name in "${all[@]}"; do
    if [[ ${keeper[$name]} == sysctl ]]; then
      kept+=("$name")
    else
      unset "keeper[$name]" "before[$name]"
    fi
  done
}

keep() {
  [[ -z ${keeper[$2]:-} ]] || return 0
  kept+=("$2") keeper[$2]=$1 before[$2]=$(value_of "$2")
}

save() {
  local name text
  text=$(
    echo "$MARK"
    printf 'boot\t%s\n' "$saved_boot"
    for name in role shard-cpus interface port; do [[ -z ${options[$name]:-} ]] || printf 'option\t%s\t%s\n' "$name" "${options[$name]}"; done
    for name in "${made[@]}"; do printf 'made\t%s\n' "$name"; done
    for name in "${kept[@]}"; do printf '%s\t%s\t%s\n' "${keeper[$name]}" "$name" "${before[$name]}"; done
    for name in "${!refused[@]}"; do printf 'refused\t%s\n' "$name"; done | sort
  )
  write "$STATE" "$text"
}

# write FILE TEXT: whole or not at all, and only what is new. Folders that it makes are remembered.
write() {
  local path=$root$1 folder
  ! cmp -s "$path" <(printf '%s\n' "$2") || return 0
  folder=$(dirname "$path")
  make_folder "${folder#"$root"}"
  printf '%s\n' "$2" >"$path.new"
  mv "$path.new" "$path"
}

make_folder() {
  [[ ! -d $root$1 ]] || return 0
  make_folder "$(dirname "$1")"
  mkdir "$root$1"
  made+=("$1")
}

find_interfaces() {
  local path
  interfaces=${1//,/ }
  [[ -z $interfaces ]] || return 0
  for path in "$root"/sys/class/net/*/device; do
    [[ ! -e $path ]] || interfaces+=" $(basename "$(dirname "$path")")"
  done
}

refuse_foreign_files() {
  local file
  for file in "$STATE" "$SYSCTL" "$LIMITS" "$UNIT" "$BALANCER"; do
    [[ ! -e $root$file || $(head -n 1 "$root$file") == "$MARK" ]] || fail 1 "$file is there and is not of this script: move it away first"
  done
}

write_files() {
  local index name limits='' balancer='' units='' values='' reload='' restart=''
  for index in "${!states[@]}"; do
    name=${files[index]}
    case ${keepers[index]} in
      sysctl)
        [[ -z ${keeper[$name]:-} || -n ${refused[$name]:-} ]] ||
          values+=$'\n'"# ${whys[index]}"$'\n'"${names[index]} = ${currents[index]//$'\t'/ }"
        ;;
      limits)
        [[ ${states[index]} == ok ]] && ! grep -qs "hard $name\$" "$root$LIMITS" ||
          limits+=$'\n'"* hard $name"$'\n'"root hard $name"
        ;;
      balancer) [[ ${states[index]} == read-only || ${states[index]} == ok && ! -e $root$BALANCER ]] || balancer=${wanteds[index]} ;;
      unit) [[ -z ${keeper[$name]:-} ]] || units=yes ;;
    esac
  done
  if [[ -n $values ]]; then write "$SYSCTL" "$MARK$values"; else remove "$SYSCTL"; fi
  if [[ -n $limits ]]; then
    write "$LIMITS" "$MARK"$'\n'"# Of logins, from the next one on; services have limits of their own.$limits"
  else
    remove "$LIMITS"
  fi
  [[ -n $balancer || ! -e $root$BALANCER ]] || { remove "$BALANCER" && reload=yes restart=yes; }
  [[ -z $balancer ]] || write_balancer "$balancer"
  [[ -n $units || ! -e $root$UNIT ]] || { remove_unit && reload=yes; }
  [[ -z $units ]] || write_unit
  save
  [[ -z $reload ]] || systemd_reload "$restart"
  collect
}

# Both variables: old versions of irqbalance know the mask only, new ones take the list.
write_balancer() {
  local text
  printf -v text '%s\n[Service]\nEnvironment="IRQBALANCE_BANNED_CPULIST=%s" "IRQBALANCE_BANNED_CPUS=%s"' "$MARK" "$1" "$(mask_of "$1")"
  [[ $text == "$(cat "$root$BALANCER" 2>/dev/null)" ]] || reload=yes restart=yes
  write "$BALANCER" "$text"
}

write_unit() {
  local text file
  for file in "${PARTS[@]}"; do
    write "$COPY/$file" "$(<"$scripts/$file")"
  done
  [[ -x $root$COPY/host-tune.sh ]] || chmod 755 "$root$COPY/host-tune.sh"
  text=$MARK'
[Unit]
Description=Host settings of the Odin WebSocket gateway that sysctl.d cannot keep
# The cloud agent and irqbalance place interrupts, Docker loads connection tracking, nftables empties the rules that it finds: after
# them, before the gateway.
After=network.target google-guest-agent.service irqbalance.service nftables.service docker.service
Before=odin-gateway.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart='$COPY'/host-tune.sh --boot

[Install]
WantedBy=multi-user.target'
  [[ $text == "$(cat "$root$UNIT" 2>/dev/null)" ]] || reload=yes
  write "$UNIT" "$text"
  [[ -L $root$WANTED_BY ]] || {
    make_folder "$(dirname "$WANTED_BY")"
    ln -s "$UNIT" "$root$WANTED_BY"
  }
}

remove() {
  [[ ! -e $root$1 && ! -L $root$1 ]] || { rm "$root$1" && echo "removed $1"; }
}

remove_unit() {
  local file
  remove "$WANTED_BY"
  remove "$UNIT"
  for file in "${PARTS[@]}"; do rm -f "$root$COPY/$file"; done
}

# Everything that --apply has written, and the folders that it made if nobody else uses them.
remove_files() {
  local file index restart=''
  [[ ! -e $root$BALANCER ]] || restart=yes
  for file in "$SYSCTL" "$LIMITS" "$BALANCER" "$STATE"; do remove "$file"; done
  remove_unit
  for ((index = ${#made[@]} - 1; index >= 0; index--)); do
    rmdir "$root${made[index]}" 2>/dev/null || true
  done
  systemd_reload "$restart"
}
