#!/usr/bin/env bash
# Sees to it that everything is there which `make demo` and `make test` need, and installs what is missing: programs
# with apt-get (as root or through sudo), further servers with scripts/servers.sh into .servers/.
# Where it can't install, it says what is missing and how to get it, and exits with 1. When all is there, it is quick.
set -euo pipefail
cd "$(dirname "$0")/.."

servers=${CUTOVER_SERVERS:-$PWD/.servers}
# What is missing, one line each: what it is for | names for apt | names for Homebrew.
missing=()

main() {
  look
  if [ "${#missing[@]}" -gt 0 ]; then
    install || give_up
    missing=()
    look
    [ "${#missing[@]}" -eq 0 ] || give_up
  fi
  need_rust
  bash scripts/servers.sh
  sh scripts/samples.sh
  sh scripts/providers.sh
}

look() {
  compiles || missing+=("a C compiler, for SQLite and for linking|gcc libc6-dev|gcc")
  has_postgres || missing+=("PostgreSQL with its client programs|postgresql|postgresql@17")
  has_program pgbouncer || missing+=("PgBouncer|pgbouncer|pgbouncer")
  has_program python3 || missing+=("Python, for fetching client programs|python3|python")
  fetched || look_for_fetchers
}

# Only wanted until scripts/servers.sh has run once.
look_for_fetchers() {
  [ -e /etc/ssl/certs/ca-certificates.crt ] || [ "$(uname -s)" = Darwin ] || missing+=("certificates, for fetching servers|ca-certificates|ca-certificates")
  has_program node || missing+=("Node.js, for fetching servers|nodejs|node")
  has_program npm || missing+=("npm, for fetching servers|npm|node")
  python3 -m pip --version >/dev/null 2>&1 || missing+=("pip, for fetching client programs|python3-pip|python")
}

# It has to find its headers too: Debian's gcc alone comes without them.
compiles() {
  has_program cc && echo '#include <stdlib.h>' | cc -E -o /dev/null - 2>/dev/null
}

# Debian keeps the server out of the PATH, and pgbouncer in a folder that only root looks into.
has_postgres() {
  compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null ||
    compgen -G '/opt/homebrew/opt/postgresql*/bin/postgres' >/dev/null ||
    compgen -G '/usr/local/opt/postgresql*/bin/postgres' >/dev/null ||
    has_program postgres
}

has_program() {
  command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ]
}

# Whether scripts/servers.sh has been here. Which versions there have to be is for that script to say.
fetched() {
  compgen -G "$servers/postgresql/*/.version" >/dev/null && compgen -G "$servers/tools/*/.version" >/dev/null &&
    compgen -G "$servers/providers/schemathesis/.version" >/dev/null
}

install() {
  command -v apt-get >/dev/null 2>&1 || return 1
  local become=() packages
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null 2>&1 || return 1
    become=(sudo)
  fi
  read -ra packages <<<"$(column 2)"
  echo "installing: ${packages[*]}" >&2
  "${become[@]}" bash -c "$(declare -f as_root); as_root \"\$@\"" setup "${packages[@]}"
}

# Installs these packages, and sees to it that no service of theirs runs because of us, now or after the next start:
# the tests and the demo start their own servers. It runs in a shell of its own, so it uses nothing from above.
as_root() {
  set -eu
  policy=/usr/sbin/policy-rc.d
  cluster=/etc/postgresql-common/createcluster.d/cutover-setup.conf
  made=("$cluster")
  trap 'rm -f "${made[@]}"' EXIT
  if [ ! -e "$policy" ]; then
    made+=("$policy")
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
  fi
  mkdir -p "${cluster%/*}"
  echo 'create_main_cluster = false' >"$cluster"
  # With old lists, or some of them, the packages may still be had: let the next command tell.
  apt-get update -qq || echo "warning: apt's lists could not be brought up to date" >&2
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" </dev/null >&2
  for package; do
    case $package in
      postgresql | pgbouncer) if [ -d /run/systemd/system ]; then systemctl disable --quiet "$package"; fi ;;
    esac
  done
}

# column N: the words of that column of what is missing, each once.
column() {
  printf '%s\n' "${missing[@]}" | cut -d '|' -f "$1" | tr ' ' '\n' | sort -u | paste -s -d ' ' -
}

give_up() {
  {
    echo "error: this machine lacks something, and it could not be installed"
    printf '%s\n' "${missing[@]}" | cut -d '|' -f 1 | sed 's/^/  - /'
    echo
    echo "hint: Debian, Ubuntu: apt-get install $(column 2)"
    echo "      macOS: brew install $(column 3)"
  } >&2
  exit 1
}

# Where rustup is at hand, the first call of cargo makes it fetch the toolchain that this project wants.
need_rust() {
  command -v cargo >/dev/null 2>&1 || rust_lacks "Rust is missing" "https://rustup.rs installs it"
  cargo --version >/dev/null || rust_lacks "cargo does not work here" "rustup toolchain install, in this folder"
  { cargo fmt --version && cargo clippy --version; } >/dev/null 2>&1 ||
    rust_lacks "rustfmt or clippy is missing" "rustup component add rustfmt clippy; or apt-get install rustfmt rust-clippy; or brew install rust"
}

rust_lacks() {
  printf 'error: %s\n\nhint: %s\n' "$1" "$2" >&2
  exit 1
}

main
