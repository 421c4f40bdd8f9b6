#!/usr/bin/env bash
# Runs every query of the dashboards and the recording rules on a Prometheus, and fails when a result is missing or empty.
#
#   dashboard-queries.sh http://127.0.0.1:9090     (or PROMETHEUS_URL); it scrapes a gateway and a publisher under load
#
# A result that contains only NaN counts as empty. dashboard-queries-exceptions.txt lists the queries without data on a healthy system,
# each with its reason. Log queries are for Loki and are not run.
# Exit codes: 0 done, 1 failed, 64 wrong usage, 69 not possible on this machine.
set -euo pipefail

scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly scripts
readonly dashboards=$scripts/../deployments/local/grafana/dashboards
readonly exceptions=$scripts/dashboard-queries-exceptions.txt

prometheus=${1:-${PROMETHEUS_URL:-}}
if [[ -z $prometheus || $prometheus == -* ]]; then
  sed -n '/^#   dashboard-queries.sh/s/^#   //p' "${BASH_SOURCE[0]}" >&2
  [[ $prometheus == --help || $prometheus == -h ]] && exit 0
  exit 64
fi
for program in curl jq; do
  command -v "$program" >/dev/null || { echo "no $program here (Debian: apt-get install $program)" >&2; exit 69; }
done

# panel_queries: a line `dashboard: panel<TAB>query` for each query of Prometheus, including annotations, as written in the file.
panel_queries() {
  jq -r '.title as $title
    | (.annotations.list[] | select(.datasource.uid == "prometheus") | [$title, .name, .expr]),
      (.panels[] | select(.datasource.uid == "prometheus") | .title as $panel | .targets[] | [$title, $panel, .expr])
    | "\(.[0]): \(.[1])\t\(.[2])"' "$dashboards"/*.json
}

# rules: a line `name<TAB>health<TAB>last error<TAB>query` for each recorded series; alerts have no query.
rules() {
  curl -sf "$prometheus/api/v1/rules" | jq -r '.data.groups[].rules[]
    | [.name, .health, .lastError // "", if .type == "recording"
        then "\(.name){\(.labels // {} | to_entries | map("\(.key)=\"\(.value)\"") | join(", "))}" else "" end] | join("\t")'
}

# answer QUERY: prints the number of series with a value, or the error.
answer() {
  curl -s --data-urlencode "query=$1" "$prometheus/api/v1/query" |
    jq -r 'if .status == "success" then [.data.result[] | select(.value[1] != "NaN")] | length else .error end'
}

# excepted QUERY: prints the reason why it may have no data, or fails.
excepted() {
  awk -v query="$1" 'index($0, query " # ") == 1 { print substr($0, length(query) + 4); found = 1 } END { exit !found }' "$exceptions"
}

failed=0 asked=0 empty=0
# ask WHERE QUERY_AS_WRITTEN
ask() {
  local query=${2//\$__rate_interval/15s} found reason
  query=${query//\$instance/.*}
  found=$(answer "$query")
  asked=$((asked + 1))
  if [[ $found == 0 ]] && reason=$(excepted "$2"); then
    empty=$((empty + 1))
    echo "empty, as expected: $1: $reason"
  elif [[ ! $found =~ ^[1-9] ]]; then
    failed=$((failed + 1))
    [[ $found != 0 ]] || found="no data"
    echo "FAILED $1: $found: $2"
  fi
}

queries=$(panel_queries)
recorded=$(rules)
while IFS=$'\t' read -r where query; do
  ask "$where" "$query"
done <<<"$queries"
while IFS=$'\t' read -r name health error query; do
  if [[ $health != ok ]]; then
    failed=$((failed + 1))
    echo "FAILED rule $name is $health: $error"
  elif [[ -n $query ]]; then
    ask "rule $name" "$query"
  fi
done <<<"${recorded//$'\t\t'/$'\t-\t'}"

# An exception without a query is obsolete.
while IFS= read -r line; do
  if [[ -n $line && $line != '#'* ]] && ! grep -qF -- "${line%% # *}" <<<"$queries"; then
    failed=$((failed + 1))
    echo "FAILED dashboard-queries-exceptions.txt: no dashboard has the query ${line%% # *}"
  fi
done <"$exceptions"

firing=$(curl -sf "$prometheus/api/v1/alerts" | jq -r '[.data.alerts[] | select(.state == "firing") | .labels.alertname] | unique | join(" ")')
[[ -z $firing ]] || echo "firing alerts: $firing"
echo "$asked queries: $((asked - empty - failed)) with data, $empty empty as expected, $failed failed"
((asked > 100 && failed == 0))
