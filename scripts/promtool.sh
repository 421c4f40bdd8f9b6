#!/usr/bin/env bash
# promtool.sh: prints the folder with promtool and prometheus. This machine's, or the Debian package's, unpacked to
# ~/.cache/odin-prometheus (or under XDG_CACHE_HOME): installing the package would start a server.
#
# Exit codes: 0 done, 69 not possible here (no apt-get, no network).
set -euo pipefail

if program=$(command -v promtool) && command -v prometheus >/dev/null; then
  dirname "$program"
  exit
fi
cache=${XDG_CACHE_HOME:-${HOME:?HOME is not set, and neither is XDG_CACHE_HOME}/.cache}/odin-prometheus
if [[ ! -x $cache/usr/bin/promtool ]]; then
  mkdir -p "$cache"
  # In a folder of its own, renamed when whole, so that an interrupted or a second download leaves nothing half-made.
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
