#!/usr/bin/env bats
# startup.sh, at an instance's first boot, with the host's programs faked.
# shellcheck disable=SC2016 # the fakes expand it

setup() {
  export FAKE_HOST=$BATS_TEST_TMPDIR PAUSE_SECONDS=0 PATH=$BATS_TEST_TMPDIR/bin:$PATH
  mkdir "$FAKE_HOST/bin"
  printf '#!/bin/sh\nexit 1\n' >"$FAKE_HOST/bin/docker"
  printf '#!/bin/sh\n' >"$FAKE_HOST/bin/systemctl"
  printf '#!/bin/sh\necho "$2" >>"$FAKE_HOST/apt"\n[ "$(wc -l <"$FAKE_HOST/apt")" -gt "$LOCKED" ]\n' >"$FAKE_HOST/bin/apt-get"
  chmod +x "$FAKE_HOST/bin/"*
  sed "s|/etc/docker|$FAKE_HOST/etc|g" "$BATS_TEST_DIRNAME/../gcp/startup.sh" >"$FAKE_HOST/startup.sh"
}

@test "while the system's own updates hold apt's locks, it tries again" {
  LOCKED=3 run bash "$FAKE_HOST/startup.sh"
  [ "$status" = 0 ]
  [ "$(paste -sd' ' "$FAKE_HOST/apt")" = "update update update update install" ]
  [[ ${lines[-1]} == *ready ]]
  python3 -m json.tool "$FAKE_HOST/etc/daemon.json" >/dev/null
}

@test "it gives up at last, and says so" {
  LOCKED=1000 run bash "$FAKE_HOST/startup.sh"
  [ "$status" = 1 ]
  [[ ${lines[-1]} == *"no Docker without apt-get update"*"restart the instance" ]]
  [ ! -e "$FAKE_HOST/etc/daemon.json" ]
}
