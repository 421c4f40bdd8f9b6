#!/usr/bin/env bats
# The usage texts of all scripts. .ci/run runs the scripts themselves.

setup() { stack=$BATS_TEST_DIRNAME/../stack.sh; }

@test "--help prints the usage and starts nothing" {
  for argument in --help -h help; do
    # PATH has no program that the stack could be started with.
    run env PATH="$BATS_TEST_TMPDIR" /bin/bash -c 'sed() { /usr/bin/sed "$@"; }; dirname() { /usr/bin/dirname "$@"; }; export -f sed dirname; /bin/bash "$@"' - "$stack" "$argument"
    echo "$output"
    [ "$status" -eq 0 ]
    [[ $output == *"stack.sh COMMAND..."* ]]
  done
}

@test "every script prints its usage with --help and exits with 0" {
  for script in "$BATS_TEST_DIRNAME"/../*.sh; do
    run timeout 10 "$script" --help
    echo "$script: $status $output"
    [ "$status" -eq 0 ]
    [[ $output == *"${script##*/}"* ]]
  done
}

@test "an unknown option is an error of code 64" {
  run "$stack" --dry-run
  [ "$status" -eq 64 ]
  [[ $output == *"unknown option --dry-run"* ]]
}
