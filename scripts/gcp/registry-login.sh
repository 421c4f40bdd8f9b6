#!/usr/bin/env bash
# Lets this host's Docker pull from Artifact Registry, as the service account that the host acts as. Runs as root on the host.
#
#   registry-login.sh IMAGES    what the images' names begin with: us-central1-docker.pkg.dev/PROJECT/odin/
#
# The token is good for an hour, which is for the pull; what runs needs none. Other registries are left alone: they take
# nobody, or whom `docker login` has named. Exit codes: 0 done or nothing to do, 1 no token, or the registry does not take it.
set -euo pipefail

readonly SERVER=http://metadata.google.internal/computeMetadata/v1

images=${1?usage: registry-login.sh IMAGES}
[[ $images == *-docker.pkg.dev/* ]] || exit 0
answer=$(curl -fsS -m 10 --retry 5 -H 'Metadata-Flavor: Google' "$SERVER/instance/service-accounts/default/token") || {
  echo "registry-login.sh: this host acts as no service account; 'scripts/gcp-provision.sh up' says how to give it one that may read $images" >&2
  exit 1
}
# By its input, never as an argument: those are everybody's to see.
python3 -c 'import json, sys; print(json.load(sys.stdin)["access_token"])' <<<"$answer" |
  docker login -u oauth2accesstoken --password-stdin "https://${images%%/*}"
