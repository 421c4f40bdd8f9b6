#!/usr/bin/env bats
# gcp-deploy.sh and gcp-fleet.sh against hosts that are folders: gcloud, docker, curl and sudo are those of fake/, the rest is real.
# The repository that is deployed is made here, with the paths of the real one.
# shellcheck disable=SC2016 # what the hosts run is expanded there

setup() {
  export FAKE_CLOUD=$BATS_TEST_TMPDIR/cloud PATH=$BATS_TEST_DIRNAME/fake:$PATH
  export GCP_PROJECT=odin-test OPERATOR_RANGES=203.0.113.7/32 READY_SECONDS_MAX=0 SSH_PAUSE_SECONDS=0
  repository=$BATS_TEST_TMPDIR/repository
  folder=$repository/deployments/gcp/distributed
  mkdir -p "$FAKE_CLOUD" "$repository/scripts" "$folder"/{backend/prometheus/targets,ws-server}
  cp "$BATS_TEST_DIRNAME/../../deployments/gcp/cloudbuild.yaml" "$repository/deployments/gcp/"
  cp -r "$BATS_TEST_DIRNAME"/../{gcp,gcp.env,gcp-*.sh} "$repository/scripts/"
  printf '#!/bin/sh\necho "$0 $*" >>"$FAKE_HOST/tuned"\n' >"$repository/scripts/host-tune.sh"
  chmod +x "$repository/scripts/host-tune.sh"
  echo 'services: {}' | tee "$folder/backend/docker-compose.yml" >"$folder/ws-server/docker-compose.yml"
  echo '- targets: [odin-ws-go:3004]' >"$folder/backend/prometheus/targets/gateways.yml"
  printf 'WS_MAX_CONNECTIONS=12000\nLOG_LEVEL=info\n' >"$folder/ws-server/.env.production"
  git -C "$repository" init -q
  commit first
  "$repository/scripts/gcp-provision.sh" up 2>/dev/null
  : >"$FAKE_CLOUD/calls"
  ws=$FAKE_CLOUD/hosts/odin-ws-go/opt/odin
  backend=$FAKE_CLOUD/hosts/odin-backend/opt/odin
}

commit() {
  git -C "$repository" add -A
  git -C "$repository" -c user.name=test -c user.email=test@localhost commit -qm "$1"
}

deploy() { "$repository/scripts/gcp-deploy.sh" "$@"; }
production() { cat "$ws/current/deployments/gcp/distributed/ws-server/.env.production"; }

@test "all puts the same revision on the backend, then on the gateway" {
  deploy all
  revision=$(git -C "$repository" rev-parse --short=12 HEAD)
  [ "$(basename "$(readlink "$ws/current")")" = "$revision" ]
  [ "$(basename "$(readlink "$backend/current")")" = "$revision" ]
  [ "$(grep -n 'ssh odin-backend .*install.sh' "$FAKE_CLOUD/calls" | head -n 1 | cut -d: -f1)" -lt \
    "$(grep -n 'ssh odin-ws-go .*install.sh' "$FAKE_CLOUD/calls" | head -n 1 | cut -d: -f1)" ]
}

@test "each host knows the backend's internal address, and is tuned" {
  deploy all
  grep -qx 'BACKEND_INTERNAL_IP=10.128.0.2' "$ws/current/deployments/gcp/distributed/ws-server/.env"
  grep -qx 'INSTANCE=odin-ws-go' "$ws/current/deployments/gcp/distributed/ws-server/.env"
  grep -qx 'BACKEND_INTERNAL_IP=10.128.0.2' "$backend/current/deployments/gcp/distributed/backend/.env"
  grep -q -- '--apply --role gateway$' "$FAKE_CLOUD/hosts/odin-ws-go/tuned"
  grep -q -- '--apply --role backend$' "$FAKE_CLOUD/hosts/odin-backend/tuned"
}

revision() { git -C "$repository" rev-parse --short=12 "${1:-HEAD}"; }
registry=us-central1-docker.pkg.dev/odin-test/odin

