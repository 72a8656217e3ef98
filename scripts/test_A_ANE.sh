#!/usr/bin/env bash
# Table 5 and the wide spectrum for the attention AN-Estimator, beside the weighted average, which needs no training.
# NGPU, DATA and RUNS come from the environment; further flags are passed on (--help lists them).
# --preset tiny takes minutes.
set -euo pipefail
source "$(dirname "$0")/launch.sh"
launch test_AN_estimator.benchmark --estimators A-ANE WA-ANE --data "$DATA" --runs "$RUNS" "$@"
