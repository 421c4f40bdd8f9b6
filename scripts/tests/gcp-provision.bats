#!/usr/bin/env bats
# gcp-provision.sh against a Google Cloud in a folder (fake/gcloud).

setup() {
  scripts=$(cd "$BATS_TEST_DIRNAME/.." && pwd)
  export FAKE_CLOUD=$BATS_TEST_TMPDIR/cloud PATH=$BATS_TEST_DIRNAME/fake:$PATH
  export GCP_PROJECT=odin-test OPERATOR_RANGES=203.0.113.7/32 GRANT_PAUSE_SECONDS=0
  mkdir -p "$FAKE_CLOUD"
  calls=$FAKE_CLOUD/calls
}

provision() { "$scripts/gcp-provision.sh" "$@"; }
calls_of() { grep -cE "compute [a-z-]+ ($1) " "$calls" || true; }
build=odin-build@odin-test.iam.gserviceaccount.com host=odin-host@odin-test.iam.gserviceaccount.com

@test "from nothing it creates three instances, six rules, an address and a registry" {
  provision up
  [ "$(ls "$FAKE_CLOUD/instances")" = $'odin-backend\nodin-loadtest\nodin-ws-go' ]
  [ "$(find "$FAKE_CLOUD/firewall-rules" -type f | wc -l)" = 6 ]
  [ "$(ls "$FAKE_CLOUD/addresses")" = odin-ws-go-ip ]
  [ "$(ls "$FAKE_CLOUD/repositories")" = odin ]
  [ "$(ls "$FAKE_CLOUD/service-accounts")" = "$build"$'\n'"$host" ]
}

