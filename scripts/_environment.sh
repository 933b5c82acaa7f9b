# Sourced by the commands beside it: they share one virtual environment, .venv in the project's root.
#
#   prepare examples|test|dev    makes or renews it with that extra; $python is then its interpreter
#
# PYTHON=... picks the interpreter it is made from (3.11 to 3.13). CC, CFLAGS, LDFLAGS and
# SOTTOVOCE_DEBUG reach the build of the optional C extension; without a working compiler everything
# still runs, more slowly.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv
python=$venv/bin/python

say() { printf 'sottovoce: %s\n' "$*" >&2; }
die() {
  say "$@"
  exit 1
}

# Prints what tells one interpreter from another; fails unless it runs and is of a version we support.
identify() {
  "$1" -c '
import sys
if not (3, 11) <= sys.version_info[:2] <= (3, 13):
    sys.exit(1)
print(sys.version.split()[0], sys.base_prefix)' 2>/dev/null
}

# Prints the interpreter to make the environment from, better those that can give it a pip.
pick_python() {
  local needed candidate candidates=(python3.13 python3.12 python3.11 python3 python)
  if [ -n "${PYTHON:-}" ]; then
    identify "$PYTHON" >/dev/null || die "PYTHON=$PYTHON does not run, or is not Python 3.11 to 3.13"
    candidates=("$PYTHON")
  fi
  for needed in 'venv, ensurepip' 'venv, pip'; do
    for candidate in "${candidates[@]}"; do
      if identify "$candidate" >/dev/null && "$candidate" -c "import $needed" 2>/dev/null; then
        echo "$candidate"
        return
      fi
    done
  done
  for candidate in "${candidates[@]}"; do
    identify "$candidate" >/dev/null || continue
    die "$candidate cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv"
  done
  die "no Python 3.11, 3.12 or 3.13 found; put one on the PATH or name it: PYTHON=/path/to/python3"
}

make_venv() {
  local base=$1
  if [ -e "$venv" ] && [ ! -e "$venv/.sottovoce" ]; then
    die "$venv was not made by these scripts; move it away first"
  fi
  rm -rf "$venv"
  mkdir "$venv"
  touch "$venv/.sottovoce"
  if "$base" -c 'import ensurepip' 2>/dev/null; then
    "$base" -m venv "$venv"
  else
    "$base" -m venv --without-pip "$venv"
    "$base" -m pip --python "$python" install -qq --disable-pip-version-check pip
  fi
}

# Prints what an installation depends on; a change of any of it calls for a new one.
state() {
  {
    echo "$root" "${CC:-}" "${CFLAGS:-}" "${LDFLAGS:-}" "${SOTTOVOCE_DEBUG:-}"
    cd "$root" && cat pyproject.toml setup.py mpc/*.c
    ls mpc/*.so 2>/dev/null || true
  } | cksum
}

# Whether .venv has this extra, from the interpreter asked for, and nothing changed since.
is_ready() {
  local extra=$1 ours wanted
  ours=$(identify "$python") || return 1
  wanted=$(identify "${PYTHON:-$python}") || return 1
  [ "$ours" = "$wanted" ] && [ -e "$venv/.ready-$extra" ] && [ "$(cat "$venv/.ready-$extra")" = "$(state)" ]
}

install() {
  local extra=$1 base ours wanted
  ours=$(identify "$python") || ours=
  wanted=$(identify "${PYTHON:-$python}") || wanted=
  if [ -z "$ours" ] || [ "$ours" != "$wanted" ]; then
    base=$(pick_python)
    say "making $venv with $("$base" --version)"
    make_venv "$base"
  fi
  say "installing the project and what it needs (a minute or two the first time)"
  # An extension built by another compiler, or from older sources, must not linger.
  rm -f "$root"/mpc/*.so "$venv"/.ready-*
  # compat: a plain path to the sources, where the import hook would cost every new process 12 ms.
  "$python" -m pip install -qq --disable-pip-version-check --config-settings editable_mode=compat \
    --editable "$root[$extra]" >&2 ||
    die "the installation failed; pip's own words are above"
  [ -n "$(ls "$root"/mpc/*.so 2>/dev/null)" ] ||
    say "the C extension could not be built (is there a C compiler?); numpy does its work, more slowly"
  # dev holds all of test, and test all of examples.
  state >"$venv/.ready-examples"
  [ "$extra" = examples ] || state >"$venv/.ready-test"
  [ "$extra" != dev ] || state >"$venv/.ready-dev"
}

prepare() {
  is_ready "$1" && return
  (
    # Two commands started together: one installs, the other waits and finds it done.
    if command -v flock >/dev/null; then flock 9; fi
    is_ready "$1" || install "$1"
  ) 9<"$root"
}
