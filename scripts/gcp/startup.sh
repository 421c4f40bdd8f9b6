#!/usr/bin/env bash
# Runs as root at each boot of an instance: installs Docker and the requirements of install.sh. From the second boot on it changes nothing.
# The installed release sets the kernel settings (host-tune.sh), which persist.
set -euo pipefail

readonly ATTEMPTS_MAX=30
readonly PAUSE_SECONDS=${PAUSE_SECONDS:-10}

log() { echo "odin startup: $*"; }

# At the first boot the system also updates itself and holds apt's locks during that time.
apt() {
  local attempt
  for ((attempt = 1; attempt <= ATTEMPTS_MAX; attempt++)); do
    apt-get -qq "$@" >/dev/null && return
    log "apt-get $1 failed ($attempt of $ATTEMPTS_MAX)"
    sleep "$PAUSE_SECONDS"
  done
  log "no Docker without apt-get $1: mend what stands above, then restart the instance" >&2
  return 1
}

kernel=$(uname -r)
if printf '%s\n' 6.1 "$kernel" | sort -V -C; then
  log "Linux $kernel"
else
  log "Linux $kernel is too old: the gateway needs 6.1. Choose another GCP_IMAGE_FAMILY" >&2
  exit 1
fi

if ! docker compose version >/dev/null 2>&1; then
  log "installing Docker"
  export DEBIAN_FRONTEND=noninteractive
  apt update
  apt install -y --no-install-recommends docker.io docker-buildx docker-compose-v2 nftables ca-certificates curl
fi

# Without a limit the log of a container fills the disk; our compose files have one. When the host stops, the gateway drains, which takes longer than Docker's default of 15 s.
if [[ ! -f /etc/docker/daemon.json ]]; then
  mkdir -p /etc/docker
  cat >/etc/docker/daemon.json <<'JSON'
{
  "log-driver": "json-file",
  "log-opts": { "max-size": "50m", "max-file": "4" },
  "shutdown-timeout": 60
}
JSON
  systemctl restart docker
fi
systemctl enable --now docker >/dev/null 2>&1
log "ready"