@test "the images are made once for a commit, by Cloud Build, of what is committed" {
  echo draft >"$repository/draft"
  deploy all
  [ "$(grep -c '^builds submit' "$FAKE_CLOUD/calls")" = 1 ]
  [ "$(sort "$FAKE_CLOUD/images")" = "$registry/odin-gateway:$(revision)"$'\n'"$registry/odin-publisher:$(revision)" ]
  grep -qx deployments/gcp/distributed/ws-server/docker-compose.yml "$FAKE_CLOUD/built"
  [ "$(grep -c draft "$FAKE_CLOUD/built")" = 0 ]
  deploy ws
  [ "$(grep -c '^builds submit' "$FAKE_CLOUD/calls")" = 1 ]
  rm "$repository/draft"
  echo more >"$repository/more"
  commit second
  deploy ws
  [ "$(grep -c '^builds submit' "$FAKE_CLOUD/calls")" = 2 ]
}

@test "--rebuild makes them again" {
  deploy ws
  deploy --rebuild ws
  [ "$(grep -c '^builds submit' "$FAKE_CLOUD/calls")" = 2 ]
}

@test "one of the two images is none: both are made again" {
  deploy images
  sed -i /odin-publisher/d "$FAKE_CLOUD/images"
  deploy images
  [ "$(grep -c '^builds submit' "$FAKE_CLOUD/calls")" = 2 ]
}

@test "images alone touches no host, and prints the tag" {
  [ "$(deploy images 2>/dev/null)" = "$(revision)" ]
  [ "$(grep -cE '^compute (ssh|scp)' "$FAKE_CLOUD/calls")" = 0 ]
  [ "$(deploy images 2>/dev/null)" = "$(revision)" ]
}

@test "a failed build reaches no host" {
  FAKE_FAILS='builds submit' run deploy all
  [ "$status" = 1 ]
  [[ $output == *"Cloud Build made no images of $(revision); nothing was deployed"* ]]
  [ "$(grep -cE '^compute (ssh|scp)' "$FAKE_CLOUD/calls")" = 0 ]
}

@test "without a registry it says what creates it" {
  rm "$FAKE_CLOUD/repositories/odin"
  run deploy ws
  [ "$status" = 1 ]
  [[ $output == *"there is no repository $registry"*"gcp-provision.sh up images"* ]]
  [ "$(grep -c '^builds submit' "$FAKE_CLOUD/calls")" = 0 ]
}

