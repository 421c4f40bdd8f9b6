#!/usr/bin/env bash
# Apache Kafka for the tests: a real broker on 127.0.0.1, from its Maven Central artifacts, with this machine's JDK.
#
#   kafka.sh up [--nodes 1|3] [--port 19092] [--dir DIR]   start it, create the 8 odin.* topics, wait until they can be written to
#   kafka.sh down [--dir DIR]                              stop it and delete its data
#   kafka.sh topics [--dir DIR]                            recreate the topics, empty
#   kafka.sh status [--dir DIR]                            list the running nodes; exit 1 unless all run
#   kafka.sh kill [--node N] [--dir DIR]                   SIGKILL one node, or all; the data stays
#   kafka.sh start [--node N] [--dir DIR]                  start a killed node, or all, on the same data
#   kafka.sh forbid|permit --topic NAME [--dir DIR]        revoke or grant the right to read a topic (one node only)
#
# `up` prints `KAFKA_BROKERS=...` on stdout; all other messages go to stderr. Node N listens on port + N - 1, its
# controller 10000 above. Default DIR: target/kafka. The jars are downloaded once, to ~/.cache/odin-kafka-VERSION (XDG_CACHE_HOME).
# Exit codes: 0 done, 1 failed, 64 wrong usage, 69 not possible here (no JDK 17 or no Maven): a caller can skip and report why.
#
# The script signals only processes whose pid file is in DIR and whose command line names the configuration of that DIR.
set -euo pipefail

readonly KAFKA_VERSION=4.3.1
readonly CLUSTER_ID=b2Rpbi10ZXN0LWthZmthMA # any 16 bytes in base64url; every node of a cluster has the same
readonly READY_SECONDS_MAX=120
readonly STOP_SECONDS_MAX=15

scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly scripts
readonly cache=${XDG_CACHE_HOME:-${HOME:?HOME is not set, and neither is XDG_CACHE_HOME}/.cache}/odin-kafka-$KAFKA_VERSION
readonly classpath="$cache/jars/*"

say() { printf 'kafka.sh: %s\n' "$*" >&2; }
fail() {
  say "$2"
  exit "$1"
}
usage() { sed -n '/^#   kafka.sh/s/^#   //p' "${BASH_SOURCE[0]}" >&2; }

# --- requirements -------------------------------------------------------------------------------------------------------

