#!/bin/sh
# Fetches stock OpenFeature providers that the tests ask our server with, into .servers/providers/ (or $CUTOVER_SERVERS):
#   node/     @openfeature/ofrep-provider with its SDK        (npm)
#   python/   openfeature-provider-ofrep with its SDK         (PyPI)
#   rust/     a program with open-feature-ofrep and its SDK   (crates.io; compiled)
#   node-flagd/, python-flagd/   the same with flagd's provider
#   shop/     what examples/shop-node needs                   (npm)
# and schemathesis/, which asks it whatever its OpenAPI document allows (PyPI).
# usage: scripts/providers.sh
# What is there already is left alone, so a second run is quick.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
node="@openfeature/server-sdk@1.23.0 @openfeature/ofrep-provider@0.1.3"
python="openfeature-sdk==0.10.0 openfeature-provider-ofrep==0.3.0"
node_flagd="@openfeature/server-sdk@1.23.0 @openfeature/flagd-provider@0.16.1 @grpc/grpc-js@1.14.7"
python_flagd="openfeature-sdk==0.10.0 openfeature-provider-flagd==0.6.1"
schemathesis="schemathesis==4.32.5"

. "$root/scripts/place.sh"

# modules NAME WHAT: from npm, with what they need.
modules() {
  here "providers/$1" "$2" && return
  need npm "install Node.js with npm (apt-get install npm), then run this again"
  begin
  # shellcheck disable=SC2086
  npm install --silent --no-audit --no-fund --no-save --prefix "$work/all" $2 >"$work/npm.log" 2>&1 ||
    gave_up "$work/npm.log" "npm could not fetch $2" "npm's registry"
  place "$work/all" "providers/$1" "$2"
}

# packages NAME WHAT: from PyPI, with what they need.
packages() {
  here "providers/$1" "$2" && return
  begin
  # shellcheck disable=SC2086
  from_pypi "$work/all" $2
  place "$work/all" "providers/$1" "$2"
}

# What the example in Node.js needs, exactly as its lock file says.
shop() {
  shop=$(cksum <"$root/examples/shop-node/package-lock.json")
  here providers/shop "$shop" && return
  need npm "install Node.js with npm (apt-get install npm), then run this again"
  begin
  mkdir "$work/all"
  cp "$root/examples/shop-node/package.json" "$root/examples/shop-node/package-lock.json" "$work/all"
  (cd "$work/all" && npm ci --silent --no-audit --no-fund) >"$work/npm.log" 2>&1 ||
    gave_up "$work/npm.log" "npm could not fetch what examples/shop-node needs" "npm's registry"
  place "$work/all" providers/shop "$shop"
}

# The program that asks by Rust's provider, exactly as its lock file says.
rust() {
  ask=crates/cli/tests/process/providers/rust
  rust=$(cd "$root/$ask" && cat Cargo.toml Cargo.lock src/main.rs | cksum)
  here providers/rust "$rust" && return
  need cargo "install Rust (https://rustup.rs), then run this again"
  begin
  # From there, so that it is compiled by the toolchain that this project names.
  (cd "$root" && cargo install --quiet --locked --no-track --path "$ask" --root "$work/all" --target-dir "$work/target") >"$work/cargo.log" 2>&1 ||
    gave_up "$work/cargo.log" "cargo could not build $ask" "crates.io"
  place "$work/all" providers/rust "$rust"
}

modules node "$node"
modules node-flagd "$node_flagd"
packages python "$python"
packages python-flagd "$python_flagd"
packages schemathesis "$schemathesis"
rust
shop
