#!/usr/bin/env bash
# Table 5 and the wide spectrum for all AN-Estimators: the comparison of docs/AN_ESTIMATOR.md.
# NGPU, DATA and RUNS come from the environment; further flags are passed on (--help lists them).
# --preset tiny takes minutes.
set -euo pipefail
source "$(dirname "$0")/launch.sh"
launch test_AN_estimator.benchmark --data "$DATA" --runs "$RUNS" "$@"
