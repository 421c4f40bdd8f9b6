#!/usr/bin/env bats
# The Taskfile: every name that the platform's operators know, and every task as go-task reads it (nothing is run).

readonly TASK_VERSION=v3.45.4

# go-task is `task`, as Taskwarrior is too.
setup_file() {
  root=$(cd "$BATS_TEST_DIRNAME/../.." && pwd)
  tools=$root/target/tools
  if task --help 2>&1 | grep -q taskfile; then
    TASK=$(command -v task)
  elif [ -x "$tools/task" ] || { command -v go >/dev/null && GOBIN=$tools go install "github.com/go-task/task/v3/cmd/task@$TASK_VERSION"; }; then
    TASK=$tools/task
  fi
  export root TASK=${TASK:-}
}

setup() {
  [ -n "$TASK" ] || skip "no go-task here, and no go that could install it"
  cd "$root" || return
}

@test "every task of the plan is there" {
  "$TASK" --list-all --json | python3 -c '
import json, sys
there = {task["name"] for task in json.load(sys.stdin)["tasks"]}
hosts = ["backend", "ws", "loadtest"]
wanted = {"gcp:" + name for name in "up down restart deploy status verify urls delete".split()}
wanted |= {"gcp:deployment:" + name for name in "setup infrastructure firewall:backend firewall:ws reserve-ip:ws reset".split()}
wanted |= {f"gcp:deployment:{name}:{host}" for name in "create delete setup rebuild update ssh".split() for host in hosts}
wanted |= {"gcp:services:" + name for name in "start stop restart ps logs".split()}
wanted |= {"gcp:health:" + name for name in "backend ws all".split()}
wanted |= {"gcp:load-test:" + name for name in "capacity capacity:short stress stress:heavy custom start:publisher stop:publisher stop logs".split()}
wanted |= {"gcp:stats:all"}
wanted |= {"local:" + name for name in "deploy:setup deploy:quick-start deploy:stop start restart rebuild logs health stats test:sustained test:status test:stop".split()}
assert not wanted - there, f"missing: {sorted(wanted - there)}"
'
}

@test "go-task takes each of them, and each says what it is for" {
  "$TASK" --list-all --json >"$BATS_TEST_TMPDIR/tasks.json"
  python3 -c '
import json, sys
for task in json.load(open(sys.argv[1]))["tasks"]:
    assert task["desc"], task["name"] + " has no desc"
    print(task["name"])' "$BATS_TEST_TMPDIR/tasks.json" >"$BATS_TEST_TMPDIR/names"
  while read -r name; do
    run "$TASK" --yes --dry "$name"
    [ "$status" = 0 ] || { echo "$name: $output"; false; }
  done <"$BATS_TEST_TMPDIR/names"
}

@test "what the tasks of Google Cloud call, the scripts take" {
  export GCP_PROJECT=odin-test OPERATOR_RANGES=203.0.113.7/32
  checked=0
  while read -r name; do
    while read -r line; do
      # The word that says what to do, with --dry-run behind the script's name.
      run bash -c "${line/.sh /.sh --dry-run }"
      [ "$status" = 0 ] || { echo "$name: $line: $output"; false; }
      checked=$((checked + 1))
    done < <("$TASK" --yes --dry "$name" 2>&1 | sed -n 's/^task: \[.*\] \(scripts\/gcp-.*\)/\1/p')
  done < <("$TASK" --list-all | grep -o 'gcp:[^ ]*' | sed 's/:$//' | sort -u)
  [ "$checked" -gt 50 ]
}

@test "local:deploy:setup draws a password, and keeps it" {
  [ -f deployments/local/.env.local.example ]
  mkdir -p "$BATS_TEST_TMPDIR/deployments/local" "$BATS_TEST_TMPDIR/scripts"
  cp -r Taskfile.yml "$BATS_TEST_TMPDIR/" && cp -r scripts/tasks "$BATS_TEST_TMPDIR/scripts/"
  cp deployments/local/.env.local.example "$BATS_TEST_TMPDIR/deployments/local/"
  cd "$BATS_TEST_TMPDIR" || return
  "$TASK" local:deploy:setup
  password=$(grep -oE '^GF_SECURITY_ADMIN_PASSWORD=[0-9a-f]{32}$' deployments/local/.env.local)
  "$TASK" local:deploy:setup
  [ "$(grep GF_SECURITY_ADMIN_PASSWORD deployments/local/.env.local)" = "$password" ]
}
