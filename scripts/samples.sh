#!/bin/sh
# Fetches schemas of real applications from Debian's packages, for the tests, into .servers/samples/<package>/ (or below
# $CUTOVER_SERVERS). Nothing is installed: a package is only unpacked. Nothing of it is part of this project; each has a
# licence of its own. Where there is no apt, or a package is not to be had, that is said and is no error: the tests say
# that they leave it out, and fail only where CI is set.
# usage: scripts/samples.sh
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
samples=${CUTOVER_SERVERS:-$root/.servers}/samples

# fetch PACKAGE FILE: unpacks the package, if that file of it is not here yet.
fetch() {
  [ ! -e "$samples/$1/$2" ] || return 0
  work=$(mktemp -d "$samples/.new.XXXXXX")
  if (cd "$work" && apt-get download -qq "$1" >apt.log 2>&1 && dpkg -x ./*.deb unpacked) && [ -e "$work/unpacked/$2" ]; then
    chmod -R a+rX "$work/unpacked"
    # Whoever comes second finds the same thing there.
    mv -T "$work/unpacked" "$samples/$1" 2>/dev/null || [ -e "$samples/$1/$2" ]
    echo "samples/$1" >&2
  else
    echo "warning: $1 is not to be had here; the test of its schema is left out: $(tail -n 1 "$work/apt.log" 2>/dev/null)" >&2
  fi
  rm -rf "$work"
}

command -v apt-get >/dev/null 2>&1 && command -v dpkg >/dev/null 2>&1 || {
  echo "warning: no apt here, so no schemas of Debian's packages; the test of these is left out" >&2
  exit 0
}
work=
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
mkdir -p "$samples"
# A machine that has never looked knows of no package.
if [ "$(id -u)" = 0 ] && ! ls /var/lib/apt/lists/*Packages* >/dev/null 2>&1; then
  apt-get update -qq >/dev/null 2>&1 || true
fi
fetch icinga2-ido-pgsql usr/share/icinga2-ido-pgsql/schema/pgsql.sql
fetch kea-admin usr/share/kea/scripts/pgsql/dhcpdb_create.pgsql
fetch pdns-backend-pgsql usr/share/pdns-backend-pgsql/schema/schema.pgsql.sql
fetch bacula-director-pgsql usr/share/dbconfig-common/data/bacula-director-pgsql/install/pgsql