need_jdk() {
  local program version sum
  for program in java javac; do
    command -v "$program" >/dev/null ||
      fail 69 "no $program: Kafka $KAFKA_VERSION needs a JDK, 17 or newer (Debian: apt-get install openjdk-17-jdk-headless)"
  done
  version=$(java -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p')
  ((${version:-0} >= 17)) || fail 69 "java is ${version:-of an unknown version}: Kafka $KAFKA_VERSION needs 17 or newer"
  sum=$(java -version 2>&1 | cksum)
  archive_name=classes-${sum%% *}.jsa # of this JVM only: another one cannot read it
}

# Downloads into a separate folder and renames it when complete, so that an interrupted or a second download leaves no partial result.
need_jars() {
  [[ -d $cache/jars ]] && return
  command -v mvn >/dev/null ||
    fail 69 "no Maven: mvn downloads Kafka $KAFKA_VERSION once, to $cache (Debian: apt-get install maven)"
  say "downloading Kafka $KAFKA_VERSION to $cache (once, 45 MB)"
  mkdir -p "$cache"
  local fresh
  fresh=$(mktemp -d "$cache/download.XXXXXX")
  cat >"$fresh/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>odin</groupId> <artifactId>kafka-for-tests</artifactId> <version>1</version> <packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId> <artifactId>kafka_2.13</artifactId> <version>$KAFKA_VERSION</version></dependency>
    <dependency><groupId>org.slf4j</groupId> <artifactId>slf4j-simple</artifactId> <version>1.7.36</version></dependency>
  </dependencies>
</project>
POM
  mvn -B -q -f "$fresh/pom.xml" org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
    -DincludeScope=runtime -DoutputDirectory="$fresh/jars" >"$cache/download.log" 2>&1 </dev/null ||
    { rm -rf "$fresh"; fail 1 "the download failed; the output of Maven is in $cache/download.log. Check that this machine can reach Maven Central"; }
  mv -T "$fresh/jars" "$cache/jars" 2>/dev/null || [[ -d $cache/jars ]] # another one was quicker
  rm -rf "$fresh"
}

# Compiles Topics.java into a folder named after its content, so that an edit is always compiled.
need_topics() {
  local sum fresh
  sum=$(cksum <"$scripts/kafka/Topics.java")
  topics_classes=$cache/topics-${sum%% *}
  [[ -d $topics_classes ]] && return
  fresh=$(mktemp -d "$cache/compile.XXXXXX")
  javac -cp "$classpath" -d "$fresh" "$scripts/kafka/Topics.java" || fail 1 "scripts/kafka/Topics.java does not compile"
  mv -T "$fresh" "$topics_classes" 2>/dev/null || rm -rf "$fresh"
}

need_java_and_kafka() {
  need_jdk
  need_jars
  need_topics
}

# --- one node: DIR/node-N holds server.properties, data/, log and pid -----------------------------------------------------------

node_dir() { printf '%s/node-%d' "$dir" "$1"; }
broker_port() { printf '%d' $((port + $1 - 1)); }
controller_port() { printf '%d' $((port + $1 - 1 + 10000)); }

# Prints the pid of node N's broker, after a check of its command line: a pid file may be stale, and pids are reused.
node_pid() {
  local pid
  pid=$(cat "$(node_dir "$1")/pid" 2>/dev/null) && [[ -r /proc/$pid/cmdline ]] || return 1
  tr '\0' '\n' <"/proc/$pid/cmdline" 2>/dev/null | grep -qxF "$(node_dir "$1")/server.properties" || return 1
  printf '%d' "$pid"
}

port_is_taken() { (: <"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

configure_node() {
  local node=$1 voters='' n
  for ((n = 1; n <= nodes; n++)); do voters+="${voters:+,}$n@127.0.0.1:$(controller_port "$n")"; done
  mkdir -p "$(node_dir "$node")"
  cat >"$(node_dir "$node")/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=$node
controller.quorum.voters=$voters
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:$(broker_port "$node"),CONTROLLER://127.0.0.1:$(controller_port "$node")
advertised.listeners=PLAINTEXT://127.0.0.1:$(broker_port "$node")
log.dirs=$(node_dir "$node")/data
num.partitions=12
auto.create.topics.enable=false
log.retention.ms=3600000
message.max.bytes=4194304
replica.fetch.max.bytes=4194304
default.replication.factor=$nodes
offsets.topic.replication.factor=$nodes
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=$nodes
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
group.initial.rebalance.delay.ms=0
# A restarted node becomes leader of its partitions at once, so that every node that is killed leads some.
leader.imbalance.check.interval.seconds=1
leader.imbalance.per.broker.percentage=0
# After this time the partitions of a killed node move, and it may restart.
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
# 96 partitions, two indexes each, mapped at full size.
log.index.size.max.bytes=1048576
PROPERTIES
  # Permit everything that no rule denies. Several controllers could not elect a leader before they know the rules.
  ((nodes > 1)) || cat >>"$(node_dir "$node")/server.properties" <<PROPERTIES
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
allow.everyone.if.no.acl.found=true
PROPERTIES
}

# JVM options for tests: a small heap, and a fast start. The class archive (see stop_node) halves the start time.
java_options=(-Xms64m -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:+ExitOnOutOfMemoryError
  -Dorg.slf4j.simpleLogger.showDateTime=true '-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS'
  -Dorg.slf4j.simpleLogger.log.org.apache.kafka.common.config=warn)

# Uses the class archive if it exists. Otherwise, with a folder $1, records one there.
class_archive() {
  archive=()
  if [[ -f $cache/$archive_name ]]; then
    archive=("-XX:SharedArchiveFile=$cache/$archive_name")
  elif [[ -n ${1:-} ]]; then
    archive=("-XX:ArchiveClassesAtExit=$1/$archive_name")
  fi
}

start_node() {
  local node=$1 home archive pid
  home=$(node_dir "$node")
  class_archive
  # Run `format` once for a new node; it refuses to change existing data.
  [[ -f $home/data/meta.properties ]] ||
    java "${java_options[@]}" "${archive[@]}" -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp "$classpath" kafka.tools.StorageTool \
      format --ignore-formatted --cluster-id "$CLUSTER_ID" --config "$home/server.properties" >>"$home/log" 2>&1 ||
    { tail -n 5 "$home/log" >&2; fail 1 "node $node: its storage could not be formatted (above: the end of $home/log)"; }
  ((node > 1)) || class_archive "$home"
  setsid java "${java_options[@]}" "${archive[@]}" -cp "$classpath" kafka.Kafka "$home/server.properties" \
    </dev/null >>"$home/log" 2>&1 9>&- &
  pid=$!
  printf '%d\n' "$pid" >"$home/pid"
  # Its command line names the configuration only after the exec of java.
  until node_pid "$node" >/dev/null || [[ ! -d /proc/$pid ]]; do sleep 0.01; done
}

# Kills at once, because the data is deleted too. Only a node that records its classes gets SIGTERM, because it writes them at exit.
stop_node() {
  local node=$1 pid home
  home=$(node_dir "$node")
  if pid=$(node_pid "$node"); then
    if tr '\0' '\n' <"/proc/$pid/cmdline" | grep -q '^-XX:ArchiveClassesAtExit='; then
      kill -TERM "$pid"
      if wait_for_end "$node" "$STOP_SECONDS_MAX"; then mv "$home"/classes-*.jsa "$cache/" 2>/dev/null || true; fi
    fi
    kill_node "$node"
  fi
}

kill_node() {
  local node=$1 pid
  pid=$(node_pid "$node") || return 0
  kill -KILL "$pid" 2>/dev/null || true
  wait_for_end "$node" "$STOP_SECONDS_MAX" || fail 1 "node $node (pid $pid) did not exit after SIGKILL; it hangs in the kernel"
}

wait_for_end() {
  local node=$1 tries
  for ((tries = $2 * 20; tries > 0; tries--)); do
    node_pid "$node" >/dev/null || return 0
    sleep 0.05
  done
  return 1
}

# --- the cluster ----------------------------------------------------------------------------------------------------------

# The configuration of the nodes describes the cluster in DIR.
read_cluster() {
  nodes=$(find "$dir" -mindepth 2 -maxdepth 2 -path "$dir/node-*/server.properties" 2>/dev/null | wc -l)
  ((nodes > 0)) || return 1
  port=$(sed -n 's|^advertised.listeners=PLAINTEXT://127.0.0.1:||p' "$(node_dir 1)/server.properties")
}

need_cluster() { read_cluster || fail 1 "there is no cluster in $dir; \`kafka.sh up\` creates one (--dir DIR for another folder)"; }

need_node_exists() {
  [[ -z $node || $node -le $nodes ]] || fail 64 "--node $node: the cluster in $dir has $nodes node(s)"
}

running_nodes() {
  local n
  for ((n = 1; n <= nodes; n++)); do node_pid "$n" >/dev/null && printf '%d ' "$n"; done
  return 0
}

# Starts those of the given nodes that do not run, in parallel: formatting and starting mostly use one thread each.
start_nodes() {
  local n taken stopped=() jobs=()
  for n in "$@"; do
    node_pid "$n" >/dev/null && continue
    stopped+=("$n")
    for taken in "$(broker_port "$n")" "$(controller_port "$n")"; do
      if port_is_taken "$taken"; then fail 1 "port $taken on 127.0.0.1 is in use by another program; choose others with --port"; fi
    done
  done
  for n in "${stopped[@]}"; do
    start_node "$n" &
    jobs+=($!)
  done
  for n in "${jobs[@]}"; do wait "$n" || exit 1; done
}

# Runs Topics on all running nodes, and stops early if a node exits.
await_ready() {
  local verb=$1 brokers=() expected n log=$dir/topics.log archive
  expected=$(running_nodes)
  for n in $expected; do brokers+=("$n@127.0.0.1:$(broker_port "$n")"); done
  class_archive
  java "${java_options[@]}" "${archive[@]}" -Dorg.slf4j.simpleLogger.defaultLogLevel=error \
    -cp "$classpath:$topics_classes" Topics "$verb" "$READY_SECONDS_MAX" "${brokers[@]}" >"$log" 2>&1 9>&- &
  topics_pid=$!
  while kill -0 "$topics_pid" 2>/dev/null; do
    for n in $expected; do
      node_pid "$n" >/dev/null && continue
      tail -n 10 "$(node_dir "$n")/log" >&2
      fail 1 "node $n ended while starting (above: the end of $(node_dir "$n")/log)"
    done
    sleep 0.05
  done
  wait "$topics_pid" || { tail -n 3 "$log" >&2; fail 1 "the brokers do not answer correctly; their logs: $dir/node-*/log"; }
  topics_pid=''
}

brokers() {
  local n list=''
  for ((n = 1; n <= nodes; n++)); do list+="${list:+,}127.0.0.1:$(broker_port "$n")"; done
  printf '%s' "$list"
}

# However this script ends, it stops its own processes and those of an unfinished `up` (the logs stay).
topics_pid='' unfinished_up=''
end_own_processes() {
  local code=$? n
  trap - EXIT
  [[ -z $topics_pid ]] || kill "$topics_pid" 2>/dev/null || true
  [[ -z $unfinished_up ]] || for ((n = 1; n <= nodes; n++)); do
    [[ " $running_before " == *" $n "* ]] || (kill_node "$n")
  done
  exit "$code"
}

up() {
  local asked_nodes=${nodes:-1} asked_port=${port:-19092} n
  need_java_and_kafka
  if read_cluster; then
    if [[ $nodes != "$asked_nodes" || $port != "$asked_port" ]]; then
      [[ -z $(running_nodes) ]] ||
        fail 1 "$dir runs $nodes node(s) from port $port, but $asked_nodes from $asked_port were requested; run \`kafka.sh down\` first, or use another --dir"
      delete_nodes
    fi
  fi
  nodes=$asked_nodes port=$asked_port
  running_before=$(running_nodes)
  unfinished_up=1
  for ((n = 1; n <= nodes; n++)); do [[ -f $(node_dir "$n")/server.properties ]] || configure_node "$n"; done
  # shellcheck disable=SC2046 # numbers, one word each
  start_nodes $(seq "$nodes")
  await_ready create
  unfinished_up=''
  say "Kafka $KAFKA_VERSION runs: $nodes node(s), 8 topics of 12 partitions, files in $dir"
  printf 'KAFKA_BROKERS=%s\n' "$(brokers)"
}

delete_nodes() {
  local n
  for ((n = 1; n <= nodes; n++)); do
    stop_node "$n"
    rm -rf "$(node_dir "$n")"
  done
  rm -f "$dir/topics.log"
}

down() {
  read_cluster || { say "there is no cluster in $dir"; return 0; }
  delete_nodes
  say "stopped $nodes node(s) and deleted their data"
}

topics() {
  need_java_and_kafka
  need_cluster
  [[ -n $(running_nodes) ]] || fail 1 "no node runs in $dir; \`kafka.sh start\` starts them"
  await_ready recreate
  say "8 topics of 12 partitions, all empty"
}

rights() {
  need_java_and_kafka
  need_cluster
  [[ -n $topic ]] || fail 64 "$verb needs --topic NAME"
  ((nodes == 1)) || fail 64 "$verb: only a cluster of one node has rules"
  java "${java_options[@]}" -Dorg.slf4j.simpleLogger.defaultLogLevel=error -cp "$classpath" \
    "$scripts/kafka/Rights.java" "$verb" "$(brokers)" "$topic" >&2 || fail 1 "the rule for $topic could not be changed"
}

status() {
  local n pid running=0
  need_cluster
  for ((n = 1; n <= nodes; n++)); do
    if pid=$(node_pid "$n"); then
      running=$((running + 1))
      echo "node $n: running, pid $pid, 127.0.0.1:$(broker_port "$n")"
    else
      echo "node $n: stopped, 127.0.0.1:$(broker_port "$n")"
    fi
  done
  ((running == nodes))
}

kill_verb() {
  need_cluster
  need_node_exists
  local n
  for n in ${node:-$(seq "$nodes")}; do kill_node "$n"; done
}

start_verb() {
  need_java_and_kafka
  need_cluster
  need_node_exists
  local running
  # shellcheck disable=SC2046,SC2086 # numbers, one word each
  start_nodes ${node:-$(seq "$nodes")}
  read -ra running <<<"$(running_nodes)"
  if ((${#running[@]} * 2 > nodes)); then
    await_ready wait
  else
    say "started; ${#running[@]} of $nodes nodes run, and they answer once a majority does"
  fi
}

# --- the command line -----------------------------------------------------------------------------------------------------------

# number OPTION VALUE MIN MAX
number() {
  if [[ ! $2 =~ ^[1-9][0-9]{0,4}$ ]] || (($2 < $3 || $2 > $4)); then fail 64 "$1 $2: a number from $3 to $4"; fi
}

verb=${1:-}
shift || true
nodes='' port='' node='' topic='' dir=$scripts/../target/kafka
while (($# > 0)); do
  [[ $# -ge 2 && -n $2 ]] || fail 64 "$1 needs a value"
  case $1 in
    --nodes) [[ $2 == 1 || $2 == 3 ]] || fail 64 "--nodes $2: 1 or 3"; nodes=$2 ;;
    --port) number --port "$2" 1024 55000; port=$2 ;;
    --node) number --node "$2" 1 3; node=$2 ;;
    --topic) topic=$2 ;;
    --dir) dir=$2 ;;
    *) usage; fail 64 "unknown option $1" ;;
  esac
  shift 2
done
dir=$(realpath -m "$dir")

# One script at a time per folder. Processes that outlive it are started without the descriptor, so that the lock ends with the script.
lock() {
  [[ $verb != up ]] || mkdir -p "$dir" || fail 1 "the folder $dir cannot be created; choose another with --dir"
  [[ -d $dir ]] || return 0
  exec 9<"$dir"
  flock -w 300 9 || fail 1 "another kafka.sh has been working in $dir for five minutes"
}

trap end_own_processes EXIT
trap 'exit 130' INT TERM
case $verb in
  up | down | topics) lock; "$verb" ;;
  kill | start) lock; "${verb}_verb" ;;
  forbid | permit) rights ;;
  status) status ;;
  help | -h | --help) usage ;;
  *) usage; fail 64 "unknown command '${verb}'" ;;
esac
