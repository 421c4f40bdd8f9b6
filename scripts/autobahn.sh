#!/usr/bin/env bash
# The Autobahn test suite's fuzzing client against a WebSocket server: some 300 cases of RFC 6455.
#
#   autobahn.sh install [DIR]               install the suite; returns at once if it is installed
#   autobahn.sh run URL OUT [CASE...]       run the cases ('1.*' '7.3.1' ...; default: groups 1-7, 9, 10), leave OUT/index.json
#   autobahn.sh check OUT EXPECTED          compare OUT's behavior case by case with EXPECTED (scripts/autobahn-expected.json)
#   autobahn.sh record OUT EXPECTED         write EXPECTED from OUT; refused if a case failed
#
# The script uses the suite's Docker image if a Docker engine answers, otherwise Python 2.7, which the suite needs: the installed one
# with its headers, or Debian 11's packages, unpacked under DIR. Nothing is installed on the system.
# DIR: $AUTOBAHN_DIR, or ~/.cache/odin-autobahn-VERSION (XDG_CACHE_HOME). `run` uses the suite there, and installs it if it is missing.
# Exit codes: 0 done, 1 failed, 64 wrong usage, 69 not possible here (no Docker and no Python): a caller can skip and report why.
set -euo pipefail

readonly SUITE_VERSION=0.8.2
readonly IMAGE=crossbario/autobahn-testsuite:$SUITE_VERSION
readonly DEFAULT_CASES=('1.*' '2.*' '3.*' '4.*' '5.*' '6.*' '7.*' '9.*' '10.*')
readonly RUN_SECONDS_MAX=1800

say() { printf 'autobahn.sh: %s\n' "$*" >&2; }
fail() {
  say "$2"
  exit "$1"
}
usage() { sed -n '/^#   autobahn.sh/s/^#   //p' "${BASH_SOURCE[0]}" >&2; }

# need PROGRAM FOR-WHAT DEBIAN-PACKAGE
need() { command -v "$1" >/dev/null || fail 69 "no $1, needed to $2 (Debian: apt-get install $3)"; }

docker_answers() { command -v docker >/dev/null && timeout 10 docker info >/dev/null 2>&1; }

# --- Python 2.7: DIR holds python (a script that runs it), site (the suite), root (Debian's packages), log -------------------------

has_headers() {
  python2.7 -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' >/dev/null 2>&1
}

