#!/usr/bin/env bash
# Make the Python environment of this repository, once, and print the path of its interpreter.
#
#   bash scripts/setup.sh          the packages of requirements.txt, in .venv
#   bash scripts/setup.sh --dev    and those of the tests
#   bash scripts/setup.sh --oldest the same with the oldest releases that requirements.txt allows, in .venv-oldest
#
# WSRNAS_PYTHON=/path/to/python uses that interpreter's environment instead of .venv; what it lacks is installed there.
# The oldest releases never go into an environment of the user's own: they need Python 3.11 or 3.12.
set -euo pipefail
case "${1:-}" in -h | --help) sed -n '2,/^[^#]/{ s/^# \{0,1\}//p; }' "$0"; exit ;; esac
unset CDPATH  # cd would look there, and print where it went
cd "$(dirname "$0")/.."

say() { echo "setup: $*" >&2; }

extra="" venv=".venv" oldest=""
case "${1:-}" in
    --dev) extra="[dev]" ;;
    --oldest) extra="[dev]" venv=".venv-oldest" oldest=yes WSRNAS_PYTHON="" ;;
    "") ;;
    *) say "unknown argument $1; expected --dev, --oldest or nothing"; exit 2 ;;
esac

# Tasks of an array that start together on a shared file system wait for the first one, where it has locks.
if { exec 9>> requirements.txt; } 2>/dev/null; then  # nothing is written there
    flock 9 2>/dev/null || true
fi

if [ -n "${WSRNAS_PYTHON:-}" ]; then
    python="$WSRNAS_PYTHON"
    command -v "$python" >/dev/null || { say "WSRNAS_PYTHON=$python is not an executable"; exit 2; }
    python="$(command -v "$python")"
else
    python="$PWD/$venv/bin/python"
    if [ ! -x "$python" ]; then
        command -v python3 >/dev/null || { say "python3 is not installed; expected Python 3.11 or newer"; exit 2; }
        python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
            || { say "python3 is $(python3 -V 2>&1); expected Python 3.11 or newer (or set WSRNAS_PYTHON)"; exit 2; }
        say "making $venv"
        python3 -m venv "$venv" || { rm -rf "$venv"; say "cannot make $venv (on Debian: apt install python3-venv)"; exit 2; }
    elif ! "$python" -m pip --version >/dev/null 2>&1; then
        say "$venv is incomplete (no pip): remove it and start again"
        exit 2
    fi
fi

# One stamp for each kind of installation, naming what was installed: a changed requirements.txt installs again.
wanted="$(cat requirements.txt pyproject.toml | cksum | tr -d ' ')"
prefix="$("$python" -c 'import sys; print(sys.prefix if sys.version_info >= (3, 11) else "")' 2>/dev/null || true)"
[ -d "$prefix" ] || { say "${WSRNAS_PYTHON:-$python} is not an interpreter of Python 3.11 or newer"; exit 2; }
stamp="$prefix/.wsrnas-installed${extra}"
complete() { "$python" - "$extra" <<'PY'
import importlib.util, sys
names = ["torch", "torchvision", "numpy", "scipy", "tqdm", "tensorboard", "matplotlib", "PIL"]
names += ["pytest", "xdist", "hypothesis", "ruff", "mypy"] if sys.argv[1] else []
sys.exit(any(importlib.util.find_spec(name) is None for name in names))
PY
}
if [ "$(cat "$stamp" 2>/dev/null || true)" != "$wanted" ] || ! complete; then
    # An environment of the user's own that has everything is left as it is.
    if [ -z "${WSRNAS_PYTHON:-}" ] || ! complete; then
        say "installing requirements.txt${extra:+ and the test tools}${oldest:+, oldest releases} (about 5 GB at first)"
        install=("$python" -m pip install --quiet --disable-pip-version-check)
        if [ -n "$oldest" ]; then  # every lower bound of requirements.txt as the only release
            constraints="$(mktemp)"
            sed -nE 's/^([A-Za-z0-9_.-]+)>=([0-9.]+).*/\1==\2/p' requirements.txt > "$constraints"
            install+=(-c "$constraints")
        fi
        "${install[@]}" -r requirements.txt >&2
        [ -z "$extra" ] || "${install[@]}" -e ".$extra" >&2
        [ -z "$oldest" ] || rm -f "$constraints"
    fi
    { echo "$wanted" > "$stamp"; } 2>/dev/null || true
fi
echo "$python"
