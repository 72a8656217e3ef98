#!/usr/bin/env bash
# Check the types: no error in the folders that pyproject.toml names, and elsewhere no more errors than
# tests/repository/mypy_baseline.json records. After mending some: bash scripts/typecheck.sh --record.
set -euo pipefail
case "${1:-}" in -h | --help) sed -n '2,/^[^#]/{ s/^# \{0,1\}//p; }' "$0"; exit ;; esac
unset CDPATH  # cd would look there, and print where it went
cd "$(dirname "$0")/.."
PYTHON="$(bash scripts/setup.sh --dev)"
"$PYTHON" -m mypy
"$PYTHON" tests/repository/typecheck.py "$@"