# Unpacks Debian 11's Python 2.7, the last in Debian, from the mirror that this machine uses.
unpack_python() {
  local mirror libraries apt deb
  # shellcheck disable=SC2016 # apt expands $(REPO_URI)
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m1 'debian/*$') ||
    fail 69 "no Python 2.7 with headers, no Docker engine, and apt has no Debian mirror for Debian 11's Python"
  mkdir -p "$dir"/{lists/partial,packages,root}
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror bullseye main" >"$dir/sources.list"
  apt=(-o "Dir::Etc::SourceList=$dir/sources.list" -o Dir::Etc::SourceParts=/dev/null -o "Dir::State::Lists=$dir/lists"
    -o "Dir::Cache::pkgcache=" -o "Dir::Cache::srcpkgcache=" -o APT::Sandbox::User=root)
  apt-get "${apt[@]}" -qq update
  (cd "$dir/packages" &&
    apt-get "${apt[@]}" -qq download python2.7{,-minimal,-dev} libpython2.7{,-minimal,-stdlib,-dev} libssl1.1 libffi7)
  for deb in "$dir"/packages/*.deb; do dpkg -x "$deb" "$dir/root"; done
  libraries=$dir/root/usr/lib/$(gcc -print-multiarch)
  cat >"$dir/python" <<PYTHON
#!/bin/sh
LD_LIBRARY_PATH="$libraries" PYTHONHOME="$dir/root/usr" PYTHONPATH="$dir/site:$dir/tools" exec "$dir/root/usr/bin/python2.7" "\$@"
PYTHON
  export CFLAGS="-I$dir/root/usr/include/python2.7 -I$dir/root/usr/include"
}

install_suite() {
  local wheel
  if has_headers; then
    printf '#!/bin/sh\nPYTHONPATH="%s" exec %q "$@"\n' "$dir/site:$dir/tools" "$(command -v python2.7)" >"$dir/python"
  else
    need apt-get "fetch Debian 11's Python 2.7, where there is neither Docker nor python2.7" apt
    unpack_python
  fi
  chmod +x "$dir/python"
  # The last releases that run on 2.7; Debian's package has no pip for it.
  python3 -m pip download -q --no-deps --disable-pip-version-check -d "$dir/wheels" --python-version 27 --only-binary=:all: \
    pip==20.3.4 setuptools==44.1.1 wheel==0.37.1
  for wheel in "$dir"/wheels/*.whl; do python3 -m zipfile -e "$wheel" "$dir/tools"; done
  "$dir/python" -m pip install -q --no-build-isolation --disable-pip-version-check --target "$dir/site" "autobahntestsuite==$SUITE_VERSION"
  touch "$dir/site/zope/__init__.py" # a namespace package that --target leaves without one
  "$dir/python" -c 'import autobahntestsuite'
}

install() {
  if docker_answers; then
    docker image inspect "$IMAGE" >/dev/null 2>&1 || docker pull -q "$IMAGE" >&2 || fail 1 "the image $IMAGE cannot be fetched"
    return
  fi
  [[ ! -f $dir/installed ]] || return 0
  need gcc "build the suite's extensions" build-essential
  need python3 "install the suite" python3
  python3 -m pip --version >/dev/null 2>&1 || fail 69 "python3 has no pip, needed to install the suite (Debian: apt-get install python3-pip)"
  say "installing the suite to $dir (once, about a minute)"
  mkdir -p "$dir"
  rm -rf "${dir:?}"/{python,site,tools,root,packages,wheels,lists}
  local code
  set +e # not `|| code=$?`, which would let install_suite run on after a failure
  (
    set -e
    install_suite
  ) >"$dir/log" 2>&1
  code=$?
  set -e
  if ((code != 0)); then
    tail -n 5 "$dir/log" >&2
    ((code == 69)) || code=1
    fail "$code" "the suite could not be installed (above: the end of $dir/log)"
  fi
  rm -rf "${dir:?}"/{packages,wheels,lists}
  touch "$dir/installed"
}

# --- running and judging ----------------------------------------------------------------------------------------------------

run() {
  local url=$1 out=$2 reports
  shift 2
  (($# > 0)) || set -- "${DEFAULT_CASES[@]}"
  local case
  for case in "$@"; do # one that names no case would leave the suite waiting for ever
    [[ $case =~ ^([1-7]|9|10|12|13)\.([0-9.]+|([0-9]+\.)*\*)$ ]] || fail 64 "no such case: '$case' (like 1.1.1, 7.3.*, 10.*; groups 1-7, 9, 10, 12, 13)"
  done
  need python3 "read the results" python3
  install
  out=$(realpath -m "$out")
  mkdir -p "$out"
  rm -f "$out"/{index.json,spec.json,log}
  reports=$out
  ! docker_answers || reports=/reports
  python3 - "$reports" "$url" "$@" >"$out/spec.json" <<'PYTHON'
import json, sys
reports, url, *cases = sys.argv[1:]
json.dump({"outdir": reports, "servers": [{"agent": "gateway", "url": url}], "cases": cases,
           "exclude-cases": [], "exclude-agent-cases": {}}, sys.stdout)
PYTHON
  if [[ $reports == /reports ]]; then
    timeout --foreground "$RUN_SECONDS_MAX" docker run --rm --network host --user "$(id -u):$(id -g)" --volume "$out:/reports" "$IMAGE" \
      wstest --mode fuzzingclient --spec /reports/spec.json >"$out/log" 2>&1 || run_failed "$out"
  else
    timeout --foreground "$RUN_SECONDS_MAX" "$dir/python" -c 'import sys; from autobahntestsuite.wstest import run
sys.argv = ["wstest", "--mode", "fuzzingclient", "--spec", sys.argv[1]]; run()' "$out/spec.json" >"$out/log" 2>&1 || run_failed "$out"
  fi
  [[ -s $out/index.json ]] || run_failed "$out"
  judge summary "$out/index.json"
}

run_failed() {
  tail -n 5 "$1/log" >&2
  fail 1 "the run failed or did not finish in $RUN_SECONDS_MAX s (above: the end of $1/log)"
}

# judge summary INDEX | check INDEX EXPECTED | record INDEX EXPECTED
judge() {
  need python3 "read the results" python3
  python3 - "$@" <<'PYTHON'
import collections, json, sys

verb, index, *expected = sys.argv[1:]
GOOD = {"OK", "NON-STRICT", "INFORMATIONAL"}


def behavior(case):
    """What is compared: how the server behaved, and how it closed where that was not plainly right."""
    close = case["behaviorClose"]
    return case["behavior"] if close == "OK" else f'{case["behavior"]}, close {close}'


def number(name):
    return [int(part) for part in name.split(".")]


def failed(cases):
    """A case fails by its behavior; by its close only where the suite says so outright."""
    return [name for name in cases if cases[name].split(",")[0] not in GOOD or "FAILED" in cases[name]]


def stop(text):
    sys.exit("autobahn.sh: " + text)


try:
    agents = json.load(open(index))
except (OSError, ValueError) as error:
    stop(f"{index} is no result of a run: {error}")
cases = {name: behavior(case) for agent in agents.values() for name, case in agent.items()}
cases = {name: cases[name] for name in sorted(cases, key=number)}
if not cases:
    stop("no case was run: does a server answer at the URL, and do the case patterns match?")
print(f"{len(cases)} cases:", ", ".join(f"{n} {b}" for b, n in collections.Counter(cases.values()).most_common()))
bad = failed(cases)
for name in bad:
    print(f"  {name}: {cases[name]}")
if verb == "record":
    if bad:
        stop(f"{len(bad)} cases failed: not recorded")
    with open(expected[0], "w") as file:
        file.write(json.dumps(cases, indent=1) + "\n")
if verb == "check":
    try:
        wanted = json.load(open(expected[0]))
    except (OSError, ValueError) as error:
        stop(f"{expected[0]} holds no expected results: {error}; `record` writes them")
    differing = [n for n in sorted(cases.keys() | wanted.keys(), key=number) if cases.get(n) != wanted.get(n)]
    for name in differing:
        print(f"  {name}: {cases.get(name, 'not run')}, expected {wanted.get(name, 'no such case')}")
    if differing:
        stop(f"{len(differing)} of {len(wanted)} cases differ from {expected[0]}")
sys.exit(bool(bad))
PYTHON
}

check() { judge check "$1/index.json" "$2"; }
record() { judge record "$1/index.json" "$2"; }

# --- the command line -----------------------------------------------------------------------------------------------------------

verb=${1:-}
shift || true
dir=${AUTOBAHN_DIR:-${XDG_CACHE_HOME:-${HOME:?HOME is not set, and neither are XDG_CACHE_HOME and AUTOBAHN_DIR}/.cache}/odin-autobahn-$SUITE_VERSION}
case $verb:$# in
  install:0) install ;;
  install:1) dir=$(realpath -m "$1") && install ;;
  run:[01]) usage; fail 64 "run needs URL and OUT" ;;
  run:*) run "$@" ;;
  check:2 | record:2) "$verb" "$@" ;;
  help:* | -h:* | --help:*) usage ;;
  *) usage; fail 64 "unknown command or wrong number of arguments: '$verb'" ;;
esac
