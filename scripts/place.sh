# What scripts that fetch something share; `. scripts/place.sh` reads it, with $root set. $servers is the folder that all of it goes
# into, $work one to put something together in, which goes with the script.
# Several runs at once are safe: whatever is put together aside is moved into place by one rename.
servers=${CUTOVER_SERVERS:-$root/.servers}
work=
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
mkdir -p "$servers"

fail() {
  printf 'error: %s\n\nhint: %s\n' "$1" "$2" >&2
  exit 1
}

need() {
  command -v "$1" >/dev/null 2>&1 || fail "$1 is missing" "$2"
}

need python3 "install it (apt-get install python3), then run this again"

# here DIR VERSION: is exactly this version in DIR?
here() {
  [ "$(cat "$servers/$1/.version" 2>/dev/null)" = "$2" ]
}

# begin: a new folder $work.
begin() {
  work=$(mktemp -d "$servers/.new.XXXXXX")
}

# place FOLDER DIR VERSION: moves FOLDER to DIR in one rename, and takes $work away. Whoever comes second finds the same thing there.
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
  rm -rf "$work"
  echo "$2: $3" >&2
}

# rename(2), which never moves a folder *into* an existing one as mv does.
rename() {
  python3 -c 'import os, sys; os.rename(*sys.argv[1:])' "$1" "$2" 2>/dev/null
}

# gave_up LOG WHAT FROM: says how it ended.
gave_up() {
  tail -n 3 "$1" >&2
  fail "$2" "check the network and $3"
}

# from_pypi FOLDER WHAT…: packages and options for pip.
from_pypi() {
  python3 -m pip --version >/dev/null 2>&1 || fail "pip is missing" "install it (apt-get install python3-pip), then run this again"
  folder=$1
  shift
  python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-compile --target "$folder" "$@" >"$work/pip.log" 2>&1 ||
    gave_up "$work/pip.log" "pip could not fetch $*" "pip's index"
}
