#!/usr/bin/env bash
# Check a machine with a GPU in at most 8 minutes: GPU tests, speeds, memory, hours of a search and of a training.
#
#   bash scripts/gpu_check.sh [--out FOLDER] [--limit SECONDS]
#
# The results are in runs/gpu_check: gpu_check.json and the page gpu_check.md. The same command goes on after a stop.
set -euo pipefail
case "${1:-}" in -h | --help) sed -n '2,/^[^#]/{ s/^# \{0,1\}//p; }' "$0"; exit ;; esac
unset CDPATH  # cd would look there, and print where it went
cd "$(dirname "$0")/.."
PYTHON="$(bash scripts/setup.sh --dev)"
exec "$PYTHON" -m benchmarks.gpu_check "$@"
