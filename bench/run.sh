#!/usr/bin/env bash
# Measures cutover against its peers on throwaway servers, and writes bench/RESULTS.md and bench/results.json.
# usage: bench/run.sh [pause|gate|copy|copy_many|verify|impact|evaluate|permit|crowd|shadow…] [--quick] [--peers]; --peers fetches peers first (bench/peers.sh)
# CUTOVER_BIN and CUTOVER_RIG measure a binary, and with a rig, that are built already; CUTOVER_SERVERS names the folder of scripts/servers.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD

names=() quick=() peers=
for argument; do
  case $argument in
    --quick) quick=(--quick) ;;
    --peers) peers=1 ;;
    pause | gate | copy | copy_many | verify | impact | evaluate | permit | crowd | shadow) names+=("$argument") ;;
    -h | --help) sed -n '2,4s/^# //p' "$0"; exit 0 ;;
    *) printf 'error: no bench is called %s\n\nhint: pause, gate, copy, copy_many, verify, impact, evaluate, permit, crowd, shadow; --quick for fewer runs\n' "$argument" >&2; exit 2 ;;
  esac
done

if [ -z "${CUTOVER_BIN:-}" ]; then
  cargo build --release --locked -p cutover-cli
  CUTOVER_BIN=${CARGO_TARGET_DIR:-$root/target}/release/cutover
fi

# Whether one of these benches is to be run.
wants() {
  [ "${#names[@]}" != 0 ] || return 0
  for name; do
    [[ " ${names[*]} " != *" $name "* ]] || return 0
  done
  return 1
}

# What was fetched once is measured from then on.
peers_folder=${CUTOVER_SERVERS:-$root/.servers}/peers
fetched() {
  if [ -n "$peers" ] && wants "$2"; then bash bench/peers.sh "$1" || exit 1; fi
  [ -e "$peers_folder/$1/.done" ]
}
data_diff= unleash_edge= rig_features=()
if fetched data-diff verify; then data_diff=$peers_folder/data-diff/bin/python; fi
if fetched unleash-edge evaluate; then unleash_edge=$peers_folder/unleash-edge/bin/unleash-edge; fi
if fetched protoc permit; then rig_features=(--features peers); fi

if [ -z "${CUTOVER_RIG:-}" ] && wants evaluate permit crowd; then
  # Without --locked: a crate of ours may depend on something else since. What is measured beside it is pinned by its manifest.
  rig_target=${CARGO_TARGET_DIR:-$root/target}/rig
  PROTOC=$peers_folder/protoc/protoc cargo build --release --manifest-path bench/rig/Cargo.toml --target-dir "$rig_target" "${rig_features[@]}"
  CUTOVER_RIG=$rig_target/release/cutover-rig
fi

# PostgreSQL refuses root, so everything below runs as somebody else.
as=()
if [ "$(id -u)" = 0 ]; then
  id postgres >/dev/null 2>&1 || { printf 'error: no user to run servers as\n\nhint: apt-get install postgresql, or run this as a user other than root\n' >&2; exit 1; }
  as=(setpriv --reuid=postgres --regid=postgres --init-groups)
fi

work=$(mktemp -d /tmp/cutover-bench.XXXXXX)
[ "${#as[@]}" = 0 ] || chown postgres: "$work"
runner=

# Whatever we started wrote its process id into a file here, and is gone when this ends, however it ends.
take_down() {
  trap - EXIT HUP INT TERM
  [ -z "$runner" ] || kill -TERM "$runner" 2>/dev/null || true
  [ -z "$runner" ] || wait "$runner" 2>/dev/null || true
  while IFS= read -r file; do
    pid=$(head -n 1 "$file" 2>/dev/null || true)
    # Only a process that still works in our folder: the number may be somebody else's by now.
    if [ -n "$pid" ] && grep -qsaF "$work" "/proc/$pid/cmdline"; then
      kill -QUIT "$pid" 2>/dev/null || true
    fi
  done < <(find "$work" -name postmaster.pid -o -name '*.pid' | sort -u)
  rm -rf "$work" 2>/dev/null || { sleep 1; rm -rf "$work"; }
}
trap take_down EXIT
trap 'exit 130' INT
trap 'exit 143' HUP TERM

"${as[@]}" env -i PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" HOME="$work" LC_ALL=C.UTF-8 TZ=UTC PYTHONDONTWRITEBYTECODE=1 \
  CUTOVER_BIN="$CUTOVER_BIN" CUTOVER_RIG="${CUTOVER_RIG:-}" CUTOVER_DATA_DIFF="$data_diff" CUTOVER_UNLEASH_EDGE="$unleash_edge" \
  CUTOVER_SERVERS="${CUTOVER_SERVERS:-$root/.servers}" CUTOVER_COMMIT="${CUTOVER_COMMIT:-$(git rev-parse --short HEAD 2>/dev/null || echo unknown)}" \
  python3 "$root/bench/main.py" --work "$work" --before "$root/bench/results.json" "${quick[@]}" "${names[@]}" &
runner=$!
wait "$runner"
runner=
cp "$work/results.json" "$work/RESULTS.md" bench/
echo "wrote bench/RESULTS.md and bench/results.json" >&2