@test "one account may build, another only read the one registry, and those who pull act as that" {
  provision up
  [ "$(sort "$FAKE_CLOUD/policy")" = "odin roles/artifactregistry.reader serviceAccount:$host
odin-test roles/cloudbuild.builds.builder serviceAccount:$build" ]
  [ "$(cut -d' ' -f3 "$FAKE_CLOUD/instances/odin-backend")" = "$host" ]
  [ "$(cut -d' ' -f3 "$FAKE_CLOUD/instances/odin-ws-go")" = "$host" ]
  grep -q 'instances create odin-loadtest .*--no-service-account' "$calls"
  for api in artifactregistry cloudbuild; do grep -qx "$api.googleapis.com" "$FAKE_CLOUD/services"; done
}

@test "what is there of the images stays: only the services and roles that are missing are added" {
  provision up images
  echo storage.googleapis.com >>"$FAKE_CLOUD/services"
  sed -i /cloudbuild/d "$FAKE_CLOUD/services"
  : >"$FAKE_CLOUD/policy"
  : >"$calls"
  provision up images
  grep -q '^services enable cloudbuild.googleapis.com --project' "$calls"
  [ "$(grep -cE ' create ' "$calls")" = 0 ]
  grep -qx "odin-test roles/cloudbuild.builds.builder serviceAccount:$build" "$FAKE_CLOUD/policy"
}

@test "a role is given again until the fresh account is known, and a refusal ends it" {
  mkdir "$BATS_TEST_TMPDIR/bin"
  # shellcheck disable=SC2016 # the fake expands it
  printf '#!/bin/sh\ncase "$*" in *add-iam-policy-binding*)\n[ -e "$FAKE_CLOUD/$3" ] || { : >"$FAKE_CLOUD/$3"; echo "Service account odin does not exist." >&2; exit 1; } ;; esac\nexec "%s" "$@"\n' \
    "$BATS_TEST_DIRNAME/fake/gcloud" >"$BATS_TEST_TMPDIR/bin/gcloud"
  chmod +x "$BATS_TEST_TMPDIR/bin/gcloud"
  PATH=$BATS_TEST_TMPDIR/bin:$PATH provision up images
  [ "$(grep -c builds.builder "$FAKE_CLOUD/policy")" = 1 ]
  : >"$FAKE_CLOUD/policy"
  FAKE_REFUSES=add-iam-policy-binding run provision up images
  [ "$status" = 1 ]
  [[ $output == *"roles/cloudbuild.builds.builder could not be granted to $build"*permission* ]]
}

@test "an instance that acts as nobody is told how it may pull" {
  provision up
  sed -i "s/ $host//" "$FAKE_CLOUD/instances/odin-ws-go"
  run provision up ws
  [ "$status" = 0 ]
  [[ $output == *"odin-ws-go acts as nobody"*"set-service-account odin-ws-go --service-account=$host"* ]]
}

@test "a second run only looks" {
  provision up
  : >"$calls"
  provision up
  [ "$(calls_of describe)" -gt 0 ]
  [ "$(grep -cvE ' (describe|get-iam-policy) |^services list ' "$calls")" = 0 ]
}

@test "what --dry-run prints is what is run, call for call" {
  provision --dry-run up >"$BATS_TEST_TMPDIR/lines"
  [ ! -e "$calls" ]
  provision up
  mv "$calls" "$BATS_TEST_TMPDIR/ran"
  rm -r "$FAKE_CLOUD"
  # A shell takes the lines back; the describes of an empty project fail, as they did.
  bash "$BATS_TEST_TMPDIR/lines" || true
  diff "$BATS_TEST_TMPDIR/ran" "$calls"
}

@test "--dry-run needs no gcloud" {
  mkdir "$BATS_TEST_TMPDIR/bin"
  # shellcheck disable=SC2016 # the fake expands it
  for program in bash sed dirname mktemp cat rm tr; do ln -s "$(command -v $program)" "$BATS_TEST_TMPDIR/bin/"; done
  PATH=$BATS_TEST_TMPDIR/bin run provision --dry-run up
  [ "$status" = 0 ]
  PATH=$BATS_TEST_TMPDIR/bin run provision up
  [ "$status" = 69 ]
  [[ $output == *"install the Google Cloud CLI"* ]]
}

@test "without a project or operators it says what to set, and calls nothing" {
  GCP_PROJECT='' run provision up
  [ "$status" = 64 ]
  [[ $output == *"GCP_PROJECT is not set"* ]]
  OPERATOR_RANGES='' run provision up
  [ "$status" = 64 ]
  [[ $output == *"OPERATOR_RANGES is not set"* ]]
  [ ! -e "$calls" ]
}

@test "Grafana, the console and the publisher are never opened to everybody" {
  for range in 0.0.0.0/0 ::/0 203.0.113.7/32,0.0.0.0/0 203.0.113.7; do
    OPERATOR_RANGES=$range run provision up
    [ "$status" = 64 ]
    [[ $output == *OPERATOR_RANGES* ]]
  done
  [ ! -e "$calls" ]
}

@test "a refused describe ends it: a missing permission is no missing instance" {
  FAKE_REFUSES='instances describe' run provision up
  [ "$status" = 1 ]
  [[ $output == *"gcloud could not look up odin-backend"*permission* ]]
  [ "$(grep -c 'instances create' "$calls")" = 0 ]
}

@test "a project without the API gets no question that nobody sees, but the command that mends it" {
  mkdir "$BATS_TEST_TMPDIR/bin"
  # shellcheck disable=SC2016 # the fake expands it
  printf '#!/bin/sh\nprintf "SERVICE_DISABLED: Compute Engine API, prompts disabled: %%s" "$CLOUDSDK_CORE_DISABLE_PROMPTS" >&2\nexit 1\n' \
    >"$BATS_TEST_TMPDIR/bin/gcloud"
  chmod +x "$BATS_TEST_TMPDIR/bin/gcloud"
  PATH=$BATS_TEST_TMPDIR/bin:$PATH run provision up
  [ "$status" = 1 ]
  [[ $output == *"gcloud services enable compute.googleapis.com --project=odin-test"*"prompts disabled: 1" ]]
}

@test "a failed create ends it with what gcloud said" {
  FAKE_FAILS='instances create odin-backend' run provision up
  [ "$status" != 0 ]
  [[ $output == *"quota exceeded"* ]]
  [ "$(grep -c 'odin-ws-go --' "$calls")" = 0 ]
}

@test "a rule that differs is set again, the others are left alone" {
  provision up
  : >"$calls"
  OPERATOR_RANGES=198.51.100.0/24 provision up
  [ "$(grep -c 'firewall-rules update' "$calls")" = 2 ]
  grep -q 'update odin-allow-operators .*--source-ranges=198.51.100.0/24' "$calls"
  grep -q 'update odin-allow-publisher ' "$calls"
}

@test "down stops what runs, up starts it again, neither creates or deletes" {
  provision up
  : >"$calls"
  provision down
  [ "$(grep -c 'instances stop' "$calls")" = 3 ]
  provision down
  [ "$(grep -c 'instances stop' "$calls")" = 3 ]
  provision up
  [ "$(grep -c 'instances start' "$calls")" = 3 ]
  [ "$(grep -cE ' (create|delete) ' "$calls")" = 0 ]
}

@test "delete wants --yes, and then leaves nothing" {
  provision up
  run provision delete
  [ "$status" = 64 ]
  [ "$(find "$FAKE_CLOUD/instances" -type f | wc -l)" = 3 ]
  provision delete --yes
  [ -z "$(find "$FAKE_CLOUD"/{instances,firewall-rules,addresses,repositories,service-accounts} -type f)" ]
}

@test "one part alone: an instance of the gateway brings its address, its account and the registry, and nothing else" {
  provision up ws
  [ "$(ls "$FAKE_CLOUD/instances")" = odin-ws-go ]
  [ "$(ls "$FAKE_CLOUD/addresses")" = odin-ws-go-ip ]
  [ "$(ls "$FAKE_CLOUD/repositories")" = odin ]
  [ -z "$(ls "$FAKE_CLOUD/firewall-rules")" ]
  provision up loadtest
  [ "$(ls "$FAKE_CLOUD/service-accounts")" = "$build"$'\n'"$host" ]
}

@test "several gateways have an address each" {
  WS_INSTANCE=odin-ws-go,odin-ws-go-2 provision up ws
  [ "$(ls "$FAKE_CLOUD/instances")" = $'odin-ws-go\nodin-ws-go-2' ]
  [ "$(ls "$FAKE_CLOUD/addresses")" = $'odin-ws-go-2-ip\nodin-ws-go-ip' ]
}

@test "a machine of another type is told, not changed" {
  provision up
  WS_MACHINE_TYPE=e2-highcpu-8 run provision up ws
  [ "$status" = 0 ]
  [[ $output == *"set-machine-type odin-ws-go --machine-type=e2-highcpu-8"* ]]
}

@test "a word it does not know is refused before anything is called" {
  run provision up everything
  [ "$status" = 64 ]
  [ ! -e "$calls" ]
}

# The real parser of the Google Cloud CLI, where there is one: it needs no account and no network.
@test "gcloud itself takes every command" {
  real=$(PATH=${PATH#"$BATS_TEST_DIRNAME/fake:"} command -v gcloud) || skip "no gcloud on this machine"
  export CLOUDSDK_CONFIG=$BATS_TEST_TMPDIR/config CLOUDSDK_CORE_DISABLE_USAGE_REPORTING=true
  "$real" meta lint-gcloud-commands --help >/dev/null 2>&1 || skip "this gcloud cannot check commands"
  {
    for command in up down delete status; do provision --dry-run "$command"; done
    "$scripts/gcp-deploy.sh" --dry-run all
    "$scripts/gcp-deploy.sh" --dry-run --rebuild images
    for command in ps urls ssh\ ws load-test\ status; do xargs "$scripts/gcp-fleet.sh" --dry-run <<<"$command"; done
  } | grep '^gcloud ' | sort -u | python3 -c '
import json, shlex, sys
print(json.dumps([{"command_string": line.strip()} for line in sys.stdin]))' >"$BATS_TEST_TMPDIR/commands.json"
  "$real" meta lint-gcloud-commands --commands-file="$BATS_TEST_TMPDIR/commands.json" >"$BATS_TEST_TMPDIR/answers.json"
  python3 - "$BATS_TEST_TMPDIR/answers.json" <<'PYTHON'
import json, sys
answers = json.load(open(sys.argv[1]))
assert len(answers) > 20, f"only {len(answers)} commands were checked"
for answer in answers:
    assert answer["success"], f'{answer["command_string"]}: {answer["error_message"]}'
PYTHON
}

@test "an unknown WHAT is named, with those that exist" {
  run provision up gateway
  [ "$status" -eq 64 ]
  [[ ${lines[-1]} == *"unknown WHAT gateway"*"the gateways are ws"* ]]
}

@test "without a signed-in account the remedy is named" {
  mkdir "$BATS_TEST_TMPDIR/bin"
  # shellcheck disable=SC2016 # the fake expands it
  printf '#!/bin/sh\necho "You do not currently have an active account selected. Please run: gcloud auth login" >&2\nexit 1\n' \
    >"$BATS_TEST_TMPDIR/bin/gcloud"
  chmod +x "$BATS_TEST_TMPDIR/bin/gcloud"
  PATH=$BATS_TEST_TMPDIR/bin:$PATH run provision up images
  [ "$status" -eq 1 ]
  [[ $output == *"not signed in: run 'gcloud auth login'"* ]]
}
