#!/usr/bin/env bash
# Runs as root at each boot of an instance: Docker, and what install.sh needs. Finds its work done at the second boot. The kernel's
# settings come with the release that is installed (host-tune.sh), and stay.
set -euo pipefail

log() { echo "odin startup: $*"; }

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
  apt-get -qq update
  apt-get -qq install -y --no-install-recommends docker.io docker-buildx docker-compose-v2 ca-certificates curl >/dev/null
fi

# A container's log would fill the disk. The gateway is stopped with its drain when the host is: Docker's 15 s would cut that.
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
