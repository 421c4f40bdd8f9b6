#!/bin/bash
# prepare-redpanda.sh BROKERS ADMIN: creates missing topics of the platform's eight, corrects settings that differ, and sets
# two properties of the cluster. Runs inside the Redpanda image, at every start.
set -euo pipefail

readonly brokers=${1:?usage: prepare-redpanda.sh BROKERS ADMIN} admin=${2:?usage: prepare-redpanda.sh BROKERS ADMIN}

# The key of a record is its token; the partition of a token determines its order and its shard. Another number moves tokens.
readonly PARTITIONS=12
readonly REPLICAS=1
# An hour: a client that reconnects within this time gets every missed event. Kinds of data that change rarely are kept longer.
readonly HOUR_MS=3600000
readonly DAY_MS=86400000
# Both limits apply; with all 96 partitions at this one they use 12 GiB of disk.
readonly RETENTION_BYTES=134217728
# Only whole segments are deleted: retention is exact to five minutes. Shorter segments would need thousands of open files.
readonly SEGMENT_MS=300000
readonly RECORD_BYTES_MAX=1048576

retention_ms() {
  case $1 in
    odin.metadata | odin.social | odin.creation) echo "$DAY_MS" ;;
    *) echo "$HOUR_MS" ;;
  esac
}

for topic in odin.trades odin.liquidity odin.balances odin.metadata odin.social odin.community odin.creation odin.analytics; do
  settings=(
    "cleanup.policy=delete"
    "compression.type=snappy"
    "retention.ms=$(retention_ms "$topic")"
    "retention.bytes=$RETENTION_BYTES"
    "segment.ms=$SEGMENT_MS"
    "max.message.bytes=$RECORD_BYTES_MAX"
  )
  creation=() change=()
  for setting in "${settings[@]}"; do
    creation+=(--topic-config "$setting")
    change+=(--set "$setting")
  done
  rpk topic create "$topic" --brokers "$brokers" --if-not-exists --partitions "$PARTITIONS" --replicas "$REPLICAS" "${creation[@]}"
  rpk topic alter-config "$topic" --brokers "$brokers" "${change[@]}"
done

# Both override the mode dev-container. In that mode a waiting fetch checks for data every 10 ms, which delays every event, and a
# request for a missing topic creates it with one partition.
rpk cluster config set fetch_reads_debounce_timeout 1 -X admin.hosts="$admin"
rpk cluster config set auto_create_topics_enabled false -X admin.hosts="$admin"
