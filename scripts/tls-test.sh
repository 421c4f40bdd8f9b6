#!/usr/bin/env bash
# Tests TLS as in deployments/tls: Caddy with the committed Caddyfile and a self-made certificate, a gateway behind it, and a client
# that uses wss://.
#
#   tls-test.sh    run the test; exit 1 when an answer is wrong
#
# In the Caddyfile only addresses and ports are replaced; the certificate authority is not added to the system. The script uses the newest
# odin-gateway of target/release and target/debug, and the installed Caddy, or the Debian package, unpacked to ~/.cache/odin-caddy
# (or under XDG_CACHE_HOME), because installing the package would start a server. Every process listens on 127.0.0.1, on a free port, and
# ends with the script; its files stay in target/tls-test. Exit codes: 0 done, 1 failed, 64 wrong usage, 69 not possible here.
set -euo pipefail

readonly READY_SECONDS_MAX=60

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly top
readonly folder=$top/target/tls-test

fail() {
  printf 'tls-test.sh: %s\n' "$2" >&2
  exit "$1"
}

usage() { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; }
case ${1:-} in
  '') ;;
  -h | --help | help) usage; exit 0 ;;
  *) usage >&2; fail 64 "unknown argument $1" ;;
esac

# In a separate folder that is renamed when complete, so that an interrupted or a second download leaves no partial result.
find_caddy() {
  local cache=${XDG_CACHE_HOME:-${HOME:?HOME is not set, and neither is XDG_CACHE_HOME}/.cache}/odin-caddy fresh
  caddy=$(command -v caddy) && return
  caddy=$cache/usr/bin/caddy
  [[ ! -x $caddy ]] || return 0
  mkdir -p "$cache"
  fresh=$(mktemp -d "$cache/download.XXXXXX")
  if ! (cd "$fresh" && apt-get download caddy && dpkg-deb --extract caddy_*.deb unpacked) >&2; then
    rm -rf "$fresh"
    fail 69 "no caddy here, and Debian's package could not be fetched (apt-get update first)"
  fi
  rm -rf "${cache:?}/usr"
  mv "$fresh/unpacked/usr" "$cache/usr"
  rm -rf "$fresh"
}

free_ports() {
  python3 -c '
import socket, sys
sockets = [socket.socket() for _ in range(int(sys.argv[1]))]
for one in sockets:
    one.bind(("127.0.0.1", 0))
print(*(one.getsockname()[1] for one in sockets))' "$1"
}

# await WHAT LOG COMMAND...: waits until the command succeeds.
await() {
  local what=$1 log=$2
  shift 2
  for _ in $(seq $((READY_SECONDS_MAX * 5))); do
    "$@" >/dev/null 2>"$folder/said" && return
    sleep 0.2
  done
  tail -n 10 "$log" "$folder/said" >&2
  fail 1 "no $what within $READY_SECONDS_MAX s"
}

pids=()
# shellcheck disable=SC2317 # called by the trap
stop() {
  local status=$?
  trap - EXIT
  for pid in "${pids[@]}"; do
    { kill "$pid" && wait "$pid"; } 2>/dev/null || true
  done
  exit "$status"
}

(($# == 0)) || { sed -n '/^#   tls-test.sh/s/^#   //p' "${BASH_SOURCE[0]}" >&2 && exit 64; }
for needed in curl jq python3; do
  command -v "$needed" >/dev/null || fail 69 "no $needed here (Debian: apt-get install $needed)"
done
gateway=$(find "$top/target/release/odin-gateway" "$top/target/debug/odin-gateway" -printf '%T@ %p\n' 2>/dev/null | sort -rn | head -n 1 | cut -d' ' -f2) || true
[[ -n $gateway ]] || fail 69 "no target/*/odin-gateway: cargo build -p gateway"
find_caddy
rm -rf "$folder"
mkdir -p "$folder"
# The data of Caddy, including its certificate authority.
export XDG_DATA_HOME=$folder/data XDG_CONFIG_HOME=$folder/config
trap stop EXIT
trap 'exit 1' INT TERM

# Use the name that the drop-in sets.
domain=$(sed -n 's/^Environment=ODIN_DOMAIN=//p' "$top/deployments/tls/caddy.conf")
[[ -n $domain ]] || fail 1 "caddy.conf sets no ODIN_DOMAIN, which the Caddyfile needs"
ODIN_DOMAIN=$domain "$caddy" validate --config "$top/deployments/tls/Caddyfile" --adapter caddyfile >"$folder/validate.log" 2>&1 ||
  fail 1 "$(cat "$folder/validate.log")"
"$caddy" fmt "$top/deployments/tls/Caddyfile" | cmp -s - "$top/deployments/tls/Caddyfile" || fail 1 "the Caddyfile is not formatted by 'caddy fmt'"
echo "ok    the Caddyfile is valid"

read -r gateway_port tls_port < <(free_ports 2)
# Permit one session for each address, so that a second one shows which address is counted.
env -i WS_ADDR="127.0.0.1:$gateway_port" WS_PINNING=off WS_DRAIN=1s WS_TRUSTED_PROXIES=127.0.0.1 CONN_RATE_LIMIT_ENABLED=true \
  CONN_RATE_LIMIT_IP_BURST=1 CONN_RATE_LIMIT_IP_RATE=0.001 "$gateway" --dev >"$folder/gateway.log" 2>&1 &
pids+=($!)
await gateway "$folder/gateway.log" curl -sf "http://127.0.0.1:$gateway_port/health/ready"

ODIN_DOMAIN=localhost "$caddy" adapt --config "$top/deployments/tls/Caddyfile" --adapter caddyfile 2>"$folder/adapt.log" |
  jq --arg listen "127.0.0.1:$tls_port" --arg gateway "127.0.0.1:$gateway_port" --argjson port "$tls_port" '
    .admin.disabled = true
    | .apps.pki.certificate_authorities.local.install_trust = false
    | .apps.http.https_port = $port
    | .apps.http.servers[] |= (.listen = [$listen] | .automatic_https.disable_redirects = true | .protocols = ["h1", "h2"])
    | (.. | objects | select(has("dial")) | .dial) |= if . == "127.0.0.1:3004" then $gateway else error("dials \(.)") end' \
    >"$folder/caddy.json" || fail 1 "the Caddyfile does not proxy to 127.0.0.1:3004: $(tail -n 1 "$folder/adapt.log")"
"$caddy" run --config "$folder/caddy.json" >"$folder/caddy.log" 2>&1 &
pids+=($!)
authority=$folder/data/caddy/pki/authorities/local/root.crt
await Caddy "$folder/caddy.log" curl -sf --cacert "$authority" "https://localhost:$tls_port/health/live"

python3 "$top/scripts/tls-test/client.py" "$authority" "$tls_port" "$gateway_port" || {
  tail -n 5 "$folder/caddy.log" "$folder/gateway.log" >&2
  exit 1
}
