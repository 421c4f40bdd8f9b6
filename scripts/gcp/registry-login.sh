#!/usr/bin/env bash
# Lets this host's Docker pull from Artifact Registry, as the service account that the host acts as. Runs as root on the host.
#
#   registry-login.sh IMAGES    IMAGES is the prefix of the image names: us-central1-docker.pkg.dev/PROJECT/odin/
#
# The token is valid for an hour, which is enough for the pull; running containers need none. For other registries the script does nothing:
# they need no login, or `docker login` was used. Exit codes: 0 done or nothing to do, 1 no token, or the registry refuses it.
set -euo pipefail

readonly SERVER=http://metadata.google.internal/computeMetadata/v1

images=${1?usage: registry-login.sh IMAGES}
[[ $images == *-docker.pkg.dev/* ]] || exit 0
answer=$(curl -fsS -m 10 --retry 5 -H 'Metadata-Flavor: Google' "$SERVER/instance/service-accounts/default/token") || {
  echo "registry-login.sh: this host acts as no service account; 'scripts/gcp-provision.sh up' says how to give it one that may read $images" >&2
  exit 1
}
# Pass the token on standard input: every user can see arguments.
python3 -c 'import json, sys; print(json.load(sys.stdin)["access_token"])' <<<"$answer" |
  docker login -u oauth2accesstoken --password-stdin "https://${images%%/*}"
