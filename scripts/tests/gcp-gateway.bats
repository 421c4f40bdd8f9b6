#!/usr/bin/env bats
# start-gateway.sh of deployments/gcp/terraform, with an instance's metadata in a folder.
# shellcheck disable=SC2016 # the fakes expand it

setup() {
  script=$BATS_TEST_DIRNAME/../../deployments/gcp/terraform/gateways/start-gateway.sh
  export FAKE_HOST=$BATS_TEST_TMPDIR ODIN_ROOT=$BATS_TEST_TMPDIR/current ODIN_OPS_AGENT=$BATS_TEST_TMPDIR/agent
  export METADATA=$BATS_TEST_TMPDIR/metadata PATH=$BATS_TEST_TMPDIR/bin:$PATH
  mkdir -p "$BATS_TEST_TMPDIR/bin" "$METADATA/attributes" "$METADATA/service-accounts/default" "$ODIN_OPS_AGENT"
  cp "$BATS_TEST_DIRNAME/fake/docker" "$BATS_TEST_TMPDIR/bin/"
  printf '#!/bin/sh\nfor url; do :; done\ncat "$METADATA/${url#*/instance/}"\n' >"$BATS_TEST_TMPDIR/bin/curl"
  printf '#!/bin/sh\necho "$*" >>"$FAKE_HOST/systemctl"\n' >"$BATS_TEST_TMPDIR/bin/systemctl"
  chmod +x "$BATS_TEST_TMPDIR/bin/"*
  # What Terraform gives a host: text, without the mode of the file.
  python3 - "$BATS_TEST_DIRNAME/../gcp/registry-login.sh" >"$METADATA/attributes/odin-files" <<'PYTHON'
import json, sys
print(json.dumps({
    "deployments/gcp/distributed/ws-server/docker-compose.yml": "services: {}\n",
    "deployments/gcp/distributed/ws-server/.env.production": "WS_ADDR=:3004\n",
    "scripts/gcp/registry-login.sh": open(sys.argv[1]).read(),
    "scripts/host-tune.sh": '#!/bin/sh\necho "$*" >"$FAKE_HOST/tuned"\nexit 1\n'}))
PYTHON
  for pair in images=us-central1-docker.pkg.dev/p/odin/ tag=0a1b2c3d4e5f backend-address=10.128.0.2 port=3004 job=odin-ws-go-us-central1; do
    printf '%s' "${pair#*=}" >"$METADATA/attributes/odin-${pair%%=*}"
  done
  echo '{"access_token":"ya29.secret","expires_in":3599}' >"$METADATA/service-accounts/default/token"
}

@test "a host gets its files, is tuned, and runs the image it was told to" {
  bash "$script"
  folder=$ODIN_ROOT/deployments/gcp/distributed/ws-server
  [ "$(cat "$folder/.env.production")" = WS_ADDR=:3004 ]
  [ "$(cat "$FAKE_HOST/tuned")" = --apply ]
  [ "$(head -n 1 "$folder/.env")" = BACKEND_INTERNAL_IP=10.128.0.2 ]
  grep -qx 'ODIN_IMAGES=us-central1-docker.pkg.dev/p/odin/' "$folder/.env"
  grep -qx 'ODIN_TAG=0a1b2c3d4e5f' "$folder/.env"
  grep -q 'pull --quiet us-central1-docker.pkg.dev/p/odin/odin-gateway:0a1b2c3d4e5f$' "$FAKE_HOST/docker"
  tail -n 1 "$FAKE_HOST/docker" | grep -q -- 'compose up -d --no-build'
}

@test "the registry's token is no argument of a command" {
  bash "$script"
  grep -q 'login -u oauth2accesstoken --password-stdin https://us-central1-docker.pkg.dev' "$FAKE_HOST/docker"
  run grep -r ya29 "$FAKE_HOST/docker" "$FAKE_HOST/systemctl" "$ODIN_ROOT"
  [ "$status" = 1 ]
}

@test "the agent scrapes the gateway under the job that the autoscaler looks for" {
  bash "$script"
  python3 - "$ODIN_OPS_AGENT/config.yaml" <<'PYTHON'
import re, sys
text = open(sys.argv[1]).read()
assert re.search(r"job_name: odin-ws-go-us-central1\n", text), text
assert '- targets: ["127.0.0.1:3004"]' in text, text
PYTHON
  tail -n 1 "$FAKE_HOST/systemctl" | grep -qx 'restart google-cloud-ops-agent'
}

@test "an image that cannot be had ends it: the host never becomes ready" {
  FAKE_DOCKER_FAILS=' pull ' run bash "$script"
  [ "$status" != 0 ]
  run grep ' up -d' "$FAKE_HOST/docker"
  [ "$status" = 1 ]
}

@test "again, as at every boot, it ends the same" {
  bash "$script"
  find "$ODIN_ROOT" "$ODIN_OPS_AGENT" -type f -exec sha256sum {} + | sort >"$BATS_TEST_TMPDIR/first"
  bash "$script"
  find "$ODIN_ROOT" "$ODIN_OPS_AGENT" -type f -exec sha256sum {} + | sort | diff "$BATS_TEST_TMPDIR/first" -
}
