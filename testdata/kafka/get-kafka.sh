#!/usr/bin/env bash
# get-kafka.sh VERSION prints the folder that holds the jars of Apache Kafka
# VERSION: broker, command-line tools and what they log with. What is not there
# yet is fetched with Maven, from whatever repository Maven is configured to use.
#
# VERSION is a release (3.9.2) or a line of the file `versions` beside this
# script (3.9, 4), which stands for the newest release of that line that can be
# had.
#
# The folder is kept in
#   ${TIDEWIRE_KAFKA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tidewire/kafka}/RELEASE
# and appears there complete or not at all: jars go to a temporary folder that
# is renamed when it is full. Callers may run at once; they take turns.
#
# To start the command-line tools by hand:
#   java -cp "$(testdata/kafka/get-kafka.sh 4)/*" org.apache.kafka.tools.TopicCommand --help
set -euo pipefail

die() {
  echo "get-kafka.sh: $*" >&2
  exit 1
}

[[ $# -eq 1 && -n $1 ]] || die "usage: get-kafka.sh VERSION, for example 4, 3.9 or 3.9.2"
want=$1
[[ $want =~ ^[0-9]+(\.[0-9]+)*$ ]] || die "'$want' is not a version: give 4, 3.9 or a release such as 3.9.2"

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${TIDEWIRE_KAFKA_CACHE:-${XDG_CACHE_HOME:-${HOME:?set HOME or TIDEWIRE_KAFKA_CACHE}/.cache}/tidewire/kafka}
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)

# The releases that may answer for what is wanted, best first.
releases=$(awk -v v="$want" '$1 == v { $1 = ""; sub(/^ +/, ""); print; exit }' "$here/versions")
[[ -n $releases ]] || releases=$want

# What an earlier run settled on is taken as it is while the list is the same,
# so that a release that cannot be had is not asked for again and again.
settled=$cache/settled-$want
answer_if_settled() {
  local list= release=
  [[ -r $settled ]] && { read -r list && read -r release; } <"$settled" || return 1
  [[ $list == "$releases" && -d $cache/$release ]] || return 1
  echo "$cache/$release"
}
answer_if_settled && exit 0

command -v java >/dev/null || die "no Java: install a JVM, 17 or newer (Debian: openjdk-17-jre-headless)"
command -v mvn >/dev/null || die "no Maven: install it (Debian: maven)"

# One fetch at a time. Without flock(1) two may fetch the same; the rename below
# still lets only a complete folder appear.
if command -v flock >/dev/null; then
  exec 9>"$cache/.lock"
  flock 9
  answer_if_settled && exit 0
fi

work=$(mktemp -d "$cache/.fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT

# fetch RELEASE puts its jars into $work/jars.
fetch() {
  local release=$1 log4j1=
  # Both lines log through slf4j, bound to its simplest logger, which writes to
  # stderr and is set with system properties. Kafka 3 also wants log4j 1 to be
  # there (reload4j is its maintained successor).
  if [[ ${release%%.*} -lt 4 ]]; then
    log4j1='<dependency><groupId>ch.qos.reload4j</groupId><artifactId>reload4j</artifactId><version>1.2.25</version></dependency>'
  fi
  rm -rf "$work/jars"
  cat >"$work/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>tidewire.test</groupId>
  <artifactId>kafka-jars</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$release</version></dependency>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>$release</version>
      <exclusions><exclusion><groupId>org.slf4j</groupId><artifactId>slf4j-reload4j</artifactId></exclusion></exclusions></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
    $log4j1
  </dependencies>
</project>
POM
  (cd "$work" && mvn -q -B -Dstyle.color=never dependency:copy-dependencies \
    -DincludeScope=runtime -DoutputDirectory="$work/jars") >"$work/maven.log" 2>&1 || return 1
  compgen -G "$work/jars/kafka_2.13-$release.jar" >/dev/null
}

for release in $releases; do
  if [[ ! -d $cache/$release ]]; then
    if ! fetch "$release"; then
      echo "get-kafka.sh: Kafka $release cannot be had: $(grep -m1 ERROR "$work/maven.log" | cut -c1-400 || tail -n1 "$work/maven.log")" >&2
      continue
    fi
    # Without flock another run may have been quicker; its folder is as good.
    mv "$work/jars" "$cache/$release" 2>/dev/null || [[ -d $cache/$release ]]
  fi
  printf '%s\n%s\n' "$releases" "$release" >"$work/settled"
  mv -f "$work/settled" "$settled"
  echo "$cache/$release"
  exit 0
done
die "no release of Kafka $want could be fetched (tried: $releases): check Maven's settings and the network"
