#!/usr/bin/env bash
# Fetches what bench/ measures cutover beside, into .servers/peers/ (or below $CUTOVER_SERVERS); what is there is left alone.
# usage: bench/peers.sh [data-diff|unleash-edge|protoc…]
#   data-diff     a peer of `verify`                                          (PyPI)
#   unleash-edge  a peer of `evaluate`; to build it takes long                  (crates.io)
#   protoc        what a peer of `permit` wants to be built with              (PyPI)
set -euo pipefail
cd "$(dirname "$0")/.."
peers=${CUTOVER_SERVERS:-$PWD/.servers}/peers
unleash_edge=20.1.0

# Of the system: another one may be in a folder that only we can read, and the benches run as somebody else.
python() {
  env PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" python3 "$@"
}

# data-diff's command wants all of dbt; what is compared here is its library, which does not.
fetch_data_diff() {
  python -m venv --without-pip "$peers/data-diff"
  site=$("$peers/data-diff/bin/python" -c 'import site; print(site.getsitepackages()[0])')
  python3 -m pip install -q --root-user-action=ignore --target "$site" --no-deps 'data-diff==0.11.2' 'dsnparse<0.2'
  python3 -m pip install -q --root-user-action=ignore --target "$site" psycopg2-binary runtype click rich toml 'mashumaro[msgpack]<3.11' attrs tabulate requests keyring pydantic packaging typing-extensions
}

# As its authors locked it; of what it can do besides, nothing is asked here.
fetch_unleash_edge() {
  # Built aside, and thrown away: it is as large as all of ours.
  build=$(mktemp -d /tmp/cutover-peer.XXXXXX)
  trap 'rm -rf "$build"' EXIT
  CARGO_TARGET_DIR=$build cargo install unleash-edge --version "$unleash_edge" --locked --no-default-features --root "$peers/unleash-edge"
}

fetch_protoc() {
  python3 -m pip install -q --root-user-action=ignore --target "$peers/protoc/site" 'grpcio-tools==1.76.0'
  cat >"$peers/protoc/protoc" <<'END'
#!/bin/sh
site=$(dirname "$0")/site
PYTHONPATH=$site exec python3 -m grpc_tools.protoc -I"$site/grpc_tools/_proto" "$@"
END
  chmod +x "$peers/protoc/protoc"
}

for name; do
  case $name in
    data-diff | unleash-edge | protoc) ;;
    *) printf 'error: no peer is called %s\n\nhint: data-diff, unleash-edge, protoc\n' "$name" >&2; exit 2 ;;
  esac
  [ ! -e "$peers/$name/.done" ] || continue
  mkdir -p "$peers/$name"
  "fetch_${name//-/_}"
  touch "$peers/$name/.done"
  echo "peers/$name is there" >&2
done
