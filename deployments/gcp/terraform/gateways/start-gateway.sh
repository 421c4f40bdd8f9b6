#!/usr/bin/env bash
# Runs as root at each boot of a gateway's host, after startup.sh: installs files, tunes the host, starts the gateway and the agent that
# writes its metrics. The instance's metadata contain all input.
set -euo pipefail

readonly SERVER=http://metadata.google.internal/computeMetadata/v1
readonly ROOT=${ODIN_ROOT:-/opt/odin/current}
readonly AGENT=${ODIN_OPS_AGENT:-/etc/google-cloud-ops-agent}

metadata() { curl -fsS -m 10 --retry 5 -H 'Metadata-Flavor: Google' "$SERVER/instance/$1"; }
attribute() { metadata "attributes/odin-$1"; }

mkdir -p "$ROOT"
attribute files | python3 -c '
import json, os, sys
for path, content in json.load(sys.stdin).items():
    path = os.path.join(sys.argv[1], path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(content)
    os.chmod(path, 0o755 if path.endswith(".sh") else 0o644)
' "$ROOT"

# Start the gateway even if this host lacks a setting.
"$ROOT/scripts/host-tune.sh" --apply || echo "host-tune.sh --apply ended with $?"

cd "$ROOT/deployments/gcp/distributed/ws-server"
images=$(attribute images) tag=$(attribute tag)
printf 'BACKEND_INTERNAL_IP=%s\nINSTANCE=%s\nODIN_IMAGES=%s\nODIN_TAG=%s\n' \
  "$(attribute backend-address)" "$(hostname)" "$images" "$tag" >.env
"$ROOT/scripts/gcp/registry-login.sh" "$images"
docker pull --quiet "${images}odin-gateway:$tag"
docker compose up -d --no-build --remove-orphans

# The gateway's metrics into Cloud Monitoring: the autoscaler reads ws_connections_active there.
if ! systemctl cat google-cloud-ops-agent >/dev/null 2>&1; then
  curl -fsS --retry 5 -o /tmp/ops-agent.sh https://dl.google.com/cloudagents/add-google-cloud-ops-agent-repo.sh
  bash /tmp/ops-agent.sh --also-install
fi
cat >"$AGENT/config.yaml" <<YAML
metrics:
  receivers:
    gateway:
      type: prometheus
      config:
        scrape_configs:
          - job_name: $(attribute job)
            scrape_interval: 30s
            static_configs:
              - targets: ["127.0.0.1:$(attribute port)"]
  service:
    pipelines:
      gateway:
        receivers: [gateway]
YAML
systemctl restart google-cloud-ops-agent
