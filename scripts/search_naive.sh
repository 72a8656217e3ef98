#!/usr/bin/env bash
# Wsr-NAS without the AN-Estimator: PGD attacks every strength. STRENGTHS is 1, 3, 6 or 11 (Tables 1 and 3).
# NGPU, DATA and RUNS come from the environment; further flags are passed on (--help lists them).
set -euo pipefail
source "$(dirname "$0")/launch.sh"
launch search.wsr_nas --preset "naive-${STRENGTHS:-6}" --data "$DATA" --runs "$RUNS" "$@"
