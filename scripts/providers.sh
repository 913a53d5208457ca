#!/bin/sh
# Fetches stock OpenFeature providers that the tests ask our server with, into .servers/providers/ (or $CUTOVER_SERVERS):
#   node/     @openfeature/ofrep-provider with its SDK        (npm)
#   python/   openfeature-provider-ofrep with its SDK         (PyPI)
#   node-flagd/, python-flagd/   the same with flagd's provider
#   shop/     what examples/shop-node needs                 (npm)
# and schemathesis/, which asks it whatever its OpenAPI document allows (PyPI).
# usage: scripts/providers.sh
# What is there already is left alone, so a second run is quick; each is put together aside and moved into place by one rename.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
servers=${CUTOVER_SERVERS:-$root/.servers}/providers
node="@openfeature/server-sdk@1.23.0 @openfeature/ofrep-provider@0.1.3"
python="openfeature-sdk==0.10.0 openfeature-provider-ofrep==0.3.0"
node_flagd="@openfeature/server-sdk@1.23.0 @openfeature/flagd-provider@0.16.1 @grpc/grpc-js@1.14.7"
python_flagd="openfeature-sdk==0.10.0 openfeature-provider-flagd==0.6.1"
schemathesis="schemathesis==4.32.5"

fail() {
  printf 'error: %s\n\nhint: %s\n' "$1" "$2" >&2
  exit 1
}

# here NAME WHAT: is exactly this in NAME?
here() {
  [ "$(cat "$servers/$1/.version" 2>/dev/null)" = "$2" ]
}

# place FOLDER NAME WHAT
place() {
  echo "$3" >"$1/.version"
  chmod -R a+rX "$1"
  rm -rf "${servers:?}/$2"
  mv -T "$1" "$servers/$2" 2>/dev/null || mv "$1" "$servers/$2" || here "$2" "$3" || fail "can't move $1 to $servers/$2" "remove it and run this again"
  echo "providers/$2: $3" >&2
}

work=
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
mkdir -p "$servers"
# modules NAME WHAT: from npm, with what they need.
modules() {
  here "$1" "$2" && return
  work=$(mktemp -d "$servers/.new.XXXXXX")
  # shellcheck disable=SC2086
  npm install --silent --no-audit --no-fund --no-save --prefix "$work" $2 >"$work/npm.log" 2>&1 ||
    { tail -n 3 "$work/npm.log" >&2; fail "npm could not fetch $2" "check the network and npm's registry"; }
  place "$work" "$1" "$2"
}

# packages NAME WHAT: from PyPI, with what they need.
packages() {
  here "$1" "$2" && return
  work=$(mktemp -d "$servers/.new.XXXXXX")
  # shellcheck disable=SC2086
  python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-compile --target "$work" $2 >"$work/pip.log" 2>&1 ||
    { tail -n 3 "$work/pip.log" >&2; fail "pip could not fetch $2" "check the network and pip's index"; }
  place "$work" "$1" "$2"
}

modules node "$node"
modules node-flagd "$node_flagd"
packages python "$python"
packages python-flagd "$python_flagd"
packages schemathesis "$schemathesis"

# What the example in Node.js needs, exactly as its lock file says.
shop=$(cksum <"$root/examples/shop-node/package-lock.json")
if ! here shop "$shop"; then
  work=$(mktemp -d "$servers/.new.XXXXXX")
  cp "$root/examples/shop-node/package.json" "$root/examples/shop-node/package-lock.json" "$work"
  (cd "$work" && npm ci --silent --no-audit --no-fund) >"$work/npm.log" 2>&1 ||
    { tail -n 3 "$work/npm.log" >&2; fail "npm could not fetch what examples/shop-node needs" "check the network and npm's registry"; }
  place "$work" shop "$shop"
fi
