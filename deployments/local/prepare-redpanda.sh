#!/bin/bash
# prepare-redpanda.sh BROKERS ADMIN: the eight topics of the platform, created where they are missing and set where they differ, and
# two properties of the cluster. Runs inside the Redpanda image, at every start.
set -euo pipefail

readonly brokers=${1:?usage: prepare-redpanda.sh BROKERS ADMIN} admin=${2:?usage: prepare-redpanda.sh BROKERS ADMIN}

# The key of a record is its token; a token's partition decides its order and its shard. Changing the number splits the tokens.
readonly PARTITIONS=12
readonly REPLICAS=1
# An hour: for so long a client that was away gets all that it missed. Kinds of data that change rarely are kept longer.
readonly HOUR_MS=3600000
readonly DAY_MS=86400000
# Both bounds hold; with all 96 partitions at this one they take 12 GiB of disk.
readonly RETENTION_BYTES=134217728
# A segment is deleted whole: retention is exact to five minutes. Shorter ones would mean thousands of open files.
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

# Both are of the mode dev-container. It lets a fetch that waits look again every 10 ms, which every event would pay for; and a
# program that asks for a topic that is missing would make it, with one partition.
rpk cluster config set fetch_reads_debounce_timeout 1 -X admin.hosts="$admin"
rpk cluster config set auto_create_topics_enabled false -X admin.hosts="$admin"
