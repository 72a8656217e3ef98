#!/usr/bin/env bash
# Table 5 and the wide spectrum for the encoding AN-Estimator, beside the weighted average that needs no training.
# NGPU, DATA and RUNS come from the environment; further flags are passed on (--help lists them).
# --preset tiny takes minutes.
set -euo pipefail
source "$(dirname "$0")/launch.sh"
launch test_AN_estimator.benchmark --estimators E-ANE WA-ANE --data "$DATA" --runs "$RUNS" "$@"
