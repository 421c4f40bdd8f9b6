#!/usr/bin/env bash
# promtool.sh: prints the folder with promtool and prometheus: the installed ones, or those of the Debian package, which it unpacks to
# ~/.cache/odin-prometheus (or under XDG_CACHE_HOME), because installing the package would start a server.
#
# Exit codes: 0 done, 64 wrong usage, 69 not possible here (no apt-get, no network).
set -euo pipefail

usage() { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; }
case ${1:-} in
  '') ;;
  -h | --help | help) usage; exit 0 ;;
  *) usage >&2; echo "promtool.sh: unknown argument $1" >&2; exit 64 ;;
esac

if program=$(command -v promtool) && command -v prometheus >/dev/null; then
  dirname "$program"
  exit
fi
cache=${XDG_CACHE_HOME:-${HOME:?HOME is not set, and neither is XDG_CACHE_HOME}/.cache}/odin-prometheus
if [[ ! -x $cache/usr/bin/promtool ]]; then
  mkdir -p "$cache"
  # In a separate folder that is renamed when complete, so that an interrupted or a second download leaves no partial result.
  fresh=$(mktemp -d "$cache/download.XXXXXX")
  trap 'rm -rf "$fresh"' EXIT
  cd "$fresh"
  if ! { apt-get download prometheus && dpkg-deb --extract prometheus_*.deb unpacked; } >&2; then
    echo "no promtool here, and Debian's package prometheus could not be fetched (apt-get update first)" >&2
    exit 69
  fi
  rm -rf "${cache:?}/usr"
  mv unpacked/usr "$cache/usr"
fi
echo "$cache/usr/bin"
