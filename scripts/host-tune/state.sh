# shellcheck shell=bash disable=SC2154,SC2153 # the names of files and the settings' arrays are host-tune.sh's and settings.sh's
# The saved state of host-tune.sh, and the files that it owns.
#
# The state file has a line for each previous value (`sysctl|unit TAB file TAB value`), for each value that the kernel refused,
# for the options of the last --apply, and for the folders that were created. A previous value is saved before its first change and
# never overwritten, so it survives any number of --apply. The values of `unit` apply to one boot, because the kernel restarts with its
# defaults and may number interrupts differently: after another boot they are saved again.

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
      *) fail 1 "$STATE: this script did not write the line that begins with $kind; correct the file or move it away" ;;
    esac
  done <"$root$STATE"
  # The kernel may now accept values that it refused before this boot.
  [[ $saved_boot == "$(boot_now)" ]] || refused=()
}

remember() { [[ -z $2 ]] || options[$1]=$2; }

# Removes the values of `unit` from the previous boot.
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

# write FILE TEXT: writes atomically, and only if the text differs. Saves the names of folders that it creates.
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
    [[ ! -e $root$file || $(head -n 1 "$root$file") == "$MARK" ]] || fail 1 "$file exists and was not written by this script: move it away first"
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

# Both variables: old versions of irqbalance read only the mask, new ones the list.
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
# Runs after the cloud agent and irqbalance, which place interrupts, Docker, which loads connection tracking, and nftables, which
# flushes existing rules, and before the gateway.
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

# Removes every file that --apply wrote, and the folders that it created if they are empty.
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