@test "a host pulls the commit's image before it replaces what runs, builds nothing, and waits for ready" {
  deploy all
  host() { sed 's/^[^ ]*: //' "$FAKE_CLOUD/hosts/$1/docker"; }
  for pair in odin-ws-go=odin-gateway odin-backend=odin-publisher; do
    [ "$(host "${pair%=*}")" = "compose version
login -u oauth2accesstoken --password-stdin https://us-central1-docker.pkg.dev
pull --quiet $registry/${pair#*=}:$(revision)
compose up -d --no-build --remove-orphans" ]
  done
  grep -q 'http://127.0.0.1:3004/health/ready' "$FAKE_CLOUD/curl"
}

@test "what a host's compose file takes is the commit's image, an older commit's after going back" {
  deploy ws
  grep -qx "ODIN_IMAGES=$registry/" "$ws/settings/ws-server.env"
  grep -qx "ODIN_TAG=$(revision)" "$ws/settings/ws-server.env"
  echo more >"$repository/more"
  commit second
  deploy ws
  deploy --revision HEAD~1 ws
  grep -qx "ODIN_TAG=$(revision HEAD~1)" "$ws/settings/ws-server.env"
  tail -n 2 "$FAKE_CLOUD/hosts/odin-ws-go/docker" | grep -q "pull --quiet $registry/odin-gateway:$(revision HEAD~1)$"
  [ "$(grep -c '^builds submit' "$FAKE_CLOUD/calls")" = 2 ]
}

@test "the registry's token stays on the host, and is no argument of a command" {
  deploy ws
  grep -q 'login -u oauth2accesstoken --password-stdin' "$FAKE_CLOUD/hosts/odin-ws-go/docker"
  run grep -r ya29 "$FAKE_CLOUD"
  [ "$status" = 1 ]
}

@test "Grafana's password is drawn once, is nobody else's to read, and never passes through a command" {
  deploy backend
  [ "$(stat -c %a "$backend/settings/backend.env")" = 600 ]
  password=$(grep -o 'GF_SECURITY_ADMIN_PASSWORD=.\{32\}$' "$backend/settings/backend.env")
  deploy backend
  [ "$(grep GF_SECURITY_ADMIN_PASSWORD "$backend/settings/backend.env")" = "$password" ]
  run grep "${password#*=}" "$FAKE_CLOUD/calls"
  [ "$status" = 1 ]
}

@test "an .env.production that nobody edited follows the release" {
  deploy ws
  sed -i 's/12000/15000/' "$folder/ws-server/.env.production"
  commit second
  deploy ws
  production | grep -qx WS_MAX_CONNECTIONS=15000
}

@test "an edited .env.production outlives a release that does not touch it" {
  deploy ws
  sed -i 's/info/debug/' "$ws/settings/ws-server.env.production"
  echo more >"$repository/more"
  commit second
  run deploy ws
  [ "$status" = 0 ]
  [[ $output == *"kept the .env.production that was edited"* ]]
  production | grep -qx LOG_LEVEL=debug
}

@test "an edited .env.production is not overwritten unasked: the deploy stops and shows the difference" {
  deploy ws
  sed -i 's/info/debug/' "$ws/settings/ws-server.env.production"
  sed -i 's/12000/15000/' "$folder/ws-server/.env.production"
  commit second
  ran=$(wc -l <"$FAKE_CLOUD/hosts/odin-ws-go/docker")
  run deploy ws
  [ "$status" = 3 ]
  [[ $output == *"-LOG_LEVEL=debug"* && $output == *"+WS_MAX_CONNECTIONS=15000"* && $output == *"--env keep or --env replace"* ]]
  production | grep -qx LOG_LEVEL=debug
  [ "$(tail -n +$((ran + 1)) "$FAKE_CLOUD/hosts/odin-ws-go/docker" | grep -c 'compose up')" = 0 ]

  deploy --env keep ws
  production | grep -qx WS_MAX_CONNECTIONS=12000
  deploy --env keep ws # decided: not asked again
  deploy ws

  sed -i 's/15000/18000/' "$folder/ws-server/.env.production"
  commit third
  deploy --env replace ws
  production | grep -qx WS_MAX_CONNECTIONS=18000
  grep -qx LOG_LEVEL=debug "$ws"/settings/ws-server.env.production.before-*
}

@test "what is not ready fails the deploy, and the gateways behind it are left alone" {
  "$repository/scripts/gcp-provision.sh" up 2>/dev/null
  WS_INSTANCE=odin-ws-go,odin-ws-go-2 "$repository/scripts/gcp-provision.sh" up ws 2>/dev/null
  export WS_INSTANCE=odin-ws-go,odin-ws-go-2
  FAKE_CURL_FAILS=health/ready run deploy ws
  [ "$status" = 1 ]
  [[ $output == *"not ready after"* && $output == *"nothing else was deployed"* ]]
  [ ! -e "$FAKE_CLOUD/hosts/odin-ws-go-2" ]
  [ ! -e "$ws/current" ]
  deploy ws
  [ -e "$FAKE_CLOUD/hosts/odin-ws-go-2/opt/odin/current" ]
}

@test "an image that cannot be pulled replaces nothing, and leaves the host's settings as they were" {
  deploy ws
  cp -r "$ws/settings" "$BATS_TEST_TMPDIR/settings"
  sed -i 's/12000/15000/' "$folder/ws-server/.env.production"
  commit second
  for failing in ' pull ' ' login '; do
    ran=$(wc -l <"$FAKE_CLOUD/hosts/odin-ws-go/docker")
    FAKE_DOCKER_FAILS=$failing run deploy ws
    [ "$status" = 1 ]
    [[ $output == *"the previous containers still run"* ]]
    [ "$(tail -n +$((ran + 1)) "$FAKE_CLOUD/hosts/odin-ws-go/docker" | grep -c 'compose up')" = 0 ]
    diff -r "$BATS_TEST_TMPDIR/settings" "$ws/settings"
  done
}

@test "a host that acts as no account is told what gives it one" {
  FAKE_CURL_FAILS=service-accounts/default/token run deploy ws
  [ "$status" = 1 ]
  [[ $output == *"acts as no service account"*"gcp-provision.sh up"* ]]
}

@test "an older revision goes back" {
  deploy ws
  first=$(readlink "$ws/current")
  echo more >"$repository/more"
  commit second
  deploy ws
  [ "$(readlink "$ws/current")" != "$first" ]
  deploy --revision HEAD~1 ws
  [ "$(readlink "$ws/current")" = "$first" ]
  run deploy --revision nowhere ws
  [ "$status" = 64 ]
}

@test "the last three releases stay" {
  for number in 1 2 3 4 5; do
    echo "$number" >"$repository/number"
    commit "$number"
    deploy ws
  done
  [ "$(find "$ws/releases" -mindepth 1 -maxdepth 1 | wc -l)" = 3 ]
  [ -d "$ws/current/scripts" ]
}

@test "what is not committed is not deployed, and is told" {
  echo LOG_LEVEL=trace >"$folder/ws-server/.env.production"
  run deploy ws
  [ "$status" = 0 ]
  [[ $output == *"uncommitted changes are not deployed"* ]]
  production | grep -qx LOG_LEVEL=info
}

@test "Prometheus gets every gateway" {
  WS_INSTANCE=odin-ws-go,odin-ws-go-2 deploy backend
  [ "$(grep -c -- '- odin-ws-go' "$backend/current/deployments/gcp/distributed/backend/prometheus/targets/gateways.yml")" = 2 ]
}

@test "without the backend's instance it says what creates it" {
  rm "$FAKE_CLOUD/instances/odin-backend"
  run deploy all
  [ "$status" = 1 ]
  [[ $output == *"gcp-provision.sh up creates it"* ]]
}

@test "the load generator's host builds odin-bench with the images' toolchain" {
  deploy loadtest
  grep -q -- '--apply --role generator$' "$FAKE_CLOUD/hosts/odin-loadtest/tuned"
  grep -q 'run .*rust:.* cargo build --release --locked -p bench' "$FAKE_CLOUD/hosts/odin-loadtest/docker"
}

@test "--dry-run changes nothing and names the same hosts in the same order" {
  deploy --dry-run all >"$BATS_TEST_TMPDIR/lines"
  [ ! -s "$FAKE_CLOUD/calls" ]
  deploy all
  [ "$(sed -n 's/^gcloud builds submit [^ ]* //p' "$BATS_TEST_TMPDIR/lines")" = \
    "$(sed -n 's/^builds submit [^ ]* //p' "$FAKE_CLOUD/calls" | sed 's/ $//; s/\\//g')" ]
  hosts() { grep -oE 'compute (ssh|scp .*install.sh) odin-[a-z-]+' | grep -oE 'odin-(backend|ws-go)$'; }
  [ "$(hosts <"$BATS_TEST_TMPDIR/lines")" = "$(hosts <"$FAKE_CLOUD/calls")" ]
  [ -n "$(hosts <"$FAKE_CLOUD/calls")" ]
}

@test "the fleet: docker compose runs in the folder of the release, urls and health are those of the hosts" {
  deploy all
  "$repository/scripts/gcp-fleet.sh" restart ws
  tail -n 1 "$FAKE_CLOUD/hosts/odin-ws-go/docker" | grep -q "/releases/[0-9a-f]*/deployments/gcp/distributed/ws-server: compose restart"
  "$repository/scripts/gcp-fleet.sh" urls | grep -qx 'WebSocket   ws://203.0.113.20:3004/ws'
  run "$repository/scripts/gcp-fleet.sh" health all
  [ "$status" = 0 ]
  FAKE_CURL_FAILS=3004 run "$repository/scripts/gcp-fleet.sh" health ws
  [ "$status" = 1 ]
}

# systemd-run looks for a relative path where it is called, which is nobody's folder here.
@test "the load test is a unit that systemd finds wherever it is called from" {
  run "$repository/scripts/gcp-fleet.sh" --dry-run load-test capacity
  [ "$status" = 0 ]
  program=$(grep -oE '[^ ]*scripts/load-test\.sh capacity' <<<"$output")
  [ "$program" = "/opt/odin/current/scripts/load-test.sh capacity" ]
}
