#!/usr/bin/env bash
# Measures cutover against its peers on throwaway servers, and writes bench/RESULTS.md and bench/results.json.
# usage: bench/run.sh [pause|gate|copy|copy_many|verify|impact…] [--quick] [--peers]; --peers fetches data-diff from PyPI
# CUTOVER_BIN measures a binary that is built already; CUTOVER_SERVERS names the folder of scripts/servers.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD

names=() quick=() peers=
for argument; do
  case $argument in
    --quick) quick=(--quick) ;;
    --peers) peers=1 ;;
    pause | gate | copy | copy_many | verify | impact) names+=("$argument") ;;
    -h | --help) sed -n '2,4s/^# //p' "$0"; exit 0 ;;
    *) printf 'error: no bench is called %s\n\nhint: pause, gate, copy, copy_many, verify, impact; --quick for fewer runs\n' "$argument" >&2; exit 2 ;;
  esac
done

if [ -z "${CUTOVER_BIN:-}" ]; then
  cargo build --release --locked -p cutover-cli
  CUTOVER_BIN=${CARGO_TARGET_DIR:-$root/target}/release/cutover
fi

# data-diff's command wants all of dbt; what is compared here is its library, which does not.
data_diff=${CUTOVER_SERVERS:-$root/.servers}/peers/data-diff
if [ -n "$peers" ] && [ ! -e "$data_diff/.done" ]; then
  # With the Python that runs the benches: another one may be in a folder that only we can read.
  env PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" python3 -m venv --without-pip "$data_diff"
  site=$("$data_diff/bin/python" -c 'import site; print(site.getsitepackages()[0])')
  python3 -m pip install -q --target "$site" --no-deps 'data-diff==0.11.2' 'dsnparse<0.2'
  python3 -m pip install -q --target "$site" psycopg2-binary runtype click rich toml 'mashumaro[msgpack]<3.11' attrs tabulate requests keyring pydantic packaging typing-extensions
  touch "$data_diff/.done"
fi
[ -e "$data_diff/.done" ] || data_diff=

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
  CUTOVER_BIN="$CUTOVER_BIN" CUTOVER_DATA_DIFF="${data_diff:+$data_diff/bin/python}" CUTOVER_SERVERS="${CUTOVER_SERVERS:-$root/.servers}" CUTOVER_COMMIT="${CUTOVER_COMMIT:-$(git rev-parse --short HEAD 2>/dev/null || echo unknown)}" \
  python3 "$root/bench/main.py" --work "$work" --before "$root/bench/results.json" "${quick[@]}" "${names[@]}" &
runner=$!
wait "$runner"
runner=
cp "$work/results.json" "$work/RESULTS.md" bench/
echo "wrote bench/RESULTS.md and bench/results.json" >&2
