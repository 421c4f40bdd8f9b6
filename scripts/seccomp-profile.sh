#!/usr/bin/env bash
# Writes or checks the gateway's seccomp profile: Docker's default plus the three system calls of io_uring.
#
#   seccomp-profile.sh [VERSION]           write deployments/seccomp/odin-gateway.json from that version of the default
#   seccomp-profile.sh --check [VERSION]   compare it: exit 1 and print the difference if they differ
#
# The default is read from the Go module github.com/moby/profiles/seccomp, in the version below unless you give one (`latest`
# is the newest). Exit codes: 0 done or the same, 1 different or failed, 64 wrong usage, 69 not possible here (no Go, no network).
set -euo pipefail

readonly VERSION_PINNED=v0.2.3
readonly MODULE=github.com/moby/profiles/seccomp

scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly profile=$scripts/../deployments/seccomp/odin-gateway.json

usage() { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; }
case ${1:-} in -h | --help | help) usage; exit 0 ;; esac

check=false
if [[ ${1:-} == --check ]]; then
  check=true
  shift
fi
version=${1:-$VERSION_PINNED}
if (($# > 1)) || [[ ! $version =~ ^(v[0-9]+\.[0-9]+\.[0-9]+|latest)$ ]]; then
  sed -n '/^#   seccomp-profile.sh/s/^#   //p' "${BASH_SOURCE[0]}" >&2
  exit 64
fi
for program in go jq; do
  command -v "$program" >/dev/null || { echo "no $program here (Debian: apt-get install golang-go jq)" && exit 69; }
done

# -json answers on standard output even if the download fails. Run in a separate folder, so that no go.mod applies.
cd "$(mktemp -d)"
trap 'rm -rf "$PWD"' EXIT
module=$(go mod download -json "$MODULE@$version" 2>/dev/null | jq -r '.Dir // empty') || true
[[ -n $module ]] || { echo "the Go module $MODULE@$version could not be fetched" && exit 69; }

# A system call is refused unless a rule permits it: append the rule, and leave the rest of the default unchanged.
jq --indent 2 '.syscalls += [{
  names: ["io_uring_enter", "io_uring_register", "io_uring_setup"],
  action: "SCMP_ACT_ALLOW",
  comment: "what the gateway is built on; the default allows none of them"
}]' "$module/default.json" >odin-gateway.json

if $check; then
  diff -u "$profile" odin-gateway.json || { echo "deployments/seccomp/odin-gateway.json is not $MODULE@$version with io_uring" && exit 1; }
else
  cp odin-gateway.json "$profile"
fi
